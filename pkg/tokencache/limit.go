package tokencache

import "time"

// Limit is an allowance of calls for the whole cluster, kept in Redis. Any 24 hours see at most
// PerDay of them. A tenth of PerDay may follow each other at once; at least 20, but then no more
// than half of PerDay; and at least 2. The zero Limit takes the default of its field; PerDay < 0
// allows nothing.
type Limit struct{ PerDay int }

func (l Limit) or(def int) Limit {
	if l.PerDay == 0 {
		l.PerDay = def
	}
	return l
}

func (l Limit) burst() int64 {
	if l.PerDay < 0 {
		return 0
	}
	return int64(min(l.PerDay, max(2, min(l.PerDay/2, max(20, l.PerDay/10)))))
}

// every is the time after which one more is allowed: burst + day/every is at most PerDay. It is in
// whole ms, as Redis counts, and never 0.
func (l Limit) every() time.Duration {
	const day = 24 * time.Hour
	if rest := int64(l.PerDay) - l.burst(); rest > 0 {
		return duration(max(1, (day.Milliseconds()+rest-1)/rest))
	}
	return day
}

// Allowance is what is left of a [Limit] in the cluster.
type Allowance struct {
	// Left is how many calls may follow each other at once now. One more is allowed every 24 hours
	// by the limit's PerDay less Burst.
	Left int
	// Burst is the most that Left can be; 0: none is ever allowed.
	Burst int
}

// spent is how far ahead of Redis' clock each allowance's timestamp lies: the burst that is used
// up.
type spent struct{ fetches, reports, forced time.Duration }

// allowance returns what is left of l, age after Redis said that ahead of it was spent.
func (l Limit) allowance(ahead, age time.Duration) Allowance {
	burst, every := l.burst(), l.every()
	used := (max(0, ahead-age) + every - 1) / every
	return Allowance{Left: int(max(0, burst-int64(used))), Burst: int(burst)}
}
