package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// manyApps measures a sidecar with so many apps, from its start on an empty Redis. one becomes what
// one app takes, with which more are compared.
func (r *rig) manyApps(ctx context.Context, n int, one *usage) ([]figure, error) {
	if err := r.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	ids, accounts := make([]string, n), make([]wechattest.App, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("wx%016x", 1<<20+i)
		accounts[i] = wechattest.App{ID: ids[i], Secret: appSecret}
	}
	sim := wechattest.New(accounts...)
	upstream, stop := serve(sim)
	defer stop()
	s, err := r.sidecarOn(upstream, fmt.Sprintf("apps%d", n), ids)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.cmd.Process.Kill() }() // the rig waits for it
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	ready, err := allFetched(ctx, s, sim, ids)
	if err != nil {
		return nil, err
	}
	for _, url := range s.urls[max(0, n-100):] {
		if err := poll(ctx, url, func() bool { return get(ctx, client, url) == nil }); err != nil {
			return nil, err
		}
	}
	fetches := 0
	for _, id := range ids {
		fetches += sim.Calls(id).Fetches()
	}
	pause(ctx, 2*time.Second)
	const window = 20 * time.Second
	cpu, commands, looks := r.redisCPU(), r.commands(ctx), r.looks(ctx)
	pause(ctx, window)
	cpu, commands, looks = r.redisCPU()-cpu, r.commands(ctx)-commands, r.looks(ctx)-looks
	used := s.usage()
	size, err := r.metricsSize(ctx, client, s)
	if err != nil {
		return nil, err
	}
	name := countOf(n)
	figures := []figure{
		{what: name + ": all have a token after", value: fmt.Sprintf("%.1f s, by %d fetches", ready.Seconds(), fetches)},
		{what: name + ": RSS", value: fmt.Sprintf("%.1f MiB", used.rss)},
		{what: name + ": Redis CPU while nothing happens", value: fmt.Sprintf("%.2f s a minute", cpu.Seconds()*float64(time.Minute/window))},
		{what: name + ": commands of Redis while nothing happens, those in scripts included", value: fmt.Sprintf("%.0f a second, for %.0f looks",
			float64(commands)/window.Seconds(), float64(looks)/window.Seconds())},
		{what: name + ": /metrics", value: fmt.Sprintf("%d KiB", size/1024)},
	}
	switch {
	case n == 1:
		*one = used
	case one.rss > 0:
		figures[1].baseline = fmt.Sprintf("1 app: %.1f MiB; %.1f KiB of its own for each further one", one.rss, (used.anonymous-one.anonymous)*1024/float64(n-1))
		figures[1].ratio = used.rss / one.rss
	}
	return figures, nil
}

func countOf(apps int) string {
	if apps == 1 {
		return "1 app"
	}
	return fmt.Sprintf("%d apps", apps)
}

// allFetched waits until each app has been fetched, and returns how long after the start that was.
func allFetched(ctx context.Context, s *server, sim *wechattest.Server, ids []string) (time.Duration, error) {
	for fetched := 0; fetched < len(ids); {
		if time.Since(s.began) > 2*time.Minute {
			return 0, fmt.Errorf("%d apps have no token after 2 minutes\n%s", len(ids), s.log)
		}
		pause(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if fetched = sim.Calls(ids[len(ids)-1]).Fetches(); fetched > 0 { // the last one may come early
			fetched = 0
			for _, id := range ids {
				fetched += min(1, sim.Calls(id).Fetches())
			}
		}
	}
	return time.Since(s.began), nil
}

// metricsSize returns the length of the scrape in bytes.
func (r *rig) metricsSize(ctx context.Context, client *http.Client, s *server) (int, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	ask.Header.Set("Accept-Encoding", "identity")
	answer, err := client.Do(ask)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return len(body), err
}

// redisCPU is the time that the redis-server has used; 0 if Redis is embedded.
func (r *rig) redisCPU() time.Duration {
	if r.redisPid == 0 {
		return 0
	}
	body, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.redisPid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(body))
	user, _ := strconv.ParseInt(fields[13], 10, 64)
	system, _ := strconv.ParseInt(fields[14], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// looks is how many scripts Redis has run.
func (r *rig) looks(ctx context.Context) int {
	return r.counter(ctx, "commandstats", "cmdstat_evalsha:calls=")
}

// commands is how many commands Redis has run, those in scripts included.
func (r *rig) commands(ctx context.Context) int {
	return r.counter(ctx, "stats", "total_commands_processed:")
}

// counter returns a number of Redis' INFO, 0 if it is not there.
func (r *rig) counter(ctx context.Context, section, name string) (n int) {
	info, err := r.redis.Info(ctx, section).Result()
	if err != nil {
		return 0
	}
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, _ = fmt.Sscan(strings.SplitN(rest, ",", 2)[0], &n)
		}
	}
	return n
}
