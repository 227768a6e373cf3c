package observe

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Collector returns the metrics that are a look at the present of each credential. Where m shows
// the sums of its counters, they are the worst of all apps in one series. status is
// [tokencache.Cache.Status]; it is asked at each scrape.
func (m *Metrics) Collector(status func() []tokencache.Status) prometheus.Collector {
	desc := func(name, help, all string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("wxtoken_"+name, help+` app="all" is `+all, append([]string{"app", "kind"}, more...), nil)
	}
	const least, greatest = "the least of all apps.", "the greatest of all apps."
	return &collector{
		status: status, summed: m.summed, series: m.series,
		version:   desc("token_version", "Version of the value in memory; it only grows.", "never there."),
		expiry:    desc("token_expiry_timestamp_seconds", "When the value in memory ends. Absent without one.", least),
		committed: desc("token_last_refresh_timestamp_seconds", "When the value in memory was committed, by whichever replica. Absent without one.", least),
		fresh:     desc("token_fresh", "1 if the next read gets a good value from memory.", least),
		doubt:     desc("token_in_doubt", "1 if upstream may have superseded the value by one that no replica has.", greatest),
		rejected:  desc("token_rejected", "1 if upstream was found to reject the value, and there is no other yet.", greatest),
		backoff:   desc("token_backoff_seconds", "How long upstream must not be asked.", greatest),
		why:       desc("token_backoff_info", "1 while upstream must not be asked, with the reason as labels.", "1 for each reason that some app has.", "class", "errcode"),
		left:      desc("allowance_left", "Calls that the cluster's allowance lets follow each other at once now.", "of the app with the least share left.", "allowance"),
		burst:     desc("allowance_burst", "The most that is ever left of an allowance.", "of the app with the least share left.", "allowance"),
		foreign:   desc("foreign_refresher_suspected", "1 if values are rejected while young: probably another program refreshes this app.", greatest),
		states: prometheus.NewDesc("wxtoken_credentials",
			"Credentials that are kept now, by state. Each is fresh, stale (a value, but not a good one) or missing; the other states may add to that.",
			[]string{"kind", "state"}, nil),
	}
}

type collector struct {
	status                                                                                         func() []tokencache.Status
	summed                                                                                         func() bool
	series                                                                                         func(tokencache.Key) tokencache.Key
	version, expiry, committed, fresh, doubt, rejected, backoff, why, left, burst, foreign, states *prometheus.Desc
}

// The lines of one credential have at most gaugeBytes without the values of app and kind, which are
// in gaugeLines of them.
const (
	gaugeLines = 15
	gaugeBytes = 920
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.version, c.expiry, c.committed, c.fresh, c.doubt, c.rejected, c.backoff, c.why, c.left, c.burst, c.foreign, c.states} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	all := c.status()
	c.count(ch, all)
	now := time.Now()
	series := c.series
	if c.summed() {
		series = func(k tokencache.Key) tokencache.Key { return tokencache.Key{App: AllApps, Kind: k.Kind} }
	}
	for _, worst := range worstBy(all, series) {
		c.collect(ch, now, worst)
	}
}

// worst is the status of one credential, or the worst that any of several has in each respect.
type worst struct {
	tokencache.Status
	app      string
	reasons  map[reason]bool // of the backoff
	versions bool            // Version is that of one credential
}

// reason is one of a backoff.
type reason struct{ class, errcode string }

func worstOf(s *tokencache.Status, app string) *worst {
	w := &worst{Status: *s, app: app, versions: app == s.Key.App}
	w.because(s)
	return w
}

// because adds the reason for which s backs off, if it does.
func (w *worst) because(s *tokencache.Status) {
	if s.Backoff <= 0 {
		return
	}
	if w.reasons == nil {
		w.reasons = map[reason]bool{}
	}
	w.reasons[reason{oneOf(backoffClasses[:], string(s.Class)), errcodeLabel(s.Code)}] = true
}

// worstBy returns the worst of those that share a series: what an alert compares with a limit is
// true of it if it is true of any credential. One whose right has ended is no fault, and is left
// out.
func worstBy(all []tokencache.Status, series func(tokencache.Key) tokencache.Key) map[tokencache.Key]*worst {
	found := make(map[tokencache.Key]*worst, len(all))
	for i := range all {
		s := &all[i]
		if s.Class == tokencache.ClassEnded {
			continue
		}
		k := series(s.Key)
		w := found[k]
		if w == nil {
			found[k] = worstOf(s, k.App)
			continue
		}
		w.because(s)
		if s.Known && (!w.Known || s.ExpiresIn < w.ExpiresIn) {
			w.Known, w.ExpiresIn = true, s.ExpiresIn
		}
		if !s.CommittedAt.IsZero() && (w.CommittedAt.IsZero() || s.CommittedAt.Before(w.CommittedAt)) {
			w.CommittedAt = s.CommittedAt
		}
		w.Fresh = w.Fresh && s.Fresh
		w.InDoubt = w.InDoubt || s.InDoubt
		w.Rejected = w.Rejected || s.Rejected
		w.ForeignRefresher = w.ForeignRefresher || s.ForeignRefresher
		w.Backoff = max(w.Backoff, s.Backoff)
		w.Fetches, w.Reports, w.Forced = lesser(w.Fetches, s.Fetches), lesser(w.Reports, s.Reports), lesser(w.Forced, s.Forced)
	}
	return found
}

