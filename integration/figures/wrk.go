package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// processes is how many of each server are loaded, one after the other. Two of the same program
	// can differ by as much as what is measured here.
	processes = 8
	// rounds is how often each of them is loaded, by turns. They are many and short, because the
	// speed of a machine that others use changes within seconds.
	rounds = 5
)

// throughput is what wrk and the kernel saw of one server.
type throughput struct {
	perSecond float64
	cpu       float64 // us a request
	p99       time.Duration
}

// contender is a server that is compared with others.
type contender struct {
	start func() (*server, error)
	path  string
	turns []throughput
}

// compete loads contenders by turns, each with 32 connections from one thread. Each begins as often
// as the others: what was loaded just before makes a difference.
func compete(ctx context.Context, d time.Duration, contenders ...*contender) error {
	for process := range processes {
		servers := make([]*server, len(contenders))
		for i, c := range contenders {
			s, err := c.start()
			if err != nil {
				return err
			}
			servers[i] = s
			if err := poll(ctx, s.addr+c.path, func() bool { return get(ctx, http.DefaultClient, "http://"+s.addr+c.path) == nil }); err != nil {
				return fmt.Errorf("%w\n%s", err, s.log)
			}
		}
		for round := range rounds {
			for turn := range contenders {
				i := (process + round + turn) % len(contenders)
				c := contenders[i]
				t, err := wrk(ctx, d, servers[i], c.path)
				if err != nil {
					return err
				}
				c.turns = append(c.turns, t)
			}
		}
		for _, s := range servers {
			_ = s.cmd.Process.Signal(syscall.SIGTERM) // the rig waits for it
		}
	}
	return nil
}

