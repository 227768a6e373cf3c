// Command figures measures what a sidecar costs and prints it: what it takes of its pod, how fast
// it answers, how it grows with apps and replicas. The program is the real one, on real sockets,
// with a redis-server where one is installed; WeChat is simulated and answers at once. Each figure
// has its baseline from the same run, on the same machine: the ratio is what can be compared
// between machines.
//
// It runs on Linux, takes some 20 minutes, and asserts nothing. GOGC, GOMEMLIMIT and GOMAXPROCS go
// on to the servers, to try what they change. wrk and nginx are used where they are installed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// plan is how long and how hard.
type plan struct {
	rate        int           // requests a second
	connections int           // kept alive
	load        time.Duration // at that rate, for each server
	settle      time.Duration // before the idle window
	idle        time.Duration
	apps        int // of the sidecar with many
	starts      int // of which the median is printed
	many        string
	accounts    int           // of the platform
	only        string        // measure nothing else; empty: all
	wrk         time.Duration // of each turn of each server
}

// What the plan can measure by itself.
const (
	onlyHits     = "hits"
	onlyAccounts = "accounts"
)

func main() {
	if serve, ok := servers[os.Args[len(os.Args)-1]]; ok && len(os.Args) == 2 {
		serve()
		return
	}
	p := plan{starts: 7, wrk: time.Second}
	flag.IntVar(&p.rate, "rate", 1000, "`requests` a second")
	flag.IntVar(&p.connections, "connections", 50, "`connections`, kept alive")
	flag.DurationVar(&p.load, "load", 8*time.Second, "`duration` of the load on each server")
	flag.DurationVar(&p.settle, "settle", 6*time.Second, "`duration` before the idle window, in which a start ends")
	flag.DurationVar(&p.idle, "idle", 5*time.Second, "`duration` of the idle window")
	flag.IntVar(&p.apps, "apps", 100, "apps of the sidecar that has many")
	flag.StringVar(&p.many, "many", "1,100,1000,5000,10000", "numbers of apps to start a sidecar with")
	flag.IntVar(&p.accounts, "accounts", 5000, "accounts of a third-party platform whose tokens a sidecar keeps")
	flag.Func("only", "measure only `what`: hits or accounts", func(what string) error {
		if what != onlyHits && what != onlyAccounts {
			return fmt.Errorf("it is neither %s nor %s", onlyHits, onlyAccounts)
		}
		p.only = what
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, p, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

// servers are what this program is when it is started again.
var servers = map[string]func(){baselineArg: serveBaseline, upstreamArg: serveUpstream, reverseArg: serveReverse}

// figure is a row of the table.
type figure struct {
	what, value, baseline string
	ratio                 float64 // 0: none
}

// row is one server's figures.
type row struct {
	name       string
	idle, busy usage
	idleCPU    float64 // seconds a second
	busyCPU    float64
	result     result
}

func measure(ctx context.Context, p plan, out io.Writer) error {
	r, err := newRig(ctx, p.apps)
	if err != nil {
		return err
	}
	defer r.stop()
	if p.only != "" {
		return part(ctx, p, r, out)
	}
	cold, warm, err := r.starts(p.starts)
	if err != nil {
		return err
	}
	started := make([]*server, 0, 3)
	for _, start := range []func() (*server, error){
		r.baseline,
		func() (*server, error) { return r.sidecar("one", r.apps[:1]) },
		func() (*server, error) { return r.sidecar("many", r.apps) },
	} {
		s, err := start()
		if err != nil {
			return err
		}
		if err := s.ready(ctx); err != nil {
			return err
		}
		started = append(started, s)
	}
	names := []string{"bare net/http", "sidecar, 1 app", fmt.Sprintf("sidecar, %d apps", p.apps)}
	rows := make([]row, len(started))

	pause(ctx, p.settle)
	before := make([]usage, len(started))
	for i, s := range started {
		before[i] = s.usage()
	}
	pause(ctx, p.idle)
	for i, s := range started {
		rows[i] = row{name: names[i], idle: s.usage()}
		rows[i].idleCPU = (rows[i].idle.cpu - before[i].cpu).Seconds() / p.idle.Seconds()
	}
	for i, s := range started {
		began, from := time.Now(), s.usage()
		rows[i].result, rows[i].busy = s.load(ctx, p)
		rows[i].busyCPU = (rows[i].busy.cpu - from.cpu).Seconds() / time.Since(began).Seconds()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	report(out, p, r, rows, cold, warm)
	for _, s := range started {
		_ = s.cmd.Process.Kill() // the rig waits for it
	}
	return table(ctx, p, r, rows, out)
}

// part measures and prints what the plan names, and nothing else.
func part(ctx context.Context, p plan, r *rig, out io.Writer) error {
	fmt.Fprintf(out, "\n%s, %d CPUs, %s\n", runtime.Version(), runtime.NumCPU(), r.redisName)
	print := printer(out)
	if p.only == onlyHits {
		return print(r.hits(ctx, p.wrk))
	}
	return print(r.manyAccounts(ctx, p.accounts))
}

// table measures and prints what is not about the pod.
func table(ctx context.Context, p plan, r *rig, rows []row, out io.Writer) error {
	print := printer(out)
	one, bare := rows[1].busy.rss, rows[0].busy.rss
	steps := []func() ([]figure, error){
		func() ([]figure, error) { return r.hits(ctx, p.wrk) },
		func() ([]figure, error) {
			return []figure{{fmt.Sprintf("RSS at %d calls a second, 1 app", p.rate), fmt.Sprintf("%.1f MiB", one), fmt.Sprintf("net/http: %.1f MiB", bare), one / bare}}, nil
		},
		func() ([]figure, error) { return r.coldStart(ctx, 50) },
		func() ([]figure, error) { return r.coldStart(ctx, 200) },
		func() ([]figure, error) { return r.coldFleet(ctx, 20, 5000) },
		func() ([]figure, error) { return r.spread(ctx, 100) },
		func() ([]figure, error) { return r.tenThousand(ctx) },
	}
	var base usage
	for text := range strings.SplitSeq(p.many, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return fmt.Errorf("-many: %q is no number of apps", text)
		}
		steps = append(steps, func() ([]figure, error) { return r.manyApps(ctx, n, &base) })
	}
	steps = append(steps, func() ([]figure, error) { return r.manyAccounts(ctx, p.accounts) })
	for _, step := range steps {
		if err := print(step()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// printer prints the head of the table, and returns what prints rows of it.
func printer(out io.Writer) func([]figure, error) error {
	fmt.Fprintf(out, "\n| figure | measured | baseline in the same run | ratio |\n|---|---|---|---|\n")
	return func(figures []figure, err error) error {
		for _, f := range figures {
			ratio := ""
			if f.ratio > 0 {
				ratio = fmt.Sprintf("%.2f", f.ratio)
			}
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", f.what, f.value, f.baseline, ratio)
		}
		return err
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func report(out io.Writer, p plan, r *rig, rows []row, cold, warm time.Duration) {
	fmt.Fprintf(out, "\n%s, %d CPUs, %s; GET /v1/apps/{app}/token, %d a second for %v on %d connections\n\n",
		runtime.Version(), runtime.NumCPU(), r.redisName, p.rate, p.load, p.connections)
	fmt.Fprintln(out, "| | RSS idle | its own of that | RSS under load | its own of that | CPU idle | CPU under load | p50 | p99 | failed |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|")
	for _, w := range rows {
		fmt.Fprintf(out, "| %s | %.1f MiB | %.1f MiB | %.1f MiB | %.1f MiB | %.3f | %.3f | %.2f ms | %.2f ms | %d of %d |\n",
			w.name, w.idle.rss, w.idle.anonymous, w.busy.rss, w.busy.anonymous, w.idleCPU, w.busyCPU,
			ms(w.result.quantile(0.50)), ms(w.result.quantile(0.99)), w.result.failed, w.result.sent)
	}
	base, one, many := rows[0], rows[1], rows[2]
	fmt.Fprintf(out, "| 1 app / bare | x %.2f | x %.2f | x %.2f | x %.2f | | x %.2f | x %.2f | x %.2f | |\n",
		one.idle.rss/base.idle.rss, one.idle.anonymous/base.idle.anonymous,
		one.busy.rss/base.busy.rss, one.busy.anonymous/base.busy.anonymous, one.busyCPU/base.busyCPU,
		ratio(one, base, 0.50), ratio(one, base, 0.99))
	more := float64(p.apps - 1)
	fmt.Fprintln(out, "\nthe rest of the RSS is pages of the program's file, which the replicas on a node share and the kernel can drop")
	fmt.Fprintf(out, "each further app: %.0f KiB, %.5f CPU\n", (many.idle.anonymous-one.idle.anonymous)*1024/more, (many.idleCPU-one.idleCPU)/more)
	fmt.Fprintf(out, "from its start to the first token, median of %d: %.0f ms if it fetches it, %.0f ms if another replica has\n", p.starts, ms(cold), ms(warm))
	peak := max(one.busy.peak, many.busy.peak)
	limit := roundUp(3*peak, 16)
	fmt.Fprintf(out, "peak RSS of all: %.1f MiB; three times that, for the limit: %d MiB, GOMEMLIMIT=%dMiB; to request: %d MiB, %dm\n",
		peak, limit, limit*9/10, roundUp(1.25*peak, 4), int(max(one.busyCPU, many.busyCPU)*1000/10+1)*10)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func ratio(a, b row, q float64) float64 { return ms(a.result.quantile(q)) / ms(b.result.quantile(q)) }

// roundUp returns the next multiple of step above v.
func roundUp(v float64, step int) int { return (int(v)/step + 1) * step }
