package tokencache

import "time"

// instant is a moment on this host by both of its clocks. The monotonic one stops while the
// host is suspended, the wall clock can be stepped; each is wrong alone.
// The zero value is none.
type instant struct {
	mono time.Duration // since the program began
	wall time.Duration // since 1970
}

var began = time.Now()

func now() instant { return at(time.Now()) }

func at(t time.Time) instant { return instant{t.Sub(began), time.Duration(t.UnixNano())} }

// plus returns the time by the wall clock at d after i.
func (i instant) plus(d time.Duration) time.Time { return time.Unix(0, int64(i.wall+d)) }

// drift returns how much further the wall clock went than the monotonic one from earlier to i: > 0
// after a suspend or a step forward, < 0 after a step back.
func (i instant) drift(earlier instant) time.Duration {
	return i.wall - earlier.wall - (i.mono - earlier.mono)
}

// since returns how much time has passed from earlier to i: the larger of what the two clocks say.
// A wall clock stepped forward makes values look older than they are, which costs a look at Redis;
// believing the smaller would hand out dead ones.
func (i instant) since(earlier instant) time.Duration {
	return max(i.mono-earlier.mono, i.wall-earlier.wall)
}
