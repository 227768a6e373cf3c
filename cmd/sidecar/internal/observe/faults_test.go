package observe_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe/observetest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// scene is a fault on a cluster of two replicas, and what of it each one's metrics show.
type scene struct {
	name      string
	fault     func(n int, replica string) tokencachetest.Fault
	configure func(replica string, c *tokencache.Credential)
	// play makes the fault, from a cluster that runs and has a value in each replica.
	play func(t *testing.T, c *tokencachetest.Cluster)
	// want are series, as "name label value ...", of which the replicas together show something (or
	// as much as after >= or ==), and quiet those of which they show nothing.
	want, quiet string
}

// fails lets the fetches of a replica ("" for every one) fail, from the second one on.
func fails(replica string, e tokencache.FetchError) func(int, string) tokencachetest.Fault {
	return func(n int, who string) tokencachetest.Fault {
		if n == 1 || replica != "" && who != replica {
			return tokencachetest.Fault{}
		}
		return tokencachetest.Fault{Err: &e}
	}
}

// second lets the second fetch be like f.
func second(f tokencachetest.Fault) func(int, string) tokencachetest.Fault {
	return func(n int, _ string) tokencachetest.Fault {
		if n == 2 {
			return f
		}
		return tokencachetest.Fault{}
	}
}

// Values live so long that little time passes in vain, and are due after so much of it.
const (
	life    = 12 * time.Minute
	renewal = 6 * time.Minute
)

// untilRenewal is when the replicas have begun to refresh for being due.
func untilRenewal(t *testing.T, c *tokencachetest.Cluster) {
	t.Helper()
	for range 2 * life / time.Second {
		if len(c.Upstream.Fetches()) > 1 {
			return
		}
		time.Sleep(time.Second)
	}
	t.Error("nothing is due")
}

