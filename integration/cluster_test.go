package integration

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// I1 and I4 with real processes: the numbers that the peers of this program are known by.
func TestSixteenProcessesFetchOnceColdAndOnceMoreInAStorm(t *testing.T) {
	server := rig.StartRedis(t)
	for name, store := range map[string]rig.Store{"real Redis": server, "miniredis": startMiniredis(t)} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, store)
			k := c.Upstream.Knobs()
			k.Latency = 100 * time.Millisecond
			c.Upstream.SetKnobs(k)
			all := c.Add(16)

			first := rig.Everywhere(t, all, 16, (*rig.Sidecar).Token)
			c.wantFetches(1)
			c.wantAllWork(first)

			c.Upstream.KillTokens(appID)
			old := first[0].AccessToken
			c.wantAllWork(rig.Everywhere(t, all, 4, func(p *rig.Sidecar) (rig.Answer, error) { return p.Report(old) }))
			c.wantFetches(2)

			// Late reports of the old one cost nothing.
			c.wantAllWork(rig.Everywhere(t, all, 4, func(p *rig.Sidecar) (rig.Answer, error) { return p.Report(old) }))
			c.wantFetches(2)
			if got := c.Metric("wxtoken_refreshes_total", `result="committed"`); got != 2 {
				t.Errorf("the metrics tell of %v committed refreshes, want 2", got)
			}
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

// holdReply lets the next token fetch be answered late, after WeChat has issued the token, and
// returns who asked.
func (c *cluster) holdReply(d time.Duration) (asked <-chan string) {
	c.Upstream.AddFault(wechattest.Fault{Path: "/cgi-bin/token", Count: 1, After: true, Delay: d})
	return c.Upstream.NextFetch()
}

// I2: a holder that is stopped past its lease, while another one takes over, wakes up and commits.
func TestAStoppedHolderThatWakesIsRefusedAndTheClustersTokenIsLive(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	c.Upstream.Lenient()
	all := c.Add(4)
	first := rig.Everywhere(t, all, 1, (*rig.Sidecar).Token)
	rdb := server.Client()
	readers := c.directReader(rdb)

	asked := c.holdReply(2 * time.Second)
	c.MakeDue()
	holder := c.ByName(<-asked)
	eventually(t, 5*time.Second, "WeChat has issued the holder's token", func() bool { return c.Upstream.Calls(appID).Issued == 2 })
	holder.Freeze()
	// The others see the doubt when the lease is over, and one of them refreshes.
	eventually(t, 25*time.Second, "another replica committed", func() bool {
		v := rdb.Get(t.Context(), valueKey).Val()
		return v != first[0].AccessToken && v != ""
	})
	holder.Thaw()
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
	if got := holder.Metric("wxtoken_refreshes_total", `result="committed"`); got > 1 { // the cold one, perhaps
		t.Error("the holder committed after its lease")
	}
	// What stood was cut, and is replaced by a token of which nobody doubts that it is the last.
	eventually(t, 15*time.Second, "the doubt is gone", func() bool {
		return rdb.HGet(t.Context(), valueKey+":meta", "doubt").Val() == "0"
	})
	eventually(t, 15*time.Second, "everybody has the token that stands", func() bool {
		v := rdb.Get(t.Context(), valueKey).Val()
		for _, p := range all {
			if a, err := p.Token(); err != nil || a.AccessToken != v {
				return false
			}
		}
		return c.Upstream.Status(appID, v) == wechattest.Current
	})
	readers.finish()
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
	first := rig.Everywhere(t, all, 1, (*rig.Sidecar).Token)
	rdb := server.Client()
	readers := c.directReader(rdb)

	asked := c.holdReply(time.Minute)
	c.MakeDue()
	holder := c.ByName(<-asked)
	eventually(t, 5*time.Second, "WeChat has issued a token that nobody gets", func() bool { return c.Upstream.Calls(appID).Issued == 2 })
	killed := time.Now()
	holder.Kill()
	if left := rdb.PTTL(t.Context(), valueKey).Val(); left <= 0 || left > 4*time.Minute {
		t.Errorf("the key lives for %v more, want at most 4 minutes of the 5 that WeChat promises", left)
	}

	eventually(t, 30*time.Second, "everybody has a new token", func() bool {
		for _, p := range all {
			if p == holder {
				continue
			}
			if a, err := p.Token(); err != nil || a.AccessToken == first[0].AccessToken || c.Upstream.Status(appID, a.AccessToken) != wechattest.Current {
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
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	all := c.Add(3)
	rig.Everywhere(t, all, 1, (*rig.Sidecar).Token)
	server.Kill()
	c.wantAllWork(rig.Everywhere(t, all, 100, (*rig.Sidecar).Token))
	c.wantFetches(1)

	server.Start()
	rdb := server.Client()
	eventually(t, 30*time.Second, "the key is back", func() bool { return rdb.Exists(context.Background(), valueKey).Val() == 1 })
	c.wantFetches(2)
	c.wantAllWork(rig.Everywhere(t, all, 1, (*rig.Sidecar).Token))
}

// I8: a stopping holder gives its lease back, and exits with 0.
func TestAHolderAskedToStopReleasesItsLeaseAtOnce(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	all := c.Add(2)
	rig.Everywhere(t, all, 1, (*rig.Sidecar).Token)
	rdb := server.Client()

	asked := c.holdReply(7 * time.Second)
	c.MakeDue()
	holder := c.ByName(<-asked)
	eventually(t, 5*time.Second, "the lease is held", func() bool { return rdb.Exists(t.Context(), valueKey+":lock").Val() == 1 })
	value := rdb.Get(t.Context(), valueKey+":lock").Val()
	holder.Terminate()
	eventually(t, 2*time.Second, "the lease is released", func() bool { return rdb.Get(t.Context(), valueKey+":lock").Val() != value })
	holder.Terminate() // a second one is harmless
	<-holder.Exited()
	if code := holder.ExitCode(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
	other := all[0]
	if other == holder {
		other = all[1]
	}
	eventually(t, 10*time.Second, "the other has a new token", func() bool {
		a, err := other.Token()
		return err == nil && c.Upstream.Status(appID, a.AccessToken) == wechattest.Current
	})
}
