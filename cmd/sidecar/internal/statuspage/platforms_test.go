package statuspage_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// healthy is a platform with nothing wrong.
func healthy() platform.Status {
	return platform.Status{ID: "wxp", Kind: platform.OpenPlatform, Ticket: 4 * time.Minute, HasTicket: true, TicketLife: 12 * time.Hour,
		Authorizers: map[vault.State]int{vault.StateActive: 5000, vault.StateRefused: 3, vault.StateWithdrawn: 7}, Counted: time.Minute}
}

func withPlatform(p platform.Status, all ...tokencache.Status) statuspage.Options {
	return statuspage.Options{
		Platforms: func() []platform.Status { return []platform.Status{p} },
		Apps: func() *apps.Set {
			return apps.New("", apps.App{Key: key("wxp", "component_access_token"), Alias: "shops"})
		},
		Status: statusOf(append(all, good("wxp", "component_access_token"))...),
	}
}

// failing is an account's token that cannot be fetched.
func failing(account string, class tokencache.Class, code int, message string) tokencache.Status {
	return tokencache.Status{Key: key("wxp:"+account, "access_token"), Class: class, Code: code, Backoff: time.Minute,
		Err: &tokencache.FetchError{Class: class, Code: code, Message: message}}
}

func TestPlatformsInTheJSON(t *testing.T) {
	p := healthy()
	p.Codes = 1
	p.Worst = []platform.Account{
		{ID: "wxold", State: vault.StateRefused, Since: 48 * time.Hour}, {ID: "wxnew", State: vault.StateRefused, Since: time.Hour},
		{ID: "wxgone", State: vault.StateWithdrawn, Since: 10 * time.Minute},
	}
	rejected := failing("wxold", tokencache.ClassPermanent, 61003, platform.ErrRefused.Error())
	ended := failing("wxgone", tokencache.ClassEnded, 0, "the account has withdrawn the authorisation")
	w := webtest.Serve(statuspage.New(withPlatform(p, good("wxp:wxwell", "access_token"), good("wxp:wxwell", "jsapi_ticket"), rejected, ended,
		failing("wxbusy", tokencache.ClassTransient, -1, "system error"))), "GET", "/status", "")
	var all, want map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	const golden = `{"id": "wxp", "alias": "shops", "kind": "open_platform", "ticket": {"age": 240, "life": 43200},
	"accounts": {"active": 5000, "refused": 3, "withdrawn": 7}, "counted": 60, "kept": 4, "unserved": 2, "codes_waiting": 1,
	"worst": [
	  {"account": "wxold", "state": "refused", "since": 172800, "errcode": 61003, "retry_in": 60,
	   "error": "upstream error 61003: WeChat rejects the authorisation, and has not told that it was withdrawn"},
	  {"account": "wxnew", "state": "refused", "since": 3600},
	  {"account": "wxbusy", "state": "active", "errcode": -1, "error": "upstream error -1: system error", "retry_in": 60},
	  {"account": "wxgone", "state": "withdrawn", "since": 600}]}`
	if err := json.Unmarshal([]byte(golden), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{want}, all["platforms"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Accounts are not among the apps, which are listed one by one.
	if n := len(all["apps"].([]any)); n != 1 {
		t.Errorf("%d apps, want the platform alone", n)
	}
	if all["level"] != "attention" || len(all["problems"].([]any)) != 1 {
		t.Errorf("%v: %v", all["level"], all["problems"])
	}
}

func TestThePageSaysHowAPlatformIs(t *testing.T) {
	with := func(change func(*platform.Status)) platform.Status {
		p := healthy()
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		platform platform.Status
		kept     []tokencache.Status
		want     []string
	}{
		"well":      {healthy(), nil, []string{"All well.", "shops wxp Kindopen_platform", "stored 4 min ago", "5000 active, 3 refused, 7 withdrawn", "Codes waiting0", "Vaultanswers"}},
		"uncounted": {with(func(p *platform.Status) { p.Authorizers = nil }), nil, []string{"All well.", "not counted yet"}},
		"no ticket": {with(func(p *platform.Status) { p.HasTicket = false }), nil, []string{"Attention.", "has pushed no ticket for shops yet", "Wait: it pushes one every 10 minutes", "none yet"}},
		"no ticket for long": {with(func(p *platform.Status) { p.HasTicket, p.Ticket = false, time.Hour }), nil,
			[]string{"Attention.", "no ticket for shops since this replica started, 1 h ago", "sidecar doctor --callback"}},
		"ticket old":  {with(func(p *platform.Status) { p.Ticket = 31 * time.Minute }), nil, []string{"Attention.", "stored 31 min ago: WeChat’s pushes do not arrive", "can be refreshed for 11 h 29 min more"}},
		"ticket dead": {with(func(p *platform.Status) { p.Ticket = 13 * time.Hour }), nil, []string{"Trouble.", "too old to be used"}},
		"a suite's ticket": {with(func(p *platform.Status) { p.Ticket, p.TicketLife = 16*time.Minute, 30*time.Minute }), nil,
			[]string{"Attention.", "can be refreshed for 14 min more"}},
		"vault": {with(func(p *platform.Status) { p.Vault = errors.New("vault: redis: load: refused") }), nil,
			[]string{"Attention.", "The vault does not answer: vault: redis: load: refused", "Bring back the Redis or the database"}},
		"key":     {with(func(p *platform.Status) { p.Vault = fmt.Errorf("x: %w", vault.ErrSealed) }), nil, []string{"Trouble.", "No key of vault.key_file opens", "Put the key back"}},
		"refused": {with(func(p *platform.Status) { p.Authorizers[vault.StateRefused] = 60 }), nil, []string{"Attention.", "WeChat rejects 60 accounts of shops", "no secret is erased"}},
		"codes":   {with(func(p *platform.Status) { p.Codes = 12 }), nil, []string{"Attention.", "12 codes of new accounts of shops wait"}},
		"account": {healthy(), []tokencache.Status{failing("wxbusy", tokencache.ClassTransient, -1, "system error"), failing("wxbusy2", tokencache.ClassTransient, -1, "system error")},
			[]string{"Attention. 2 accounts of a platform cannot be served.", "Concerns wxp:wxbusy/access_token, wxp:wxbusy2/access_token", "2 not served", "wxbusy failing -1"}},
		// Customers who leave are no fault.
		"one rejected": {healthy(), []tokencache.Status{failing("wxold", tokencache.ClassPermanent, 61003, platform.ErrRefused.Error())}, []string{"All well.", "1 not served"}},
		"withdrawn":    {healthy(), []tokencache.Status{failing("wxgone", tokencache.ClassEnded, 0, "x")}, []string{"All well.", "Kept by this replica1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, text := page(t, withPlatform(c.platform, c.kept...))
			wantAll(t, strings.ReplaceAll(text, "'", "’"), c.want...)
		})
	}
}

// However many accounts there are, the page is as long.
func TestThousandsOfAccountsAreNotListed(t *testing.T) {
	p := healthy()
	var all []tokencache.Status
	for i := range 5000 {
		all = append(all, good(fmt.Sprintf("wxp:wx%04d", i), "access_token"))
	}
	for i := range 100 {
		all[i] = failing(fmt.Sprintf("wx%04d", i), tokencache.ClassTransient, -1, "system error")
		p.Worst = append(p.Worst, platform.Account{ID: fmt.Sprintf("wxr%d", i), State: vault.StateRefused, Since: time.Hour})
	}
	markup, text := page(t, withPlatform(p, all...))
	if len(markup) > 32<<10 {
		t.Errorf("the page has %d bytes", len(markup))
	}
	if n := strings.Count(text, "1 h ago"); n != 20 {
		t.Errorf("%d accounts are named, want 20", n)
	}
	wantAll(t, text, "Kept by this replica5000", "There may be more")
}
