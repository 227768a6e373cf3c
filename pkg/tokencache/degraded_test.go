package tokencache_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// refusingWrites is a Redis that answers looks and refuses everything that writes, for one replica,
// from the moment that it is switched on.
type refusingWrites struct {
	on     *atomic.Bool
	answer string
}

func (refusingWrites) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r refusingWrites) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r refusingWrites) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		// Of the scripts, only the look has no argument of its own beside its 5 keys and 5 common
		// arguments.
		if r.on.Load() && strings.HasPrefix(cmd.Name(), "eval") && len(cmd.Args()) != 3+5+2*5 {
			err := redisError(r.answer)
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

// Upstream ends the value while Redis is away or refuses writes: an app reports it, and the report
// leaves a trace.
func TestAValueThatDiesWithoutRedisIsNotHandedOutAsGood(t *testing.T) {
	t.Parallel()
	var readOnly atomic.Bool
	outages := map[string]func(c *cluster, away bool){
		"cut off":  func(c *cluster, away bool) { eachLink(c, away, (*tokencachetest.Link).Refuse) },
		"readonly": func(_ *cluster, away bool) { readOnly.Store(away) },
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				hook := tokencachetest.Hook(func(string) redis.Hook {
					return refusingWrites{&readOnly, "READONLY You can't write against a read only replica."}
				})
				bubble(t, 1, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
					old, r := warm(t, c), c.Replicas[0]
					time.Sleep(time.Minute)
					outage(c, true)
					// A false alarm is found out by a probe and changes nothing.
					storm(c, 4, report(old.Value.Reveal())).want(t, 4, 0, 0)
					if got := c.Upstream.Probes(); got != 1 {
						t.Errorf("%d probes for a false alarm of 4 callers, want 1", got)
					}
					time.Sleep(11 * time.Second)

					c.Upstream.Kill()
					if mode == repeating {
						c.Upstream.Foreign() // a normal fetch brings the new one
					}
					a := storm(c, 4, report(old.Value.Reveal()))
					token := r.MustGet(t)
					if mode == repeating {
						a.want(t, 4, 0, 0)
						if token.Stale || !c.Upstream.Valid(token.Value.Reveal()) {
							t.Errorf("the replica did not ask for itself: %+v", token)
						}
					} else {
						a.want(t, 0, 4, 0)
						if s := r.Cache.Status()[0]; !token.Stale || !s.Rejected || s.Fresh {
							t.Errorf("the dead value is handed out as good: %+v, %+v", token, s)
						}
						wantFetches(t, c, 1)
					}
					time.Sleep(3 * time.Minute)
					if token := r.MustGet(t); !token.Stale && !c.Upstream.Valid(token.Value.Reveal()) {
						t.Errorf("3 minutes later, a dead value is handed out as good: %+v", token)
					}
					if got := c.Upstream.Probes(); got != 2 {
						t.Errorf("%d probes, want one for each state of the value", got)
					}

					outage(c, false)
					time.Sleep(10 * time.Second)
					newcomer := c.Add()
					for _, r := range []*replica{r, newcomer} {
						if token := r.MustGet(t); token.Stale || !c.Upstream.Valid(token.Value.Reveal()) {
							t.Errorf("after the outage: %+v", token)
						}
					}
					if !c.Upstream.Valid(c.Value()) {
						t.Error("Redis has the dead value after the outage")
					}
				}, hook)
			})
		})
	}
}

// The probe was wrong for a moment, while Redis could not be written: when it can, a later finding
// counts.
func TestAWrongFindingWithoutRedisIsForgotten(t *testing.T) {
	t.Parallel()
	var readOnly, wrong atomic.Bool
	hook := tokencachetest.Hook(func(name string) redis.Hook {
		on := &readOnly
		if name != "replica-0" {
			on = new(atomic.Bool)
		}
		return refusingWrites{on, "OOM command not allowed when used memory > 'maxmemory'."}
	})
	flaps := tokencachetest.Configure(func(_ string, c *tokencache.Credential) {
		probe := c.Probe
		c.Probe = func(ctx context.Context, v secret.String) error {
			if wrong.Load() {
				return tokencache.ErrRejected
			}
			return probe(ctx, v)
		}
	})
	bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
		token := warm(t, c)
		readOnly.Store(true)
		wrong.Store(true)
		one := c.Replicas[0]
		if got, err := report(token.Value.Reveal())(t.Context(), one); err != nil || !got.Stale {
			t.Errorf("%+v, %v", got, err)
		}
		wrong.Store(false)
		time.Sleep(time.Second)
		if got, err := report(token.Value.Reveal())(t.Context(), c.Replicas[1]); err != nil || got.Stale {
			t.Errorf("%+v, %v", got, err)
		}
		time.Sleep(16 * time.Second) // the slow re-read
		if got := one.MustGet(t); got.Stale || one.Cache.Status()[0].Rejected {
			t.Errorf("%+v", got)
		}
		wantFetches(t, c, 1)
	}, hook, flaps)
}

// On a busy host each answer of Redis takes longer than an operation may: that is no reason for
// each of many cold replicas to fetch a value of its own.
func TestASlowRedisIsNotAnAbsentOne(t *testing.T) {
	t.Parallel()
	bubble(t, 20, &upstream{Mode: repeating}, func(t *testing.T, c *cluster) {
		eachLink(c, true, (*tokencachetest.Link).BlackHole)
		go func() {
			time.Sleep(2500 * time.Millisecond)
			eachLink(c, false, nil)
		}()
		storm(c, 1, get).want(t, 20, 0, 0)
		wantFetches(t, c, 1)
	})
}

// But one that never answers is: a cold replica gets a value in spite of it.
func TestARedisThatNeverAnswersIsAbsent(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{Mode: repeating}, func(t *testing.T, c *cluster) {
		eachLink(c, true, (*tokencachetest.Link).BlackHole)
		start := time.Now()
		storm(c, 1, get).want(t, 1, 0, 0)
		if took := time.Since(start); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
