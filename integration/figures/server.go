package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// server is a process that answers, and is measured from outside.
type server struct {
	cmd   *exec.Cmd
	addr  string
	ops   string // of a sidecar
	urls  []string
	log   *strings.Builder
	began time.Time

	workers bool // its first child does the work
}

// pid is the process that does the work.
func (s *server) pid() int {
	pid := s.cmd.Process.Pid
	if s.workers {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		_, _ = fmt.Sscan(string(children), &pid)
	}
	return pid
}

func (s *server) tokensOf(apps []string) {
	for _, id := range apps {
		s.urls = append(s.urls, "http://"+s.addr+"/v1/apps/"+id+"/token")
	}
}

// ready returns when every app has a token.
func (s *server) ready(ctx context.Context) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, url := range s.urls {
		if err := poll(ctx, url, func() bool { return get(ctx, client, url) == nil }); err != nil {
			return fmt.Errorf("%w\n%s", err, s.log)
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := client.Do(request)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", r.Status)
	}
	return nil
}

// usage is what a process has used, as the kernel counts it; memory in MiB.
type usage struct {
	rss       float64
	anonymous float64 // without the pages of the program's file, which the sidecars of a node share
	peak      float64 // since its start
	cpu       time.Duration
}

// usage is zero if the process is gone.
func (s *server) usage() usage {
	var u usage
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		field, ok := map[string]*float64{"VmRSS": &u.rss, "RssAnon": &u.anonymous, "VmHWM": &u.peak}[name]
		var kib float64
		if _, err := fmt.Sscan(value, &kib); ok && err == nil {
			*field = kib / 1024
		}
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid()))
	const tick = 10 * time.Millisecond // USER_HZ, which Linux promises to programs
	if _, rest, ok := strings.Cut(string(stat), ") "); ok {
		fields := strings.Fields(rest)
		var user, system time.Duration
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
		u.cpu = (user + system) * tick
	}
	return u
}

// result is what the callers saw.
type result struct {
	took         []time.Duration // sorted, from when a request was due
	sent, failed int
}

func (r result) quantile(q float64) time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	return r.took[int(q*float64(len(r.took)-1))]
}

// load asks at the plan's rate, whether answers come or not, and returns what they saw and the
// usage at the end, with the most memory that was seen.
func (s *server) load(ctx context.Context, p plan) (result, usage) {
	var mu sync.Mutex
	var all result
	var callers sync.WaitGroup
	began := time.Now()
	step := time.Duration(p.connections) * time.Second / time.Duration(p.rate)
	for c := range p.connections {
		callers.Go(func() {
			client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			var mine result
			for due := began.Add(step * time.Duration(c) / time.Duration(p.connections)); due.Before(began.Add(p.load)) && ctx.Err() == nil; due = due.Add(step) {
				pause(ctx, time.Until(due))
				mine.sent++
				if err := get(ctx, client, s.urls[(c+mine.sent)%len(s.urls)]); err != nil {
					mine.failed++
				}
				mine.took = append(mine.took, time.Since(due))
			}
			mu.Lock()
			defer mu.Unlock()
			all.took = append(all.took, mine.took...)
			all.sent, all.failed = all.sent+mine.sent, all.failed+mine.failed
		})
	}
	done := make(chan struct{})
	go func() { callers.Wait(); close(done) }()
	var most usage
	for {
		now := s.usage()
		now.rss, now.anonymous = max(now.rss, most.rss), max(now.anonymous, most.anonymous)
		most = now
		select {
		case <-done:
			slices.Sort(all.took)
			return all, most
		case <-time.After(100 * time.Millisecond):
		}
	}
}