// untilBackoff is when a replica has begun to back off from a refresh that was due. A short backoff
// ends within seconds.
func untilBackoff(t *testing.T, c *tokencachetest.Cluster) {
	t.Helper()
	untilRenewal(t, c)
	for range 10 * time.Second / time.Millisecond {
		for _, r := range c.Replicas {
			if slices.ContainsFunc(r.Cache.Status(), func(s tokencache.Status) bool { return s.Backoff > time.Second/2 }) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("no replica backs off")
}

// rejected lets upstream end the value, and the first replica's app report that.
func rejected(t *testing.T, c *tokencachetest.Cluster) {
	value := c.Replicas[0].MustGet(t).Value
	c.Upstream.Kill()
	_, _ = c.Replicas[0].Cache.Report(context.Background(), tokencachetest.Key, value) // the metrics tell
}

// then lets some time pass after another step.
func then(f func(*testing.T, *tokencachetest.Cluster), d time.Duration) func(*testing.T, *tokencachetest.Cluster) {
	return func(t *testing.T, c *tokencachetest.Cluster) {
		f(t, c)
		time.Sleep(d)
	}
}

// severally does something to the link of each replica, and waits for the next look at Redis.
func severally(f func(*tokencachetest.Link)) func(*testing.T, *tokencachetest.Cluster) {
	return func(_ *testing.T, c *tokencachetest.Cluster) {
		for _, r := range c.Replicas {
			f(r.Link)
		}
		time.Sleep(20 * time.Second)
	}
}

// answers lets Redis answer every command with an error, and waits for the next look.
func answers(text string) func(*testing.T, *tokencachetest.Cluster) {
	return func(_ *testing.T, c *tokencachetest.Cluster) {
		c.Redis.SetError(text)
		time.Sleep(20 * time.Second)
	}
}

// Each fault, and the metrics that show it: what alerts and dashboards are written from.
var scenes = []scene{
	{
		name: "nothing happens",
		play: then(untilRenewal, time.Minute),
		want: "redis_up >=2, subscription_up >=2, event_lag_seconds, upstream_fetches_total reason due result ok, token_last_refresh_timestamp_seconds, allowance_left allowance fetches >=18",
		quiet: "leases_lost_total, upstream_fetch_failures_total, upstream_errcodes_total, redis_errors_total, redis_data_losses_total, events_missed_total, locks_capped_total, " +
			"token_in_doubt, token_rejected, token_backoff_seconds, token_backoff_info, foreign_refresher_suspected, clock_steps_total",
	}, {
		name:  "the holder of the lease is killed",
		fault: second(tokencachetest.Fault{DelayReply: time.Minute}),
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			untilRenewal(t, c)
			for _, r := range c.Replicas {
				if r.Name == c.Upstream.Fetches()[1].Replica {
					go r.Kill()
				}
			}
			time.Sleep(5 * time.Second) // the lease is still held
		},
		want: "token_in_doubt",
	}, {
		name:  "the successor of a killed holder",
		fault: second(tokencachetest.Fault{DelayReply: time.Minute}),
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			untilRenewal(t, c)
			for _, r := range c.Replicas {
				if r.Name == c.Upstream.Fetches()[1].Replica {
					go r.Kill()
				} else {
					go r.Cache.Report(context.Background(), tokencachetest.Key, r.MustGet(t).Value)
				}
			}
			time.Sleep(2 * time.Minute)
		},
		want: "lease_wait_seconds, upstream_fetches_total reason due result ok",
	}, {
		name:  "the holder of the lease is stalled",
		fault: second(tokencachetest.Fault{Delay: 12 * time.Second, Detached: true}),
		play:  then(untilRenewal, time.Minute),
		want:  "leases_lost_total, refreshes_total result refused",
	}, {
		name:  "upstream gives no answer",
		fault: func(n int, _ string) tokencachetest.Fault { return tokencachetest.Fault{LoseReply: n > 1} },
		play:  then(untilRenewal, 10*time.Second),
		want: "upstream_fetches_total result unclear, upstream_fetch_failures_total class transient, upstream_errcodes_total errcode none, token_in_doubt, " +
			"upstream_fetch_duration_seconds result unclear",
	}, {
		name:  "upstream is busy",
		fault: fails("", tokencache.FetchError{Class: tokencache.ClassTransient, Code: -1}),
		play:  untilBackoff,
		want:  "upstream_fetch_failures_total class transient, upstream_errcodes_total errcode -1, token_backoff_info class transient errcode -1, token_backoff_seconds, refreshes_total reason due result failed",
	}, {
		name:  "the secret is wrong",
		fault: fails("", tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125}),
		play:  then(untilRenewal, 5*time.Second),
		want:  "upstream_fetch_failures_total class permanent, upstream_errcodes_total errcode 40125, token_backoff_info class permanent errcode 40125 >=2",
	}, {
		name:  "the quota is spent",
		fault: fails("", tokencache.FetchError{Class: tokencache.ClassQuota, Code: 45009}),
		play:  then(untilRenewal, 5*time.Second),
		want:  "upstream_fetch_failures_total class quota, upstream_errcodes_total errcode 45009, token_backoff_info class quota errcode 45009 >=2",
	}, {
		name:  "upstream refuses every pod's address",
		fault: fails("", tokencache.FetchError{Class: tokencache.ClassLocal, Code: 40164}),
		play:  then(untilRenewal, 10*time.Second),
		want:  "upstream_fetch_failures_total class local, upstream_errcodes_total errcode 40164, token_backoff_info class local errcode 40164",
	}, {
		name:  "Redis refuses connections",
		play:  severally((*tokencachetest.Link).Refuse),
		want:  "redis_errors_total op load, redis_errors_total op watch",
		quiet: "redis_up, subscription_up",
	}, {
		name:  "Redis is in a black hole",
		play:  severally((*tokencachetest.Link).BlackHole),
		want:  "redis_errors_total op load class timeout",
		quiet: "redis_up",
	}, {
		name: "Redis is in a black hole when a refresh is due",
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			time.Sleep(renewal - time.Minute)
			severally((*tokencachetest.Link).BlackHole)(t, c)
			time.Sleep(3 * time.Minute)
		},
		want: "refreshes_total reason due result no_redis",
	}, {
		name: "Redis wants a password", play: answers("NOAUTH Authentication required."),
		want: "redis_errors_total class noauth", quiet: "redis_up",
	}, {
		name: "Redis denies a right", play: answers("NOPERM this user has no permissions to run the 'evalsha' command"),
		want: "redis_errors_total class noperm", quiet: "redis_up",
	}, {
		name: "Redis starts", play: answers("LOADING Redis is loading the dataset in memory"),
		want: "redis_errors_total class loading", quiet: "redis_up",
	}, {
		name: "Redis is full when a refresh is due",
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			time.Sleep(renewal - time.Minute)
			answers("OOM command not allowed when used memory > 'maxmemory'.")(t, c)
		},
		want: "redis_errors_total class oom",
	}, {
		name: "Redis is a replica", play: answers("READONLY You can't write against a read only replica."),
		want: "redis_errors_total class readonly",
	}, {
		name: "Redis is emptied",
		play: func(_ *testing.T, c *tokencachetest.Cluster) {
			c.Redis.FlushAll()
			time.Sleep(20 * time.Second)
		},
		want: "redis_data_losses_total, upstream_fetches_total reason due",
	}, {
		name: "events do not come",
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			c.Replicas[1].Link.Deafen()
			for range 2 {
				rejected(t, c)
				time.Sleep(40 * time.Second)
			}
		},
		want: "events_missed_total, redis_errors_total op watch, redis_up >=2, subscription_up ==1",
	}, {
		name: "connections break once",
		play: func(_ *testing.T, c *tokencachetest.Cluster) {
			c.Replicas[0].Link.Reset()
			time.Sleep(10 * time.Second)
		},
		want: "subscriptions_total >=3, subscription_up >=2, redis_errors_total op watch class closed",
	}, {
		name: "another program refreshes the app",
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			for range 3 {
				rejected(t, c)
				time.Sleep(2 * time.Minute)
			}
		},
		want: "foreign_refresher_suspected >=2, reports_total outcome committed, upstream_probes_total result rejected",
	}, {
		name:      "an allowance is spent",
		configure: func(_ string, c *tokencache.Credential) { c.Reports = tokencache.Limit{PerDay: 2} },
		play: func(t *testing.T, c *tokencachetest.Cluster) {
			for range 3 {
				rejected(t, c)
				time.Sleep(10 * time.Second)
			}
		},
		want:  "reports_total outcome throttled, refreshes_total reason report result throttled, token_backoff_info class limited, token_rejected",
		quiet: "allowance_left allowance reports",
	},
}