// lesser returns the allowance of which less is left, by share. One without a burst does not exist.
func lesser(a, b tokencache.Allowance) tokencache.Allowance {
	if b.Burst > 0 && (a.Burst == 0 || b.Left*a.Burst < a.Left*b.Burst) {
		return b
	}
	return a
}

func (c *collector) collect(ch chan<- prometheus.Metric, now time.Time, s *worst) {
	o := newOwner(s.app, s.Key.Kind)
	plain := o.labels(nil, nil)
	gauge := func(d *prometheus.Desc, v float64) { ch <- &measured{d, plain, v} }
	if s.versions {
		gauge(c.version, float64(s.Version))
	}
	if s.Known {
		gauge(c.expiry, stamp(now.Add(s.ExpiresIn)))
	}
	if !s.CommittedAt.IsZero() {
		gauge(c.committed, stamp(s.CommittedAt))
	}
	gauge(c.fresh, number(s.Fresh))
	gauge(c.doubt, number(s.InDoubt))
	gauge(c.rejected, number(s.Rejected))
	gauge(c.backoff, s.Backoff.Seconds())
	for r := range s.reasons {
		ch <- &measured{c.why, []*dto.LabelPair{o.app, pair("class", r.class), pair("errcode", r.errcode), o.kind}, 1}
	}
	for _, a := range []struct {
		name string
		tokencache.Allowance
	}{{"fetches", s.Fetches}, {"reports", s.Reports}, {"forced", s.Forced}} {
		if a.Burst > 0 { // else nothing is allowed, so nothing can be left
			labels := []*dto.LabelPair{pair("allowance", a.name), o.app, o.kind}
			ch <- &measured{c.left, labels, float64(a.Left)}
			ch <- &measured{c.burst, labels, float64(a.Burst)}
		}
	}
	gauge(c.foreign, number(s.ForeignRefresher))
}

// States of credentials. The first three exclude each other and have every credential.
var states = [...]struct {
	name string
	of   func(*tokencache.Status) bool
}{
	{"fresh", func(s *tokencache.Status) bool { return s.Fresh }},
	{"stale", func(s *tokencache.Status) bool { return s.Known && !s.Fresh }},
	{"missing", func(s *tokencache.Status) bool { return !s.Known && !s.Fresh }},
	{"in_doubt", func(s *tokencache.Status) bool { return s.InDoubt }},
	{"rejected", func(s *tokencache.Status) bool { return s.Rejected }},
	{"backing_off", func(s *tokencache.Status) bool { return s.Backoff > 0 }},
	{"foreign_refresher", func(s *tokencache.Status) bool { return s.ForeignRefresher }},
}

// count sends how many credentials of each kind are in each state.
func (c *collector) count(ch chan<- prometheus.Metric, all []tokencache.Status) {
	kinds := map[string]*[len(states)]int{}
	for i := range all {
		n := kinds[all[i].Key.Kind]
		if n == nil {
			n = new([len(states)]int)
			kinds[all[i].Key.Kind] = n
		}
		for j, state := range states {
			if state.of(&all[i]) {
				n[j]++
			}
		}
	}
	for kind, n := range kinds {
		for j, state := range states {
			ch <- &measured{c.states, []*dto.LabelPair{pair("kind", kind), pair("state", state.name)}, float64(n[j])}
		}
	}
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// backoffClasses are those of a failed fetch, and that of a spent allowance.
var backoffClasses = append(classes[:], string(tokencache.ClassLimited))

// NewRedisCollector returns the metrics that are a look at the ways to Redis. health is
// [tokencache.Cache.Health]; it is asked at each scrape.
func NewRedisCollector(health func() tokencache.Health) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("wxtoken_"+name, help, nil, nil) }
	return &redisCollector{
		health:     health,
		up:         desc("redis_up", "1 if the last look at Redis was answered; there is one at least every 15 s."),
		answered:   desc("redis_last_success_timestamp_seconds", "When a look at Redis was last answered. Absent if never."),
		subscribed: desc("subscription_up", "1 while this replica listens for the events of the others."),
		bound:      desc("reread_bound_seconds", "How long it takes at most until a change is noticed whose event was lost; it grows with replicas times credentials. Absent before the first re-read."),
	}
}

type redisCollector struct {
	health                          func() tokencache.Health
	up, answered, subscribed, bound *prometheus.Desc
}

func (c *redisCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.answered, c.subscribed, c.bound} {
		ch <- d
	}
}

func (c *redisCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.health()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	gauge(c.up, number(h.RedisUp))
	if !h.RedisAnswered.IsZero() {
		gauge(c.answered, stamp(h.RedisAnswered))
	}
	gauge(c.subscribed, number(h.Subscribed))
	if h.RereadBound > 0 {
		gauge(c.bound, h.RereadBound.Seconds())
	}
}

// stamp is a moment in whole seconds: otherwise every scrape would see another one.
func stamp(t time.Time) float64 { return math.Round(float64(t.UnixMilli()) / 1000) }
