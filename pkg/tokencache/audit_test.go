package tokencache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// An event that is slower than a re-read is not lost; one that has not come by the next one is.
func TestAnEventIsMissedWhenTheNextReReadStillKnowsMore(t *testing.T) {
	c := New(nil, Options{})
	sl := c.newSlot(Key{"wx1", "access_token"})
	knows := func(version int64) { sl.snapshot.Store(&snapshot{version: version, asOf: now()}) }
	read := func(version int64, want bool) {
		t.Helper()
		if got := sl.reread(version); got != want {
			t.Errorf("version %d: missed is %v", version, got)
		}
		knows(version)
	}
	read(5, false) // a cold start: there was no event to miss
	read(5, false)
	read(6, false) // its event may be on its way
	sl.eventAnnounced(6)
	read(6, false)
	sl.eventAnnounced(7)
	read(7, false) // announced before it was read
	read(7, false)
	read(8, false)
	read(8, true) // never announced
	read(8, false)
	knows(9) // by this replica's own refresh
	read(9, false)
	read(9, false)
}

// An event is adopted, and its lag is measured by Redis' clock alone.
func TestAnEventIsAdoptedWithItsLag(t *testing.T) {
	m := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	defer rdb.Close()
	at := time.UnixMilli(1e12)
	m.SetTime(at)
	var got []Event
	c := New(rdb, Options{Observe: func(e Event) { got = append(got, e) }})
	defer c.Close()
	k := Key{"a", "access_token"}
	if err := c.Set(Credential{Key: k, Source: unasked{}}); err != nil {
		t.Fatal(err)
	}
	arrive := func(age time.Duration) {
		c.announced(fmt.Sprintf(`{"app":"a","kind":"access_token","version":7,"event":"committed","at":%d}`, at.Add(-age).UnixMilli()))
		c.lookAtAnnounced(t.Context())
	}
	arrive(250 * time.Millisecond)
	arrive(-time.Second) // Redis' clock was stepped back meanwhile
	c.announced(`{"app":"a","kind":"access_token","version":6,"event":"committed"}`)
	c.lookAtAnnounced(t.Context())
	if c.lookup(k).audit.announced != 7 {
		t.Errorf("version %d counts as announced", c.lookup(k).audit.announced)
	}
	if len(got) != 2 || got[0].Result != ResultAdopted || got[0].Key != k || got[0].Took != 250*time.Millisecond || got[1].Took != 0 {
		t.Errorf("%+v", got)
	}
}

// unasked is a Source that is never called.
type unasked struct{}

func (unasked) Fetch(context.Context, Request) (Value, error) { panic("asked") }

// A flood of events costs Redis one look; what is not an event of this program costs none.
func TestEventsOfOneCredentialMerge(t *testing.T) {
	m := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	defer rdb.Close()
	looks := 0
	rdb.AddHook(pipelines(func(cmds []redis.Cmder) {
		if cmds[0].Name() == "evalsha" {
			looks++
		}
	}))
	c := New(rdb, Options{})
	defer c.Close()
	if err := c.Set(Credential{Key: Key{"a", "access_token"}, Source: unasked{}}, Credential{Key: Key{"b", "access_token"}, Source: unasked{}}); err != nil {
		t.Fatal(err)
	}
	const event = `{"app":"%s","kind":"access_token","version":%d,"event":"committed"%s}`
	for i := range 5000 {
		c.announced(fmt.Sprintf(event, "a", i, ""))
		c.announced(fmt.Sprintf(event, "b", i, ""))
	}
	c.lookAtAnnounced(t.Context())
	if looks != 1 {
		t.Errorf("%d round trips for 10 000 events, want 1", looks)
	}
	for _, foreign := range []string{"", "hello", fmt.Sprintf(event, "unknown", 1, ""), fmt.Sprintf(event, "a", 1, `,"more":"`+strings.Repeat("x", 25<<20)+`"`)} {
		c.announced(foreign)
	}
	c.lookAtAnnounced(t.Context())
	if looks != 1 {
		t.Errorf("%d round trips after events that are not of this program, want 1", looks)
	}
}

// pipelines is a hook that sees pipelines.
type pipelines func([]redis.Cmder)

func (pipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (f pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f(cmds)
		return next(ctx, cmds)
	}
}

// One answer with less may have been overtaken by a commit; a second one shows that Redis lost
// data. It is told once.
func TestRedisIsEmptiedWhenItKnowsLessTwice(t *testing.T) {
	var n eventAudit
	for i, step := range []struct{ less, want bool }{{true, false}, {false, false}, {true, false}, {true, true}, {true, false}, {false, false}} {
		if got := n.dataLost(step.less); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