// wrk loads one server for a while.
func wrk(ctx context.Context, d time.Duration, s *server, path string) (throughput, error) {
	before := s.usage()
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c32", "-d"+d.String(), "--latency", "http://"+s.addr+path).CombinedOutput()
	if err != nil {
		return throughput{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	t, requests, err := parseWrk(string(out))
	t.cpu = float64((s.usage().cpu - before.cpu).Microseconds()) / requests
	return t, err
}

func perSecond(t throughput) float64 { return t.perSecond }
func cpu(t throughput) float64       { return t.cpu }
func p99(t throughput) float64       { return ms(t.p99) }

// median is that of all turns.
func (c *contender) median(of func(throughput) float64) float64 {
	return c.middle(func(round int) float64 { return of(c.turns[round]) })
}

// against is the median of the ratios of each round: what slows the machine down for a while slows
// both.
func (c *contender) against(another *contender, of func(throughput) float64) float64 {
	return c.middle(func(round int) float64 { return of(c.turns[round]) / of(another.turns[round]) })
}

func (c *contender) middle(of func(round int) float64) float64 {
	all := make([]float64, len(c.turns))
	for round := range all {
		all[round] = of(round)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

var (
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkP99      = regexp.MustCompile(`99%\s+([\d.]+)(us|ms|s)`)
)

func parseWrk(out string) (t throughput, requests float64, err error) {
	rate, count, p99 := wrkRate.FindStringSubmatch(out), wrkRequests.FindStringSubmatch(out), wrkP99.FindStringSubmatch(out)
	if rate == nil || count == nil || p99 == nil || strings.Contains(out, "Non-2xx") {
		return t, 0, fmt.Errorf("wrk did not load the server:\n%s", out)
	}
	t.perSecond, _ = strconv.ParseFloat(rate[1], 64)
	requests, _ = strconv.ParseFloat(count[1], 64)
	t.p99, err = time.ParseDuration(p99[1] + p99[2])
	return t, requests, err
}

const (
	upstreamArg = "upstream"
	reverseArg  = "reverse"
)

// serveUpstream is a WeChat that costs as little as possible.
func serveUpstream() {
	mux := http.NewServeMux()
	answer := func(v any) http.HandlerFunc {
		body, _ := json.Marshal(v) // of strings and numbers
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		}
	}
	mux.HandleFunc("/cgi-bin/stable_token", answer(map[string]any{"access_token": strings.Repeat("x", 136), "expires_in": 7200}))
	mux.HandleFunc("/", answer(map[string]any{"errcode": 0, "ip_list": []string{"127.0.0.1"}}))
	listen(mux)
}

// serveReverse is net/http's own proxy before that.
func serveReverse() {
	target, err := url.Parse(os.Getenv("FIGURES_UPSTREAM"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	listen(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	})
}

// listen serves with the timeouts of the sidecar.
func listen(h http.Handler) {
	s := &http.Server{Addr: os.Getenv("FIGURES_LISTEN"), Handler: h,
		ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	fmt.Fprintln(os.Stderr, s.ListenAndServe())
	os.Exit(1)
}

// self starts this program again as one of its servers.
func (r *rig) self(arg string, env ...string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{log: &strings.Builder{}, addr: freeAddr()}
	s.cmd = exec.Command(self, arg)
	s.cmd.Env = append(append(goEnv(), "FIGURES_LISTEN="+s.addr), env...)
	s.cmd.Stderr = s.log
	return s, r.start(s.cmd)
}

const nginxConf = `daemon off; worker_processes 1; pid DIR/nginx.pid; error_log /dev/null;
events { worker_connections 256; }
http { access_log off; client_body_temp_path DIR; proxy_temp_path DIR; fastcgi_temp_path DIR; uwsgi_temp_path DIR; scgi_temp_path DIR;
upstream wechat { server UPSTREAM; keepalive 64; }
server { listen LISTEN; location / { proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://wechat; } } }
`

// nginx starts one as a proxy. It has one worker process, which is what is measured.
func (r *rig) nginx(upstream string) (*server, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, err
	}
	s := &server{log: &strings.Builder{}, addr: freeAddr(), workers: true}
	conf := filepath.Join(r.dir, "nginx.conf")
	text := strings.NewReplacer("DIR", r.dir, "UPSTREAM", upstream, "LISTEN", s.addr).Replace(nginxConf)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(path, "-c", conf, "-p", r.dir)
	s.cmd.Stderr = s.log
	return s, r.startUntil(syscall.SIGTERM, s.cmd) // a killed one would leave its worker behind
}

// hits compares an answer from memory and a proxied call with what net/http and nginx take for as
// much.
func (r *rig) hits(ctx context.Context, d time.Duration) ([]figure, error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return []figure{{what: "a hit and a proxied call", value: "not measured: wrk is not installed"}}, nil
	}
	upstream, err := r.self(upstreamArg)
	if err != nil {
		return nil, err
	}
	sidecar := func() (*server, error) { return r.sidecarOn("http://"+upstream.addr, "wrk", r.apps[:1]) }
	token, call := "/v1/apps/"+r.apps[0]+"/token", "/cgi-bin/getcallbackip"

	bare, hit := &contender{start: r.baseline, path: token}, &contender{start: sidecar, path: token}
	if err := compete(ctx, d, bare, hit); err != nil {
		return nil, err
	}
	figures := compared("a hit", "net/http with the same timeouts", hit, bare)

	reverse := &contender{path: call, start: func() (*server, error) {
		return r.self(reverseArg, "FIGURES_UPSTREAM=http://"+upstream.addr)
	}}
	nginx := &contender{path: call, start: func() (*server, error) { return r.nginx(upstream.addr) }}
	proxied := &contender{path: "/proxy/" + r.apps[0] + call, start: sidecar}
	contenders := []*contender{reverse, proxied}
	_, err = exec.LookPath("nginx")
	withNginx := err == nil
	if withNginx {
		contenders = append(contenders, nginx)
	}
	if err := compete(ctx, d, contenders...); err != nil {
		return nil, err
	}
	figures = append(figures, compared("a proxied call", "ReverseProxy", proxied, reverse)...)
	if withNginx {
		figures = append(figures, compared("a proxied call", "nginx, 1 worker", proxied, nginx)...)
	}
	return figures, nil
}

// compared are the figures of one server beside another.
func compared(what, baseline string, ours, theirs *contender) []figure {
	row := func(name, format string, of func(throughput) float64) figure {
		return figure{what + ", " + name, fmt.Sprintf(format, ours.median(of)),
			baseline + ": " + fmt.Sprintf(format, theirs.median(of)), ours.against(theirs, of)}
	}
	return []figure{row("calls a second", "%.0f", perSecond), row("CPU", "%.1f us", cpu), row("p99 of 32 connections", "%.1f ms", p99)}
}
