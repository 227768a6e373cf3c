package tokencache

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// An event that is slower than a re-read is not lost; one that has not come by the next one is.
func TestAnEventIsMissedWhenTheNextReReadStillKnowsMore(t *testing.T) {
	c := New(nil, Options{})
	cr := c.credential(nil)
	knows := func(version int64) { cr.view.Store(&view{version: version, asOf: now()}) }
	read := func(version int64, want bool) {
		t.Helper()
		if got := cr.reread(version); got != want {
			t.Errorf("version %d: missed is %v", version, got)
		}
		knows(version)
	}
	read(5, false) // a cold start: there was nothing to hear
	read(5, false)
	read(6, false) // its event may be on its way
	cr.hear(6)
	read(6, false)
	cr.hear(7)
	read(7, false) // heard before it was read
	read(7, false)
	read(8, false)
	read(8, true) // never heard
	read(8, false)
	knows(9) // by this replica's own refresh
	read(9, false)
	read(9, false)
}

// What an event says reaches the books, and its lag is told by Redis' clock alone.
func TestAnEventIsHeardWithItsLag(t *testing.T) {
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
	hear := func(age time.Duration) {
		c.heard(t.Context(), fmt.Sprintf(`{"app":"a","kind":"access_token","version":7,"event":"committed","at":%d}`, at.Add(-age).UnixMilli()))
	}
	hear(250 * time.Millisecond)
	hear(-time.Second) // Redis' clock was stepped back meanwhile
	c.heard(t.Context(), `{"app":"a","kind":"access_token","version":6,"event":"committed"}`)
	if c.lookup(k).news.heard != 7 {
		t.Errorf("version %d is heard of", c.lookup(k).news.heard)
	}
	if len(got) != 2 || got[0].Result != Heard || got[0].Key != k || got[0].Took != 250*time.Millisecond || got[1].Took != 0 {
		t.Errorf("%+v", got)
	}
}

// unasked is a Source that nobody asks.
type unasked struct{}

func (unasked) Fetch(context.Context, Request) (Value, error) { panic("asked") }

// One answer with less may have been overtaken by a commit; a second one shows that Redis lost data.
// It is told once.
func TestRedisIsEmptiedWhenItKnowsLessTwice(t *testing.T) {
	var n news
	for i, step := range []struct{ less, want bool }{{true, false}, {false, false}, {true, false}, {true, true}, {true, false}, {false, false}} {
		if got := n.emptied(step.less); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
