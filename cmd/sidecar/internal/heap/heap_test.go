package heap

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"
)

func TestThePercentageFollowsTheCollections(t *testing.T) {
	const few, many = 1 << 20, 50 << 20 // bytes in use
	for name, c := range map[string]struct {
		percent    int
		rate       float64
		live, want int
	}{
		"at rest":                         {least, 0, few, least},
		"some calls":                      {least, busy, few, least},
		"many calls":                      {least, 2 * busy, few, 2 * least},
		"as many as there can be":         {least, 100, few, 400},
		"fewer again":                     {400, busy / 2, few, 400},
		"few":                             {400, 1, few, 300},
		"none any more":                   {400, 0, few, 300},
		"a large heap, and many calls":    {least, 100, many, least},
		"the heap has become a large one": {400, 2, many, least},
		"a heap between":                  {least, 100, 10 << 20, 160},
	} {
		if got := next(c.percent, c.rate, c.live); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// The collections are real ones, only the seconds are not. More of them than are asked for change
// nothing here.
func TestPaceSetsThePercentageOfTheProcess(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go Pace(ctx)
		synctest.Wait()
		if got := percentage(); got != least {
			t.Errorf("at first: %d", got)
		}
		for range sudden - 1 {
			runtime.GC()
		}
		time.Sleep(glance)
		synctest.Wait()
		if got := percentage(); got != least {
			t.Errorf("after %d: %d", sudden-1, got)
		}
		for range sudden {
			runtime.GC()
		}
		time.Sleep(glance)
		synctest.Wait()
		const all = 100 * most / smallest
		if got := percentage(); got != all {
			t.Errorf("after %d collections in a moment: %d, want %d", sudden, got, all)
		}
		time.Sleep(time.Second - 3*glance)
		synctest.Wait()
		if got := percentage(); got != all {
			t.Errorf("less than a second later: %d, want %d", got, all)
		}
		for range 60 { // seconds
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if got := percentage(); got != least {
			t.Errorf("after a minute without: %d", got)
		}
		cancel()
	})
}

func TestGOGCIsTheUsers(t *testing.T) {
	t.Setenv("GOGC", "200")
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	Pace(t.Context()) // returns at once
	if got := percentage(); got != 200 {
		t.Errorf("%d", got)
	}
}

func percentage() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
