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
	// busy is how many collections in a second are too many.
	busy = 4
)

// Pace sets the percentage each second, until ctx ends. The environment variable GOGC takes its
// place.
func Pace(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	percent := least
	debug.SetGCPercent(percent)
	for before, _ := collected(); ; {
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		}
		now, live := collected()
		if p := next(percent, now-before, live); p != percent {
			percent = p
			debug.SetGCPercent(percent)
		}
		before = now
	}
}

// next returns the percentage after a second with so many collections, of which the last one found
// so many bytes in use. It grows in one step and shrinks in some seconds: calls often come in
// bursts.
func next(percent, collections, live int) int {
	switch {
	case collections > busy:
		percent = percent * collections / busy
	case collections == 0:
		percent -= percent / 4
	}
	return max(least, min(percent, 100*most/max(live, smallest)))
}

// collected returns how many collections there were, and how many bytes in use the last one found.
func collected() (collections, live int) {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	return int(samples[0].Value.Uint64()), int(samples[1].Value.Uint64())
}
