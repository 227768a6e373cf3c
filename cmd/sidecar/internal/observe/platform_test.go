package observe_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
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
			k.App = id + observe.Accounts
		}
		return k
	})
	for _, id := range []string{"wx1", "wx2"} {
		m.Observe(tokencache.Event{Key: account(id), Result: tokencache.ResultAdded})
		m.Observe(tokencache.Event{Key: account(id), Reason: tokencache.ReasonMissing, Result: tokencache.ResultCommitted})
	}
	m.Observe(tokencache.Event{Key: account("wx1"), Result: tokencache.ResultDropped})
	if a, b := m.Of(account("wx1")), m.Of(tokencache.Key{App: "wxp" + observe.Accounts, Kind: "access_token"}); a == nil || a != b {
		t.Error("an account is not counted with the others")
	}
	got := exposed(t, m.Collector(func() []tokencache.Status {
		return []tokencache.Status{
			{Key: account("wx1"), Known: true, Fresh: true, ExpiresIn: time.Hour, Version: 7},
			{Key: account("wx2"), Known: true, Fresh: false, ExpiresIn: time.Minute, Version: 8},
			{Key: account("wx3"), Class: tokencache.ClassEnded, Backoff: time.Minute},
		}
	}))
	for _, want := range []string{`wxtoken_token_fresh{app="wxp:*",kind="access_token"} 0`, `wxtoken_credentials{kind="access_token",state="missing"} 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "wxp:wx") || strings.Contains(got, "token_version") || strings.Contains(got, "ended") {
		t.Errorf("a series for one account, or for one whose right has ended:\n%s", got)
	}
}

// hasty is a vault whose operations fail in one way.
type hasty struct{ err error }

func (h hasty) Load(context.Context, string, string) (vault.Row, error) { return vault.Row{}, h.err }
func (h hasty) Save(context.Context, vault.Row) (int64, error)          { return 0, h.err }
func (h hasty) SaveAll(_ context.Context, rows []vault.Row) []error {
	return slices.Repeat([]error{h.err}, len(rows))
}
func (h hasty) List(context.Context, string, string, int) ([]vault.Row, error) { return nil, h.err }
func (h hasty) Codes(context.Context, string) ([]string, error)                { return nil, h.err }

func TestWhatHappensToAPlatformIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := observe.NewPlatformMetrics(reg, []string{"wxp"}, func() []platform.Status {
		return []platform.Status{
			{ID: "wxp", Kind: platform.OpenPlatform, Ticket: time.Minute, TicketLife: 12 * time.Hour, Codes: 2, Authorizers: map[vault.State]int{vault.StateActive: 5000, vault.StateRefused: 3}},
			{ID: "wwq", Kind: platform.Suite, Ticket: time.Hour, TicketLife: 30 * time.Minute}, // not counted yet
			{ID: "wwr", Kind: "without tickets"},
		}
	})
	away := errors.New("away")
	for _, e := range []platform.Event{
		{What: platform.EventPush, Label: "authorized"}, {What: platform.EventPush, Label: "authorized", Err: away},
		{What: platform.EventPush, Label: "other", Err: fmt.Errorf("push: %w", wechat.ErrSignature)},
		{What: platform.EventPush, Label: "other", Err: wechat.ErrDecrypt},
		{What: platform.EventPush, Label: "other", Err: wechat.ErrReceiver},
		{What: platform.EventPush, Label: "other", Err: wechat.ErrPush},
		{What: platform.EventExchange, Label: "done", Via: "push"}, {What: platform.EventExchange, Label: "done", Via: "redirect", Err: away},
		{What: platform.EventExchange, Label: "lost", Via: "push"},
		{What: platform.EventRecovery, Label: "added"}, {What: platform.EventWithdrawn, Label: "test"},
	} {
		e.Platform = "wxp"
		m.Observe(e)
	}
	m.Callback("wxp", "public", "forged")
	for _, err := range []error{nil, away, vault.ErrConflict, context.Canceled} {
		store := m.Vault(hasty{err})
		_, _ = store.Load(t.Context(), "", "") // what is returned is the store's
		_, _ = store.Save(t.Context(), vault.Row{})
		if errs := store.SaveAll(t.Context(), make([]vault.Row, 3)); len(errs) != 3 || errs[0] != err {
			t.Errorf("the store says %v, and its wrapper %v", err, errs)
		}
		_, _ = store.List(t.Context(), "", "", 1)
		if _, got := store.Codes(t.Context(), ""); got != err {
			t.Errorf("the store says %v, and its wrapper %v", err, got)
		}
	}
	got := "\n" + exposition(t, reg)
	for _, want := range []string{
		`platform_pushes_total{info_type="authorized",platform="wxp",result="ok"} 1`,
		`platform_pushes_total{info_type="authorized",platform="wxp",result="failed"} 1`,
		`platform_pushes_total{info_type="other",platform="wxp",result="signature"} 1`,
		`platform_pushes_total{info_type="other",platform="wxp",result="key"} 1`,
		`platform_pushes_total{info_type="other",platform="wxp",result="receiver"} 1`,
		`platform_pushes_total{info_type="other",platform="wxp",result="malformed"} 1`,
		`platform_callbacks_total{door="public",platform="wxp",result="forged"} 1`,
		`platform_exchanges_total{platform="wxp",result="done",via="push"} 1`,
		`platform_exchanges_total{platform="wxp",result="failed",via="redirect"} 1`,
		`platform_exchanges_total{platform="wxp",result="lost",via="push"} 1`,
		`platform_exchanges_total{platform="wxp",result="lost",via="redirect"} 0`, // the first one is an increase
		`platform_recoveries_total{platform="wxp",result="added"} 1`,
		`platform_withdrawals_total{platform="wxp",result="test"} 1`,
		`platform_ticket_age_seconds{kind="open_platform",platform="wxp"} 60`,
		`platform_ticket_age_seconds{kind="wecom_suite",platform="wwq"} 3600`,
		`platform_authorizers{platform="wxp",state="active"} 5000`,
		`platform_authorizers{platform="wxp",state="refused"} 3`,
		`platform_authorizers{platform="wxp",state="withdrawn"} 0`,
		`platform_codes_waiting{platform="wxp"} 2`,
		`vault_errors_total{op="save"} 4`,
		`vault_errors_total{op="load"} 1`,
		`vault_duration_seconds_count{op="save"} 16`, // those that are saved together are counted one by one
		`vault_errors_total{op="codes"} 1`,
		`vault_duration_seconds_count{op="list"} 4`,
	} {
		if !strings.Contains(got, "\nwxtoken_"+want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, `authorizers{platform="wwq"`) || strings.Contains(got, `age_seconds{kind="without`) {
		t.Errorf("what is not known is exported:\n%s", got)
	}
}

// The metrics of a platform are as many, however many accounts it has: 20 platforms take a part of
// what is left of /metrics beside those by app.
func TestTheMetricsOfPlatformsAreFew(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprintf("wx%016d", i))
	}
	m := observe.NewPlatformMetrics(reg, ids, func() (all []platform.Status) {
		for _, id := range ids {
			all = append(all, platform.Status{ID: id, Kind: platform.OpenPlatform, TicketLife: time.Hour, Authorizers: map[vault.State]int{}})
		}
		return all
	})
	for _, id := range ids {
		for _, infoType := range []string{wechat.PushTicket, wechat.PushAuthorized, wechat.PushUpdated, wechat.PushUnauthorized, "other"} {
			m.Observe(platform.Event{Platform: id, What: platform.EventPush, Label: infoType})
			m.Observe(platform.Event{Platform: id, What: platform.EventPush, Label: infoType, Err: errors.New("away")})
		}
		for _, label := range []string{"added", "replaced", "unchanged", "unlisted"} {
			m.Observe(platform.Event{Platform: id, What: platform.EventRecovery, Label: label})
		}
	}
	store := m.Vault(hasty{})
	_, _ = store.Load(t.Context(), "", "") // they take what they take
	_, _ = store.Save(t.Context(), vault.Row{})
	_, _ = store.List(t.Context(), "", "", 1)
	_, _ = store.Codes(t.Context(), "")
	if n := len(exposition(t, reg)); n > 96<<10 {
		t.Errorf("they have %d bytes", n)
	}
}
