package tokencache

import "time"

// Allowance is a [Limit] as it stands in the cluster.
type Allowance struct {
	// Left is how many calls may follow each other at once now. One more is allowed every 24 hours by the
	// limit's PerDay less Burst.
	Left int
	// Burst is the most that Left can be; 0: none is ever allowed.
	Burst int
}

// spent is how far ahead of Redis' clock each allowance's timestamp lies: the burst that is used up.
type spent struct{ fetches, reports, forced time.Duration }

// allowance returns what is left of l, age after Redis said that ahead of it was spent.
func (l Limit) allowance(ahead, age time.Duration) Allowance {
	burst, every := l.burst(), l.every()
	used := (max(0, ahead-age) + every - 1) / every
	return Allowance{Left: int(max(0, burst-int64(used))), Burst: int(burst)}
}
