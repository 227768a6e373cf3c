package integration

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// I1 and I4 of model/README.md with real processes: the numbers that the peers of this program are
// known by.
func TestSixteenProcessesFetchOnceColdAndOnceMoreInAStorm(t *testing.T) {
	server := rig.StartRedis(t)
	for name, store := range map[string]rig.Store{"real Redis": server, "miniredis": startMiniredis(t)} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, store)
			c.Upstream.Tune(func(k *wechattest.Knobs) { k.Latency = 100 * time.Millisecond })
			all := c.Add(16)

			first := c.everywhere(all, 16, (*rig.Sidecar).Token)
			c.wantFetches(1)
			c.wantAllWork(first)

			c.Upstream.KillTokens(appID)
			old := first[0].AccessToken
			c.wantAllWork(c.everywhere(all, 4, func(p *rig.Sidecar) (rig.Answer, error) { return p.Report(old) }))
			c.wantFetches(2)

			// Late reports of the old one cost nothing.
			c.wantAllWork(c.everywhere(all, 4, func(p *rig.Sidecar) (rig.Answer, error) { return p.Report(old) }))
			c.wantFetches(2)
			c.want("committed refreshes by the metrics", int(c.Metric("wxtoken_refreshes_total", `result="committed"`)), 2)
		})
	}
}

func startMiniredis(t *testing.T) rig.Store {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return rig.At(t, "redis://"+m.Addr())
}

// I2: a holder is stopped, its lease ends or is lost, another one takes over, and the holder wakes.
func TestAStoppedHolderThatWakesIsRefusedAndTheClustersTokenIsLive(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*cluster){
		// It wakes after its own deadline, too: it commits what it has, or gives up.
		"lease ended": func(*cluster) {},
		// It wakes with time left, and commits. Only the script's look at the lease stops it.
		"lease lost": func(c *cluster) {
			c.Store.Client().Del(t.Context(), valueKey+":lock")
			c.MakeDue()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStoppedHolder(t, end)
		})
	}
}

func testStoppedHolder(t *testing.T, end func(*cluster)) {
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	c.Upstream.Lenient()
	all := c.Add(4)
	c.everywhere(all, 1, (*rig.Sidecar).Token)
	rdb := server.Client()
	readers := c.directReader(rdb)

	holder, answer := c.holder()
	holder.Freeze()
	old := rdb.Get(t.Context(), valueKey).Val()
	answer.Release()
	end(c)
	// The others see the doubt when the lease is over, and one of them refreshes.
	eventually(t, "another replica committed", func() bool {
		v := rdb.Get(t.Context(), valueKey).Val()
		return v != old && v != ""
	})
	holder.Thaw()
	// What its fetch may have superseded is cut, and the journal tells.
	eventually(t, "the holder's work is refused", func() bool {
		for _, entry := range rdb.XRange(t.Context(), namespace+":{"+appID+"}:journal", "-", "+").Val() {
			if r := entry.Values["result"]; r == "refused" || r == "failed" {
				return true
			}
		}
		return readers.saw(answer.Token)
	})
	// The value in doubt was cut, and is replaced by one that is surely the last.
	eventually(t, "the doubt is gone", c.undoubted)
	eventually(t, "every sidecar has the token in Redis", func() bool {
		v := rdb.Get(t.Context(), valueKey).Val()
		for _, p := range all {
			if a, err := p.Token(); err != nil || a.AccessToken != v {
				return false
			}
		}
		return c.Upstream.Status(appID, v) == wechattest.Current
	})
	readers.finish()
	if answer.Token == "" || readers.saw(answer.Token) {
		t.Error("the holder committed after its lease")
	}
	if readers.missing+readers.dead != 0 {
		t.Errorf("direct readers met %d missing and %d dead values in %d looks", readers.missing, readers.dead, readers.looks)
	}
}

// I3: the holder dies between WeChat's answer and its commit. Only the cut tells the others.
func TestAHolderKilledRightAfterWeChatAnsweredLeavesNoDeadTokenBehind(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	c.Upstream.Lenient()
	all := c.Add(4)
	c.everywhere(all, 1, (*rig.Sidecar).Token)
	rdb := server.Client()
	readers := c.directReader(rdb)

	holder, _ := c.holder()
	c.wantFetches(2) // cold, and the one that is lost
	killed := time.Now()
	holder.Kill()
	old, fetches := rdb.Get(t.Context(), valueKey).Val(), c.Upstream.Calls(appID).Fetches()
	if left := rdb.PTTL(t.Context(), valueKey).Val(); left <= 0 || left > 4*time.Minute {
		t.Errorf("the key lives for %v more, want at most 4 minutes of the 5 that WeChat promises", left)
	}

	eventually(t, "every sidecar has a new token", func() bool {
		for _, p := range all {
			if p == holder {
				continue
			}
			if a, err := p.Token(); err != nil || a.AccessToken == old || c.Upstream.Status(appID, a.AccessToken) != wechattest.Current {
				return false
			}
		}
		return true
	})
	t.Logf("a live token everywhere %v after the kill", time.Since(killed).Round(100*time.Millisecond))
	c.wantFetches(fetches + 1)
	readers.finish()
	if readers.missing+readers.dead != 0 {
		t.Errorf("direct readers met %d missing and %d dead values in %d looks", readers.missing, readers.dead, readers.looks)
	}
}

// I6: a warm replica does not notice that Redis is gone; when it is back, empty, one fetch heals
// it.
func TestRedisStoppedAndStartedCostsNoReadAndOneFetch(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	all := c.Add(3)
	c.everywhere(all, 1, (*rig.Sidecar).Token)
	server.Kill()
	c.wantAllWork(c.everywhere(all, 100, (*rig.Sidecar).Token))
	c.wantFetches(1)

	server.Start()
	rdb := server.Client()
	eventually(t, "the key is back", func() bool { return rdb.Exists(context.Background(), valueKey).Val() == 1 })
	c.wantFetches(2)
	c.wantAllWork(c.everywhere(all, 1, (*rig.Sidecar).Token))
}

// I8: a stopping holder gives its lease back, and exits with 0.
func TestAHolderAskedToStopReleasesItsLeaseAtOnce(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	all := c.Add(2)
	c.everywhere(all, 1, (*rig.Sidecar).Token)
	rdb := server.Client()

	holder, _ := c.holder()
	value := rdb.Get(t.Context(), valueKey+":lock").Val()
	if !rdb.PExpire(t.Context(), valueKey+":lock", time.Hour).Val() { // so that it does not end by itself
		t.Fatal("no lease is held")
	}
	holder.Terminate()
	eventually(t, "the lease is released", func() bool { return rdb.Get(t.Context(), valueKey+":lock").Val() != value })
	holder.Terminate() // a second one is harmless
	<-holder.Exited()
	if code := holder.ExitCode(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	other := all[0]
	if other == holder {
		other = all[1]
	}
	eventually(t, "the other has a new token", func() bool {
		a, err := other.Token()
		return err == nil && c.Upstream.Status(appID, a.AccessToken) == wechattest.Current
	})
}
