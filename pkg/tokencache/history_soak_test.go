package tokencache_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	lua "github.com/yuin/gopher-lua"
	"pgregory.net/rapid"
)

// Some thousands of histories fit into a minute. The environment may ask for WXTOKEN_HISTORIES of
// them, or for as many as WXTOKEN_SOAK (a duration) has time for; -rapid.seed plays one again.
const fewHistories = 24

// soak is many random histories, on all cores.
type soak struct {
	limit int64     // 0: none
	until time.Time // zero: no end
	seed  uint64    // of the first

	begun, ended, steps atomic.Int64
	failed              atomic.Uint64 // the seed of one that did
	report              string        // of that one; read it when all have ended
}

// Whatever happens, in whatever order, to however many replicas: the invariants hold at every
// moment, and in the end all agree.
func TestRandomHistoriesKeepTheInvariants(t *testing.T) {
	t.Parallel()
	if f := flag.Lookup("rapid.seed"); f.Value.String() != "0" {
		shrink(t, f.Value.String())
		return
	}
	s := &soak{limit: fewHistories, seed: uint64(time.Now().UnixNano())}
	if seed, err := strconv.ParseUint(os.Getenv("WXTOKEN_SEED"), 10, 64); err == nil {
		s.seed = seed
	}
	if n, err := strconv.ParseInt(os.Getenv("WXTOKEN_HISTORIES"), 10, 64); err == nil {
		s.limit = n
	}
	if d, err := time.ParseDuration(os.Getenv("WXTOKEN_SOAK")); err == nil {
		s.limit, s.until = 0, time.Now().Add(d)
	}
	start := time.Now()
	t.Run("soak", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				s.work(t)
			})
		}
	})
	took := time.Since(start)
	t.Logf("%d histories of %d steps in %v: %.0f a second", s.ended.Load(), s.steps.Load(), took.Round(time.Second), float64(s.ended.Load())/took.Seconds())
	if seed := s.failed.Load(); seed != 0 {
		t.Log(s.report)
		shrink(t, strconv.FormatUint(seed, 10))
		t.Error("it did not fail again: the report above is all there is")
	}
}

func (s *soak) work(t *testing.T) {
	g := histories()
	for s.failed.Load() == 0 && (s.until.IsZero() || time.Now().Before(s.until)) {
		n := s.begun.Add(1)
		if s.limit > 0 && n > s.limit {
			return
		}
		seed := s.seed + uint64(n)
		h := g.Example(int(seed))
		wrong, detail := watched(t, seed, h)
		s.ended.Add(1)
		s.steps.Add(int64(len(h.Steps)))
		if wrong != "" && s.failed.CompareAndSwap(0, seed) {
			s.report = fmt.Sprintf("%s: %s\n%v\nTo play it again: %s", wrong, detail, h, again(seed))
		}
	}
}

func again(seed any) string {
	return fmt.Sprintf("go test ./pkg/tokencache/ -run '^TestRandomHistoriesKeepTheInvariants$' -rapid.seed=%v", seed)
}

// watched is play with an end in real time, for a history that goes round in circles.
func watched(t *testing.T, seed any, h history) (wrong, detail string) {
	dog := time.AfterFunc(10*time.Minute, func() { panic(fmt.Sprintf("a history does not end: %v\nTo play it again: %s", h, again(seed))) })
	defer dog.Stop()
	return play(t, h)
}

// shrink plays the history with this seed again, and looks for a smaller one that fails. What
// replicas draw and which goroutine comes first differs from time to time, so each gets several
// chances to fail.
func shrink(t *testing.T, seed string) {
	for name, value := range map[string]string{"rapid.seed": seed, "rapid.checks": "1", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		h := histories().Draw(rt, "history")
		for range 6 {
			if wrong, detail := watched(t, seed, h); wrong != "" {
				rt.Logf("%v\n%s\nTo play it again: %s", h, detail, again(seed))
				rt.Fatal(wrong) // the same words each time, so that it is the same failure
			}
		}
	})
}

// Dials that fail are what the tests here are about. And each script runs in a Lua of its own,
// whose stack is most of what the tests allocate; the scripts need no more than this.
func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	lua.RegistrySize, lua.CallStackSize = 1<<9, 1<<5
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // what a cluster in a bubble allocates dies at once
	}
	os.Exit(m.Run())
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
