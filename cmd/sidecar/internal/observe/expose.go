package observe

import (
	"github.com/prometheus/client_golang/prometheus"
)

// DefaultApps is the number of apps up to which each has series of its own.
const DefaultApps = 200

// AllApps is the label app of a series that is the sum, or the worst, of all apps.
const AllApps = "all"

// /metrics has at most 2 MiB. What is neither a counter nor a gauge of a credential takes less than
// reserved of it: histograms by kind, Redis, the process.
const (
	maxBytes = 2 << 20
	reserved = 192 << 10
)

// form says which series have an app of their own. Each is shorter than the one before.
type form int

const (
	perApp        form = iota // all, and those at 0 that let the first of a kind be an increase
	perAppTerse               // all; details only once they have counted something
	summedDetails             // all but the details, which are summed
	summed                    // none
)

// SetMaxApps sets the number of apps up to which each has series of its own. With more of them, and
// always with 0, all apps share series with app="all".
func (m *Metrics) SetMaxApps(n int) { m.maxApps.Store(int64(n)) }

// form returns the first form that fits into /metrics. The caller holds m.mu, for reading at least.
//
// Counters only grow, so a form of per-app series can give way to a shorter one while the program
// runs, and returns only if apps go. Only details change then: a change to summed depends on the
// names of apps and kinds, up to the digits of the numbers.
func (m *Metrics) form() form {
	if n := int(m.maxApps.Load()); n == 0 || len(m.tracked.apps) > n {
		return summed
	}
	main, details, nonzero := 0, 0, 0
	measure := func(s *series, o owner, n uint64) {
		size := s.bytesOf(n) + o.bytes()
		switch {
		case !s.detail && (n > 0 || s.begins):
			main += size
		case n > 0:
			details += size
			nonzero += size
		case s.begins:
			details += size
		}
	}
	for c := range m.all {
		main += gaugeBytes + gaugeLines*c.owner.bytes()
		for slot := range credentialSeries {
			measure(&credentialSeries[slot], c.owner, c.load(slot))
		}
	}
	for _, a := range m.tracked.apps {
		for slot := range appSeries {
			measure(&appSeries[slot], a.owner, a.counts[slot].Load())
		}
	}
	switch room := maxBytes - reserved - main; {
	case details <= room:
		return perApp
	case nonzero <= room:
		return perAppTerse
	case room >= 0:
		return summedDetails
	}
	return summed
}

// summed reports whether gauges are those of all apps together.
func (m *Metrics) summed() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.form() == summed
}

// all ranges over the credentials.
func (m *Metrics) all(yield func(*Credential) bool) {
	m.credentials.Range(func(_, c any) bool { return yield(c.(*Credential)) })
}

// countersOf is the collector of what m counts by app.
type countersOf struct{ m *Metrics }

func (c countersOf) Describe(ch chan<- *prometheus.Desc) {
	var last *prometheus.Desc
	for _, table := range [][]series{credentialSeries, appSeries} {
		for _, s := range table {
			if s.desc != last {
				ch <- s.desc
			}
			last = s.desc
		}
	}
}

// Collect takes what it needs under the lock, and sends without it.
func (c countersOf) Collect(ch chan<- prometheus.Metric) {
	m := c.m
	m.mu.RLock()
	form := m.form()
	var credentials []*Credential
	for one := range m.all {
		credentials = append(credentials, one)
	}
	apps := make([]*app, 0, len(m.tracked.apps))
	for _, one := range m.tracked.apps {
		apps = append(apps, one)
	}
	byKind, byApp := m.sums(form)
	m.mu.RUnlock()

	send := func(s *series, o owner, n uint64, begins bool) {
		if n > 0 || begins {
			ch <- &counted{s.desc, o.labels(s.before, s.after), float64(n)}
		}
	}
	own := func(s *series) bool { return form < summedDetails || form == summedDetails && !s.detail }
	for slot := range credentialSeries {
		s := &credentialSeries[slot]
		if own(s) {
			for _, one := range credentials {
				send(s, one.owner, one.load(slot), s.begins && !(s.detail && form == perAppTerse))
			}
			continue
		}
		for kind, sum := range byKind {
			send(s, newOwner(AllApps, kind), sum[slot], s.begins)
		}
	}
	for slot := range appSeries {
		s := &appSeries[slot]
		send(s, m.tracked.noApp.owner, m.tracked.noApp.counts[slot].Load(), false)
		if own(s) {
			for _, one := range apps {
				send(s, one.owner, one.counts[slot].Load(), false)
			}
			continue
		}
		send(s, newOwner(AllApps, ""), byApp[slot], false)
	}
}

// sums returns the sums of all credentials by kind and of all apps that a form needs, with those
// that are gone. The caller holds m.mu, for reading at least.
func (m *Metrics) sums(f form) (byKind map[string]*[slots]uint64, byApp [appSlots]uint64) {
	if f < summedDetails {
		return nil, byApp
	}
	byKind = map[string]*[slots]uint64{}
	of := func(kind string) *[slots]uint64 {
		if byKind[kind] == nil {
			byKind[kind] = new([slots]uint64)
		}
		return byKind[kind]
	}
	for kind, gone := range m.tracked.gone {
		*of(kind) = *gone
	}
	for c := range m.all {
		sum := of(c.owner.kind.GetValue())
		for slot := range sum {
			sum[slot] += c.load(slot)
		}
	}
	byApp = m.tracked.goneApps
	for _, a := range m.tracked.apps {
		for slot := range byApp {
			byApp[slot] += a.counts[slot].Load()
		}
	}
	return byKind, byApp
}
