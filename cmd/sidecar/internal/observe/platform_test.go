package observe_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

func account(id string) tokencache.Key {
	return tokencache.Key{App: "wxp:" + id, Kind: "access_token"}
}

// The accounts of a platform share their series, however many come and go; one that has withdrawn
// is no fault.
func TestAccountsOfAPlatformShareTheirSeries(t *testing.T) {
	m := observe.NewMetrics(prometheus.NewPedanticRegistry())
	m.Together(func(k tokencache.Key) tokencache.Key {
		if id, _, ok := strings.Cut(k.App, ":"); ok {
			k.App = id
		}
		return k
	})
	for _, id := range []string{"wx1", "wx2"} {
		m.Observe(tokencache.Event{Key: account(id), Result: tokencache.ResultAdded})
		m.Observe(tokencache.Event{Key: account(id), Reason: tokencache.ReasonMissing, Result: tokencache.ResultCommitted})
	}
	m.Observe(tokencache.Event{Key: account("wx1"), Result: tokencache.ResultDropped})
	if a, b := m.Of(account("wx1")), m.Of(tokencache.Key{App: "wxp", Kind: "access_token"}); a == nil || a != b {
		t.Error("an account is not counted with the others")
	}
	got := exposed(t, m.Collector(func() []tokencache.Status {
		return []tokencache.Status{
			{Key: account("wx1"), Known: true, Fresh: true, ExpiresIn: time.Hour, Version: 7},
			{Key: account("wx2"), Known: true, Fresh: false, ExpiresIn: time.Minute, Version: 8},
			{Key: account("wx3"), Class: tokencache.ClassEnded, Backoff: time.Minute},
		}
	}))
	for _, want := range []string{`wxtoken_token_fresh{app="wxp",kind="access_token"} 0`, `wxtoken_credentials{kind="access_token",state="missing"} 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "wxp:") || strings.Contains(got, "token_version") || strings.Contains(got, "ended") {
		t.Errorf("a series for one account, or for one whose right has ended:\n%s", got)
	}
}

func TestWhatHappensToAPlatformIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := observe.NewPlatformMetrics(reg, []string{"wxp", "wxq"}, func(id string) (time.Duration, bool) { return time.Minute, id == "wxp" })
	for _, e := range []platform.Event{
		{What: platform.EventPush, Label: "authorized"}, {What: platform.EventPush, Label: "authorized", Err: errors.New("away")},
		{What: platform.EventExchange, Label: "done"}, {What: platform.EventRecovery, Label: "added"}, {What: platform.EventWithdrawn, Label: "late"},
	} {
		e.Platform = "wxp"
		m.Observe(e)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, f := range families {
		got[f.GetName()] = len(f.GetMetric())
	}
	for name, want := range map[string]int{"pushes_total": 2, "exchanges_total": 1, "recoveries_total": 1, "withdrawals_total": 1, "ticket_age_seconds": 1} {
		if got["wxtoken_platform_"+name] != want {
			t.Errorf("%s has %d series, want %d", name, got["wxtoken_platform_"+name], want)
		}
	}
}
