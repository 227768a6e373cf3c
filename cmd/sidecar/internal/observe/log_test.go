package observe_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// logged returns what f logs at Info and above, as "level message".
func logged(f func(observe func(tokencache.Event))) []string {
	core, logs := observer.New(zap.InfoLevel)
	f(observe.LogEvents(zap.New(core)))
	var lines []string
	for _, e := range logs.All() {
		lines = append(lines, e.Level.String()+" "+e.Message)
	}
	return lines
}

func TestLogEvents(t *testing.T) {
	for result, want := range map[tokencache.Result]string{
		tokencache.ResultCommitted:     "info token replaced",
		tokencache.ResultUnchanged:     "",
		tokencache.ResultShared:        "",
		tokencache.ResultBackoff:       "",
		tokencache.ResultNotCurrent:    "",
		tokencache.ResultAccepted:      "",
		tokencache.ResultFailed:        "warn refresh failed",
		tokencache.ResultRefused:       "warn lease lost during a refresh, the fetched value is not used",
		tokencache.ResultOrphaned:      "warn Redis lost during a refresh, the fetched value is for this replica only",
		tokencache.ResultDirect:        "warn fetched without Redis, for this replica only",
		tokencache.ResultThrottled:     "warn an allowance of upstream calls is spent",
		tokencache.ResultNoRedis:       "",
		tokencache.ResultDoubtResolved: "",
		tokencache.ResultFetched:       "",
		tokencache.ResultLeaseWaited:   "",
		tokencache.ResultAdopted:       "",
		tokencache.ResultLeaseLost:     "warn lease lost during a refresh",
		tokencache.ResultEventMissed:   "warn a re-read found a version that no event announced",
		tokencache.ResultDataLost:      "warn Redis lost data: it was emptied, or a failover lost writes",
		tokencache.ResultClockStepped:  "warn the wall clock was stepped, or the host was suspended",
		tokencache.ResultUnknown:       "warn upstream does not say whether it rejects a reported value",
	} {
		got := logged(func(observe func(tokencache.Event)) {
			observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: result})
		})
		if want == "" && len(got) > 0 || want != "" && !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %q, want %q", result, got, want)
		}
	}
	got := logged(func(observe func(tokencache.Event)) {
		observe(tokencache.Event{Key: shop, Result: tokencache.ResultFailed, Err: &tokencache.FetchError{Unclear: true}})
	})
	if want := []string{"warn refresh failed, and upstream may have issued a value that is lost"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A line has the fields by which the metrics are labelled.
func TestLogFields(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	observe.LogEvents(zap.New(core))(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultFailed, Version: 7, Took: time.Second,
		Err: &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125, Message: "the secret is wrong", Err: errors.New("CANARY")}})
	got := fmt.Sprint(logs.All()[0].ContextMap())
	want := "map[app:wx1 class:permanent errcode:40125 error:upstream error 40125: the secret is wrong kind:access_token reason:due result:failed took:1s version:7]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// An outage of Redis is a beginning, a line a minute and an end, however many calls fail in it.
func TestOutageOfRedisIsLoggedOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := logged(func(observe func(tokencache.Event)) {
			fails := tokencache.Event{Key: shop, Result: tokencache.ResultFailed, Err: &tokencache.StoreError{Op: "load", Err: errors.New("away")}}
			for range 150 {
				observe(fails)
				time.Sleep(time.Second)
			}
			observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultNotCurrent}) // says nothing of Redis
			observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultUnchanged})
			observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultUnchanged})
		})
		want := []string{"warn redis unreachable", "warn redis unreachable", "warn redis unreachable", "info redis back"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Events that are refused are no outage, whatever the words are: everything else goes on.
func TestRefusedEventsAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := logged(func(observe func(tokencache.Event)) {
			for range 90 {
				observe(tokencache.Event{Result: tokencache.ResultFailed, Err: &tokencache.StoreError{Op: "watch", Err: proto("ERR unknown command 'subscribe'")}})
				observe(tokencache.Event{Result: tokencache.ResultReread})
				time.Sleep(time.Second)
			}
		})
		const refused = "warn redis refuses the events of the other replicas"
		if want := []string{refused, refused}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// What Redis refuses is not an outage that ends with the next answer: one line a minute.
func TestARefusalOfRedisIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := logged(func(observe func(tokencache.Event)) {
			refused := proto("READONLY You can't write against a read only replica.")
			for range 90 {
				observe(tokencache.Event{Key: shop, Result: tokencache.ResultFailed, Err: &tokencache.StoreError{Op: "begin", Err: refused}})
				observe(tokencache.Event{Result: tokencache.ResultReread})
				time.Sleep(time.Second)
			}
		})
		want := []string{"error redis refuses an operation", "error redis refuses an operation"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// proto is an answer of Redis.
type proto string

func (p proto) Error() string { return string(p) }
func (p proto) RedisError()   {}

func TestForeignRefresherIsLoggedOnChange(t *testing.T) {
	got := logged(func(observe func(tokencache.Event)) {
		for _, foreign := range []bool{false, true, true, true, false, false} {
			observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultShared, ForeignRefresher: foreign})
			observe(tokencache.Event{Key: card, Reason: tokencache.ReasonDue, Result: tokencache.ResultShared}) // another's state
			observe(tokencache.Event{Result: tokencache.ResultUnchanged})                                       // without a key
		}
	})
	want := []string{
		"warn foreign refresher suspected: values are rejected while young",
		"info foreign refresher no longer suspected",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
