package platform

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// P6: Redis was emptied and every replica is cold, and callers want the tokens of all
// accounts at once. WeChat is asked once for each, and never more often than it may be in a second;
// every caller has its answer when its turn has come, and those of warm accounts wait for none of it.
func TestAStampedeOfFirstReadsTakesTurns(t *testing.T) {
	t.Parallel()
	n, replicas := atFullSize(5000, 120), atFullSize(50, 3)
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, replicas, OpenPlatform)
		x.start()
		accounts := x.seed(n + 1)
		warm := accounts[n]
		x.mustGet(0, warm)
		times := x.clockFetches()
		began := time.Now()
		var readers sync.WaitGroup
		for i, a := range accounts[:n] {
			readers.Go(func() { x.patiently(i%replicas, a) })
			if i%4 == 0 {
				readers.Go(func() { x.patiently((i+1)%replicas, a) })
			}
		}
		done := make(chan struct{})
		go func() { readers.Wait(); close(done) }()
		for waits := true; waits; {
			select {
			case <-done:
				waits = false
			case <-time.After(10 * time.Millisecond):
				asked := time.Now()
				token, err := x.get(0, warm)
				if err != nil || token.Stale || time.Since(asked) > time.Millisecond {
					t.Fatalf("a warm account: %+v, %v after %v", token, err, time.Since(asked))
				}
			}
		}
		last, most := time.Since(began), mostInASecond(times())
		t.Logf("%d accounts on %d replicas: the last answer after %v, at most %d fetches in a second", n, replicas, last, most)
		if got := len(times()); got != n {
			t.Errorf("%d fetches, want %d", got, n)
		}
		if most > 60 {
			t.Errorf("%d fetches in one second", most)
		}
		if limit := time.Duration(n)*fetchGap + 10*time.Second; last > limit {
			t.Errorf("the last answer came after %v, want at most %v", last, limit)
		}
	})
}

// mostInASecond returns how many of some times fall into one second, wherever it begins.
func mostInASecond(times []time.Time) (most int) {
	slices.SortFunc(times, time.Time.Compare)
	first := 0
	for i, at := range times {
		for at.Sub(times[first]) >= time.Second {
			first++
		}
		most = max(most, i+1-first)
	}
	return most
}

// A quota that is spent for one account concerns that one. When it is spent for several, it is
// taken for the platform's, and no account is asked for until the pause is over; then all have their
// turn.
func TestAQuotaThatIsSpentForSeveralAccountsPausesAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 3, OpenPlatform)
		x.start()
		accounts := x.seed(20)
		k := x.sim.PlatformKnobs(id)
		k.FlapCode, k.FlapEvery = 45009, 1
		x.sim.SetPlatformKnobs(id, k)
		times := x.clockFetches()
		for i, a := range accounts[:3] { // in two minutes
			if _, err := x.get(i, a); err == nil {
				t.Fatal("a token while the quota is spent")
			}
			time.Sleep(quotaWindow * 2 / 3)
		}
		k.FlapCode, k.FlapEvery = 0, 0
		x.sim.SetPlatformKnobs(id, k)
		x.mustGet(0, accounts[3])
		k.FlapCode, k.FlapEvery = 45009, 1
		x.sim.SetPlatformKnobs(id, k)
		for i, a := range accounts[4:7] {
			_, _ = x.get(i, a)
		}
		before, paused := len(times()), time.Now()
		var readers sync.WaitGroup
		for i, a := range accounts[7:] {
			readers.Go(func() {
				if _, err := x.get(i%3, a); !errors.Is(err, tokencache.ErrLimited) {
					t.Errorf("during the pause: %v", err)
				}
				x.patiently(i%3, a)
			})
		}
		time.Sleep(quotaPause - time.Second)
		if got := len(times()); got != before {
			t.Errorf("%d fetches during the pause", got-before)
		}
		k.FlapCode, k.FlapEvery = 0, 0
		x.sim.SetPlatformKnobs(id, k)
		readers.Wait()
		if took := time.Since(paused); took > quotaPause+15*time.Second {
			t.Errorf("the last one had its token after %v", took)
		}
		x.mustGet(0, accounts[19])
	})
}

// Without an answer of Redis about turns, WeChat is not asked, and a replica with a token keeps it.
func TestNoTurnWithoutRedis(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		accounts := x.seed(2)
		first := x.mustGet(0, accounts[0])
		x.cluster.Redis.Del(x.replicas[0].turns())
		if err := x.cluster.Redis.Set(x.replicas[0].turns(), "no hash"); err != nil { // so that the script fails, and nothing else
			t.Fatal(err)
		}
		before := x.calls()
		_, err := x.get(0, accounts[1])
		f, ok := errors.AsType[*tokencache.FetchError](err)
		if !ok || f.Class != tokencache.ClassTransient || f.Unclear {
			t.Errorf("got %v", err)
		}
		if n := x.calls() - before; n != 0 {
			t.Errorf("%d calls", n)
		}
		if again := x.mustGet(0, accounts[0]); !again.Value.Equal(first.Value) {
			t.Error("a token that lives was replaced")
		}
		x.cluster.Redis.Del(x.replicas[0].turns())
		x.patiently(0, accounts[1])
	})
}

// Redis' clock is stepped back by an hour: what was promised before holds up no account.
func TestTurnsAfterAStepOfTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.cluster.Redis.HSet(x.replicas[0].turns(), "@lane", "9999999999999", "@tail", "9999999999999", "@pause", "9999999999999")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := x.replicas[0].turn(ctx, shop); err != nil {
			t.Error(err)
		}
	})
}
