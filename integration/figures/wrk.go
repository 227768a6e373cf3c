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

// rounds is how often each server is loaded, by turns. They are many and short, because the speed
// of a machine that others use changes within seconds; the median counts.
const rounds = 25

// throughput is what wrk and the kernel saw of one server.
type throughput struct {
	perSecond float64
	cpu       float64 // us a request
	p99       time.Duration
}

// wrk loads servers by turns, each with 32 connections from one thread, and returns the medians.
func wrk(ctx context.Context, d time.Duration, paths map[*server]string, servers ...*server) ([]throughput, error) {
	seen := make([][]throughput, len(servers))
	for range rounds {
		for i, s := range servers {
			before := s.usage()
			out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c32", "-d"+d.String(), "--latency", "http://"+s.addr+paths[s]).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("wrk: %w\n%s", err, out)
			}
			t, requests, err := parseWrk(string(out))
			if err != nil {
				return nil, err
			}
			t.cpu = float64((s.usage().cpu - before.cpu).Microseconds()) / requests
			seen[i] = append(seen[i], t)
		}
	}
	medians := make([]throughput, len(servers))
	for i, all := range seen {
		slices.SortFunc(all, func(a, b throughput) int { return int(a.perSecond - b.perSecond) })
		medians[i] = all[rounds/2]
		slices.SortFunc(all, func(a, b throughput) int { return int(1000 * (a.cpu - b.cpu)) })
		medians[i].cpu = all[rounds/2].cpu
	}
	return medians, nil
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

// nginx starts one as a proxy. It has one worker process, which is what is measured; nil if there
// is no nginx.
func (r *rig) nginx(upstream string) (*server, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, nil
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
	bare, err := r.baseline()
	if err != nil {
		return nil, err
	}
	reverse, err := r.self(reverseArg, "FIGURES_UPSTREAM=http://"+upstream.addr)
	if err != nil {
		return nil, err
	}
	sidecar, err := r.sidecarOn("http://"+upstream.addr, "wrk", r.apps[:1])
	if err != nil {
		return nil, err
	}
	if err := sidecar.ready(ctx); err != nil {
		return nil, err
	}
	token, call := "/v1/apps/"+r.apps[0]+"/token", "/cgi-bin/getcallbackip"
	hit, err := wrk(ctx, d, map[*server]string{bare: token, sidecar: token}, bare, sidecar)
	if err != nil {
		return nil, err
	}
	proxies := []*server{reverse, sidecar}
	paths := map[*server]string{reverse: call, sidecar: "/proxy/" + r.apps[0] + call}
	nginx, err := r.nginx(upstream.addr)
	if err != nil {
		return nil, err
	}
	if nginx != nil {
		proxies, paths[nginx] = append(proxies, nginx), call
		if err := poll(ctx, "nginx", func() bool { return get(ctx, http.DefaultClient, "http://"+nginx.addr+call) == nil }); err != nil {
			return nil, err
		}
	}
	proxied, err := wrk(ctx, d, paths, proxies...)
	if err != nil {
		return nil, err
	}
	figures := compared("a hit", "net/http with the same timeouts", hit[1], hit[0])
	figures = append(figures, compared("a proxied call", "ReverseProxy", proxied[1], proxied[0])...)
	if nginx != nil {
		figures = append(figures, compared("a proxied call", "nginx, 1 worker", proxied[1], proxied[2])...)
	}
	return figures, nil
}

// compared are the figures of one server beside another.
func compared(what, baseline string, ours, theirs throughput) []figure {
	return []figure{
		{what + ", calls a second", fmt.Sprintf("%.0f", ours.perSecond), fmt.Sprintf("%s: %.0f", baseline, theirs.perSecond), ours.perSecond / theirs.perSecond},
		{what + ", CPU", fmt.Sprintf("%.1f us", ours.cpu), fmt.Sprintf("%s: %.1f us", baseline, theirs.cpu), ours.cpu / theirs.cpu},
		{what + ", p99 of 32 connections", fmt.Sprintf("%.1f ms", ms(ours.p99)), fmt.Sprintf("%s: %.1f ms", baseline, ms(theirs.p99)), ms(ours.p99) / ms(theirs.p99)},
	}
}