func TestEveryFaultShowsInTheMetrics(t *testing.T) {
	t.Parallel()
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) { synctest.Test(t, s.run) })
	}
}

func (s *scene) run(t *testing.T) {
	options := []tokencachetest.Option{}
	if s.configure != nil {
		options = append(options, tokencachetest.Configure(s.configure))
	}
	u := &tokencachetest.Upstream{Life: life, RenewLeft: life - renewal, Latency: time.Millisecond, Fault: s.fault}
	c := tokencachetest.New(t, 2, u, options...)
	c.Start()
	for _, r := range c.Replicas {
		r.MustGet(t)
	}
	time.Sleep(time.Second)
	s.play(t, c)
	var registries []prometheus.Gatherer
	for _, r := range c.Replicas {
		reg := prometheus.NewPedanticRegistry()
		m := observe.NewMetrics(reg)
		m.Track(tokencachetest.Key)
		for _, e := range r.Events() {
			m.Observe(e)
		}
		reg.MustRegister(m.Collector(r.Cache.Status), observe.NewRedisCollector(r.Cache.Health))
		registries = append(registries, reg)
	}
	value := func(what string) (sum float64) {
		words := strings.Fields(what)
		for _, reg := range registries {
			sum += testutil.ToFloat64(observetest.Series(reg, "wxtoken_"+words[0], words[1:]...))
		}
		return sum
	}
	for _, what := range strings.Split(s.want, ", ") {
		series, text, exact := strings.Cut(what, " ==")
		if !exact {
			series, text, _ = strings.Cut(what, " >=")
		}
		least, _ := strconv.ParseFloat(text, 64) // 0 without one
		if got := value(series); got == 0 || got < least || exact && got > least {
			t.Errorf("%s is %v", what, got)
		}
	}
	if s.quiet == "" {
		return
	}
	for _, what := range strings.Split(s.quiet, ", ") {
		if got := value(what); got != 0 {
			t.Errorf("%s is %v, want 0", what, got)
		}
	}
}

// Every metric that a scene names is one of the list, so that a name that is wrong cannot be quiet.
func TestTheScenesNameMetricsOfTheList(t *testing.T) {
	var names []string
	families, err := everything(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, s := range scenes {
		for _, what := range strings.Split(s.want+", "+s.quiet, ", ") {
			if words := strings.Fields(what); len(words) > 0 && !slices.Contains(names, "wxtoken_"+words[0]) {
				t.Errorf("%s: there is no metric %s", s.name, words[0])
			}
		}
	}
}
