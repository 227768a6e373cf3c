package tokencache

import "time"

// instant is a moment on this host by both of its clocks. The monotonic one stops while the
// host is suspended, the wall clock can be stepped; each is wrong alone.
type instant struct {
	mono time.Time // with a monotonic reading
	wall time.Time // the same without
}

func now() instant { return at(time.Now()) }

func at(t time.Time) instant { return instant{mono: t, wall: t.Round(0)} }

// drift returns how much further the wall clock went than the monotonic one from earlier to i: > 0
// after a suspend or a step forward, < 0 after a step back.
func (i instant) drift(earlier instant) time.Duration {
	return i.wall.Sub(earlier.wall) - i.mono.Sub(earlier.mono)
}

// since returns how much time has passed from earlier to i: the larger of what the two clocks say.
// A wall clock stepped forward makes values look older than they are, which costs a look at Redis;
// believing the smaller would hand out dead ones.
func (i instant) since(earlier instant) time.Duration {
	return max(i.mono.Sub(earlier.mono), i.wall.Sub(earlier.wall))
}
