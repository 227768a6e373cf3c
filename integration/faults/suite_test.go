package faults

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

var which = flag.String("faults", "", "all, or a regular expression of the rows to run; default none")

func TestMain(m *testing.M) {
	flag.Parse()
	code := rig.Main(m)
	report.print(os.Stdout)
	if *which == "all" {
		if err := report.write(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

func TestFaults(t *testing.T) {
	if *which == "" {
		t.Skip("only with -faults: see make faults")
	}
	tokencachetest.NeedRedis(t)
	pattern := regexp.MustCompile("")
	if *which != "all" {
		pattern = regexp.MustCompile(*which)
	}
	for _, r := range rows() {
		if !pattern.MatchString(r.name) {
			continue
		}
		on := r.endpoints
		if on == nil {
			on = []endpoint{classic, stable}
		}
		for _, e := range on {
			t.Run(strings.ReplaceAll(r.name, " ", "-")+"/"+string(e), func(t *testing.T) {
				if !r.alone {
					t.Parallel()
				}
				r.try(t, e)
			})
		}
	}
}

// try runs a row on one endpoint.
func (r row) try(t *testing.T, e endpoint) {
	begun := time.Now()
	b := &bench{t: t, row: r, endpoint: e}
	var seen rig.Seen
	fetches, grew := 0, 0.0
	// Also when the row ends the test half way.
	defer func() {
		if t.Failed() && b.Cluster != nil {
			b.logJournal()
		}
		report.add(result{row: r, endpoint: e, seen: seen, fetches: fetches, grew: grew, notes: b.notes, failed: t.Failed(), took: time.Since(begun)})
	}()

	if r.store != nil {
		b.store = r.store(b)
	} else {
		b.store = rig.StartRedis(t)
	}
	b.Cluster = rig.New(t, b.store, append([]string{"WECHAT_ENDPOINT=" + string(e)}, r.env...)...)
	b.Linked, b.Build = r.store == nil, r.build
	b.Upstream.Lenient()
	b.Upstream.Tune(func(k *wechattest.Knobs) { k.PerDay = nil }) // the load's own calls
	replicas := r.replicas
	if replicas == 0 {
		replicas = 3
	}
	var settings []string
	if r.settings != nil {
		settings = r.settings(b)
	}
	b.Add(replicas, settings...)
	cold := 0
	if !r.cold {
		// No row is about starting, which takes its time where many programs start at once.
		b.within(rig.Patience, "every sidecar has the token", func() bool { return b.everywhere(b.All, "") })
		cold = b.Upstream.Calls(rig.AppID).Fetches()
	}
	before := b.goroutines()
	b.watch = b.startWatch(r.reveals)
	b.load = b.startLoad()
	b.within(rig.Patience, "the load runs", b.load.Runs)

	done := false
	defer func() { // for the figures of a row that gave up
		if !done {
			b.heal()
			seen = b.load.Stop()
			fetches, grew = b.Upstream.Calls(rig.AppID).Fetches()-cold, b.watch.grew()
		}
	}()
	r.run(b)
	done = true

	b.heal()
	b.Upstream.OnCall(nil)
	b.Upstream.ClearFaults()
	if at := b.reveals(); at {
		deadline := time.Now().Add(5 * time.Second)
		for b.watch.grew() < r.reveals.least() && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
		}
	}
	seen = b.load.Stop()
	b.watch.end()
	fetches, grew = b.Upstream.Calls(rig.AppID).Fetches()-cold, b.watch.grew()
	b.judge(seen, fetches, grew)
	if late := b.settled(before); late != "" {
		t.Errorf("not all is as it was: %s", late)
	}
}

// startLoad starts callers of every kind, of the drop-in on the endpoint of the row. They are
// beside those of b.load, unless a row replaces them.
func (b *bench) startLoad() *rig.Load {
	return b.StartLoad(rig.LoadOptions{Stable: b.endpoint == stable})
}

// logJournal shows what the sidecars did, in the words of the cache.
func (b *bench) logJournal() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, e := range b.store.Client().XRange(ctx, rig.Namespace+":{"+rig.AppID+"}:journal", "-", "+").Val() {
		b.t.Logf("journal %s %v", e.ID, e.Values)
	}
}

// reveals reports whether the row's metric must show the fault on this endpoint.
func (b *bench) reveals() bool {
	return b.row.reveals.name != "" && (b.row.reveals.on == "" || b.row.reveals.on == b.endpoint)
}

func (r reveal) least() float64 {
	if r.by == 0 {
		return 1
	}
	return r.by
}

// judge compares what was met with what was promised.
func (b *bench) judge(seen rig.Seen, fetches int, grew float64) {
	l := b.row.limits
	if more := fetches - b.provoked; more > l.fetches {
		b.t.Errorf("%d fetches for %d refreshes, want at most %d more", fetches, b.provoked, l.fetches)
	}
	if seen.Calls == 0 || seen.Reads == 0 {
		b.t.Errorf("%d calls and %d direct reads: there was no load", seen.Calls, seen.Reads)
	}
	if seen.Failed > l.failed {
		b.t.Errorf("%d of %d calls failed, want at most %d: %q", seen.Failed, seen.Calls, l.failed, seen.Failures)
	}
	if seen.Dead > l.dead {
		b.t.Errorf("%d dead values were handed out as good, want at most %d", seen.Dead, l.dead)
	}
	if seen.MissingFor > l.missingFor || l.missingFor == 0 && seen.Missing > 0 {
		b.t.Errorf("direct readers missed the key %d times, for %v, want at most %v", seen.Missing, seen.MissingFor, l.missingFor)
	}
	if seen.Stale > 0 && !l.stale {
		b.t.Errorf("%d answers were stale", seen.Stale)
	}
	if seen.Worst > l.longest() {
		b.t.Errorf("a caller waited %v, want at most %v", seen.Worst, l.longest())
	}
	if b.reveals() && grew < b.row.reveals.least() {
		b.t.Errorf("%s rose by %v, want at least %v: it should reveal the fault", b.row.reveals, grew, b.row.reveals.least())
	}
}

// result is a line of the table.
type result struct {
	row      row
	endpoint endpoint
	seen     rig.Seen
	fetches  int
	grew     float64
	notes    []string
	failed   bool
	took     time.Duration
}

// results is the table.
type results struct {
	mu  sync.Mutex
	all []result
}

var report results

func (r *results) add(one result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
	verdict := "ok"
	if one.failed {
		verdict = "FAILED"
	}
	fmt.Printf("%-8s %s, %s (%v)\n", verdict, one.row.name, one.endpoint, one.took.Round(100*time.Millisecond))
}

// print writes the table: three columns are for people, and RESULTS.md has all figures.
func (r *results) print(out io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return
	}
	slices.SortStableFunc(r.all, func(a, b result) int { return a.row.order() - b.row.order() })
	fmt.Fprintln(out, "\n| fault | endpoint | promised | fetches | calls | failed | stale | dead | missing | worst wait | revealed by | observed | took | verdict |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, l := range r.all {
		verdict, metric := "pass", "-"
		if l.failed {
			verdict = "**FAIL**"
		}
		if l.row.reveals.name != "" {
			metric = fmt.Sprintf("%s +%.3g", cell.Replace(l.row.reveals.String()), l.grew)
		}
		fmt.Fprintf(out, "| %s | %s | %s; %s | %d | %d | %d | %d | %d | %d (%v) | %v | %s | %s | %v | %s |\n",
			l.row.name, l.endpoint, l.row.promise, l.row.limits, l.fetches, l.seen.Calls, l.seen.Failed, l.seen.Stale, l.seen.Dead,
			l.seen.Missing, l.seen.MissingFor.Round(time.Millisecond), l.seen.Worst.Round(time.Millisecond), metric,
			strings.Join(l.notes, ", "), l.took.Round(100*time.Millisecond), verdict)
	}
}

// write replaces RESULTS.md by the figures of this run, which had all rows.
func (r *results) write() error {
	f, err := os.Create("RESULTS.md")
	if err != nil {
		return err
	}
	fmt.Fprintf(f, "# The figures of the fault suite\n\n`make faults` writes this file when it runs all rows. This run was made on %d cores.\n\n"+
		"*calls* are the calls of the load; *failed*, *stale* and *dead* count its answers, *missing* the readers of the Redis key that found none.\n", runtime.NumCPU())
	r.print(f)
	return f.Close()
}

// cell makes a metric's name fit for a table.
var cell = strings.NewReplacer("wxtoken_", "", "|", `\|`)

// order is the place of a row among all.
func (r row) order() int {
	return slices.IndexFunc(rows(), func(o row) bool { return o.name == r.name })
}
