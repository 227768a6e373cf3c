package integration

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// everywhere asks every sidecar times times at once, and returns the answers.
func everywhere(t *testing.T, all []*process, times int, ask func(*process) (answer, error)) []answer {
	t.Helper()
	var mu sync.Mutex
	var answers []answer
	var wg sync.WaitGroup
	for _, p := range all {
		for range times {
			wg.Go(func() {
				a, err := ask(p)
				if err != nil {
					t.Errorf("%s: %v", p.name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, a)
			})
		}
	}
	wg.Wait()
	return answers
}

func (c *cluster) wantFetches(want int) {
	c.t.Helper()
	if got := c.upstream.Calls(appID).Fetches(); got != want {
		c.t.Errorf("%d upstream fetches, want %d", got, want)
	}
}

func (c *cluster) wantAllWork(answers []answer) {
	c.t.Helper()
	for _, a := range answers {
		if !c.upstream.works(a.AccessToken) || a.Stale {
			c.t.Errorf("version %d (stale: %t) was handed out and does not work", a.Version, a.Stale)
			return
		}
	}
}

// I1 and I4 with real processes: the numbers that the peers of this program are known by.
func TestSixteenProcessesFetchOnceColdAndOnceMoreInAStorm(t *testing.T) {
	server := startRedis(t)
	for name, url := range map[string]string{"real Redis": "redis://" + server.addr, "miniredis": startMiniredis(t)} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, url)
			k := c.upstream.Knobs()
			k.Latency = 100 * time.Millisecond
			c.upstream.SetKnobs(k)
			all := c.add(16)

			first := everywhere(t, all, 64, (*process).token)
			c.wantFetches(1)
			c.wantAllWork(first)

			c.upstream.KillTokens(appID)
			old := first[0].AccessToken
			c.wantAllWork(everywhere(t, all, 4, func(p *process) (answer, error) { return p.report(old) }))
			c.wantFetches(2)

			// Late reports of the old one cost nothing.
			c.wantAllWork(everywhere(t, all, 4, func(p *process) (answer, error) { return p.report(old) }))
			c.wantFetches(2)
			if got := c.metric("wxtoken_refreshes_total", `result="committed"`); got != 2 {
				t.Errorf("the metrics tell of %v committed refreshes, want 2", got)
			}
		})
	}
}

func startMiniredis(t *testing.T) string {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return "redis://" + m.Addr()
}

// makeDue makes what stands due for renewal now, as if nearly two hours had passed. The replicas
// spread their moment over the first minute of what they believe is left to do so.
func makeDue(t *testing.T, rdb *redis.Client) {
	t.Helper()
	ctx := context.Background()
	left, err := rdb.PTTL(ctx, valueKey).Result()
	if err != nil || left <= 0 {
		t.Fatalf("the value's life: %v, %v", left, err)
	}
	margin := int64(time.Minute / time.Millisecond)
	// Due for a minute already, so that every draw has passed.
	renewLeft := left.Milliseconds() + margin + margin
	if err := rdb.HSet(ctx, valueKey+":meta", "renew_left", renewLeft).Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Publish(ctx, namespace+":events", `{"app":"`+appID+`","kind":"access_token"}`).Err(); err != nil {
		t.Fatal(err)
	}
}

// holdReply lets the next token fetch be answered late, after WeChat has issued the token, and
// returns who asked.
func (c *cluster) holdReply(d time.Duration) (asked <-chan string) {
	ch := make(chan string, 1)
	var once atomic.Bool
	c.upstream.AddFault(wechattest.Fault{Path: "/cgi-bin/token", Count: 1, After: true, Delay: d})
	c.upstream.onCall(func(sidecar string, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/cgi-bin/token") && once.CompareAndSwap(false, true) {
			ch <- sidecar
		}
	})
	return ch
}

// lenient lets a replaced token live through its overlap however many were issued meanwhile, as WeChat
// promises. (If it keeps only one replaced token, as some infer, a lost one ends the one before at the
// moment in which its replacement is issued, a few ms before anybody can commit that.)
func (c *cluster) lenient() {
	k := c.upstream.Knobs()
	k.OverlapKeeps = -1
	c.upstream.SetKnobs(k)
}

