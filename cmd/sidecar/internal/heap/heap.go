// Package heap sets how much garbage the sidecar holds before it is collected. At rest, and with
// some thousand calls a second, memory is what counts. With so many that collections follow each
// other closely, what these take from the calls counts more.
package heap

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// least is the percentage, as of GOGC, at rest and of a large heap.
	least = 50
	// most is how much garbage there may be where that is more, in bytes. The container's 64 MiB
	// have room for it beside the connections.
	most = 16 << 20
	// smallest is the heap that Go lets grow at 100 %, however little of it is in use.
	smallest = 4 << 20
	// busy is how many collections a second are too many.
	busy = 4
	// glance is how often they are counted. Calls come in bursts: until the next glance, a burst
	// pays for too many collections.
	glance = 100 * time.Millisecond
	// sudden is how many collections between two glances are a burst.
	sudden = 2
)

// Pace sets the percentage, until ctx ends: at once when a burst begins, else each second. The
// environment variable GOGC takes its place.
func Pace(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(glance)
	defer tick.Stop()
	percent := least
	debug.SetGCPercent(percent)
	atSecond, _ := collected()
	atGlance, since := atSecond, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, live := collected()
		p := percent
		switch passed := time.Since(since); {
		case now-atGlance >= sudden:
			p = limit(live)
		case passed >= time.Second:
			p = next(percent, float64(now-atSecond)/passed.Seconds(), live)
			atSecond, since = now, time.Now()
		}
		atGlance = now
		if p != percent {
			percent = p
			debug.SetGCPercent(percent)
		}
	}
}

// next returns the percentage after a time with so many collections a second, of which the last
// one found so many bytes in use. It grows in one step and shrinks in some: after a burst there is
// often another.
func next(percent int, rate float64, live int) int {
	switch {
	case rate > busy:
		percent = int(float64(percent) * rate / busy)
	case rate < busy/2:
		percent -= percent / 4
	}
	return min(max(least, percent), limit(live))
}

// limit is the highest percentage of a heap of which so many bytes are in use.
func limit(live int) int { return max(least, 100*most/max(live, smallest)) }

// collected returns how many collections there were, and how many bytes in use the last one found.
func collected() (collections, live int) {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	return int(samples[0].Value.Uint64()), int(samples[1].Value.Uint64())
}
