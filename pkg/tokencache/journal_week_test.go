package tokencache_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// ticket is a Source as for a ticket of WeChat: it repeats its value for two hours, says nothing of
// the life that is left, and is asked every few minutes.
type ticket string

func (t ticket) Fetch(context.Context, tokencache.Request) (tokencache.Value, error) {
	value := fmt.Sprintf("%s-%d", t, time.Now().Unix()/7200)
	return tokencache.Value{Value: secret.New(value), Life: time.Hour, RenewLeft: time.Hour - 210*time.Second}, nil
}

// withTickets gives every replica two tickets beside its token.
func withTickets(t *testing.T, c *cluster) {
	for _, r := range c.Replicas {
		creds := []tokencache.Credential{r.Credential}
		for _, kind := range []string{"jsapi_ticket", "wx_card_ticket"} {
			creds = append(creds, tokencache.Credential{
				Key:    tokencache.Key{App: tokencachetest.Key.App, Kind: kind},
				Source: ticket(kind), Fetches: tokencache.Limit{PerDay: 1000},
			})
		}
		if err := r.Cache.Set(creds...); err != nil {
			t.Fatal(err)
		}
	}
}

// journaled returns a field of every entry of the journal, oldest first.
func journaled(t *testing.T, c *cluster, field string) (all []string) {
	t.Helper()
	entries, err := c.Redis.Stream("wxtoken:{" + tokencachetest.Key.App + "}:journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, fieldOf(e, field))
	}
	return all
}

func fieldOf(e miniredis.StreamEntry, field string) string {
	if i := slices.Index(e.Values, field); i >= 0 && i+1 < len(e.Values) {
		return e.Values[i+1]
	}
	return ""
}

// A normal week, by default a day: every change is in the journal, and nothing else. What is new
// for people, the token as well as the tickets, is among the last 20 entries, and the first entry
// of the week is still there.
func TestTheJournalHasEveryChangeOfAWeekAndNothingElse(t *testing.T) {
	t.Parallel()
	span := 24 * time.Hour
	if long {
		span = 7 * 24 * time.Hour
	}
	bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
		withTickets(t, c)
		warm(t, c)
		time.Sleep(span)
		results, kinds := journaled(t, c, "result"), journaled(t, c, "kind")
		counts := map[string]int{}
		for i, result := range results {
			counts[kinds[i]+" "+result]++
		}
		fetches := len(c.Upstream.Fetches())
		turns := int(span/(2*time.Hour)) + 1
		for what, want := range map[string]int{
			"access_token committed": fetches, "access_token cut": fetches - 1,
			"jsapi_ticket committed": turns, "wx_card_ticket committed": turns,
		} {
			if got := counts[what]; got < want-1 || got > want+1 {
				t.Errorf("%d entries of %s, want %d", got, what, want)
			}
			delete(counts, what)
		}
		if len(counts) > 0 {
			t.Errorf("entries of what changed nothing: %v", counts)
		}
		if week := len(results) * int(7*24*time.Hour/span); week > 600 {
			t.Errorf("%d entries in a week, and the journal keeps 600", week)
		}
		last := kinds[len(kinds)-20:]
		for _, kind := range []string{"access_token", "jsapi_ticket", "wx_card_ticket"} {
			if !slices.Contains(last, kind) {
				t.Errorf("the last 20 entries do not show the %s: %v", kind, last)
			}
		}
	}, rarely(150*time.Second))
}