// I2: a holder that is stopped past its lease, while another one takes over, wakes up and commits.
func TestAStoppedHolderThatWakesIsRefusedAndTheClustersTokenIsLive(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	c := newCluster(t, "redis://"+server.addr)
	c.lenient()
	all := c.add(4)
	first := everywhere(t, all, 1, (*process).token)
	rdb := server.client()
	readers := c.directReader(rdb)

	asked := c.holdReply(2 * time.Second)
	makeDue(t, rdb)
	holder := c.byName(<-asked)
	eventually(t, 5*time.Second, "WeChat has issued the holder's token", func() bool { return c.upstream.Calls(appID).Issued == 2 })
	if err := holder.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The others see the doubt when the lease is over, and one of them refreshes.
	eventually(t, 25*time.Second, "another replica committed", func() bool {
		v := rdb.Get(t.Context(), valueKey).Val()
		return v != first[0].AccessToken && v != ""
	})
	if err := holder.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// It has WeChat's answer and commits, which is refused; or its clock is faster than its socket, and it
	// gives up. Either way what its fetch may have superseded is cut, and the journal tells.
	eventually(t, 10*time.Second, "the holder's work is refused", func() bool {
		for _, entry := range rdb.XRange(t.Context(), namespace+":{"+appID+"}:journal", "-", "+").Val() {
			if r := entry.Values["result"]; r == "refused" || r == "failed" {
				return true
			}
		}
		return false
	})
	if got := holder.metric("wxtoken_refreshes_total", `result="committed"`); got > 1 { // the cold one, perhaps
		t.Error("the holder committed after its lease")
	}
	// What stood was cut, and is replaced by a token of which nobody doubts that it is the last.
	eventually(t, 15*time.Second, "the doubt is gone", func() bool {
		return rdb.HGet(t.Context(), valueKey+":meta", "doubt").Val() == "0"
	})
	eventually(t, 15*time.Second, "everybody has the token that stands", func() bool {
		v := rdb.Get(t.Context(), valueKey).Val()
		for _, p := range all {
			if a, err := p.token(); err != nil || a.AccessToken != v {
				return false
			}
		}
		return c.upstream.Status(appID, v) == wechattest.Current
	})
	readers.finish()
	if readers.missing+readers.dead != 0 {
		t.Errorf("direct readers met %d missing and %d dead values in %d looks", readers.missing, readers.dead, readers.looks)
	}
}

// I3: the holder dies between WeChat's answer and its commit. Only the cut tells the others.
func TestAHolderKilledRightAfterWeChatAnsweredLeavesNoDeadTokenBehind(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	c := newCluster(t, "redis://"+server.addr)
	c.lenient()
	all := c.add(4)
	first := everywhere(t, all, 1, (*process).token)
	rdb := server.client()
	readers := c.directReader(rdb)

	asked := c.holdReply(time.Minute)
	makeDue(t, rdb)
	holder := c.byName(<-asked)
	eventually(t, 5*time.Second, "WeChat has issued a token that nobody gets", func() bool { return c.upstream.Calls(appID).Issued == 2 })
	killed := time.Now()
	_ = holder.cmd.Process.Kill()
	<-holder.exited
	if left := rdb.PTTL(t.Context(), valueKey).Val(); left <= 0 || left > 4*time.Minute {
		t.Errorf("the key lives for %v more, want at most 4 minutes of the 5 that WeChat promises", left)
	}

	eventually(t, 30*time.Second, "everybody has a new token", func() bool {
		for _, p := range all {
			if p == holder {
				continue
			}
			if a, err := p.token(); err != nil || a.AccessToken == first[0].AccessToken || c.upstream.Status(appID, a.AccessToken) != wechattest.Current {
				return false
			}
		}
		return true
	})
	t.Logf("a live token everywhere %v after the kill", time.Since(killed).Round(100*time.Millisecond))
	c.wantFetches(3) // cold, the lost one, and its replacement
	readers.finish()
	if readers.missing+readers.dead != 0 {
		t.Errorf("direct readers met %d missing and %d dead values in %d looks", readers.missing, readers.dead, readers.looks)
	}
}

// I6: a warm replica does not notice that Redis is gone; when it is back, empty, one fetch heals it.
func TestRedisStoppedAndStartedCostsNoReadAndOneFetch(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	c := newCluster(t, "redis://"+server.addr)
	all := c.add(3)
	everywhere(t, all, 1, (*process).token)
	server.stop()
	c.wantAllWork(everywhere(t, all, 100, (*process).token))
	c.wantFetches(1)

	server.start()
	rdb := server.client()
	eventually(t, 30*time.Second, "the key is back", func() bool { return rdb.Exists(context.Background(), valueKey).Val() == 1 })
	c.wantFetches(2)
	c.wantAllWork(everywhere(t, all, 1, (*process).token))
}

// I8: a stopping holder gives its lease back, and exits with 0.
func TestAHolderAskedToStopReleasesItsLeaseAtOnce(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	c := newCluster(t, "redis://"+server.addr)
	all := c.add(2)
	everywhere(t, all, 1, (*process).token)
	rdb := server.client()

	asked := c.holdReply(7 * time.Second)
	makeDue(t, rdb)
	holder := c.byName(<-asked)
	eventually(t, 5*time.Second, "the lease is held", func() bool { return rdb.Exists(t.Context(), valueKey+":lock").Val() == 1 })
	value := rdb.Get(t.Context(), valueKey+":lock").Val()
	_ = holder.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, 2*time.Second, "the lease is released", func() bool { return rdb.Get(t.Context(), valueKey+":lock").Val() != value })
	_ = holder.cmd.Process.Signal(syscall.SIGTERM) // a second one is harmless
	<-holder.exited
	if code := holder.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	other := all[0]
	if other == holder {
		other = all[1]
	}
	eventually(t, 10*time.Second, "the other has a new token", func() bool {
		a, err := other.token()
		return err == nil && c.upstream.Status(appID, a.AccessToken) == wechattest.Current
	})
}
