package statuspage

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// What a person reads of a failed refresh: whose fault it is, and what to do.
func TestAFailedRefreshIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		platform      apps.Platform
		kind          string
		err           error
		what, fix, ip string
		errcode       int
	}{
		"an errcode": {apps.WeChat, kindToken, &tokencache.FetchError{Code: 40125, Message: "invalid appsecret"},
			"WeChat answers 40125: invalid appsecret", "ecret", "", 40125},
		"an address": {apps.WeChat, kindToken, &tokencache.FetchError{Code: 40164, Message: "invalid ip 198.51.100.7, not in whitelist"},
			"WeChat answers 40164", "hitelist", "198.51.100.7", 40164},
		"of WeCom":     {apps.WeCom, kindToken, &tokencache.FetchError{Code: 40001, Message: "invalid credential"}, "WeCom answers 40001", "", "", 40001},
		"no errcode":   {apps.WeCom, kindToken, &tokencache.FetchError{Message: "the vault cannot be read"}, "WeCom gives no token: the vault cannot be read", "Nothing yet", "", 0},
		"an allowance": {apps.WeChat, kindToken, tokencache.ErrLimited, "allowance of calls is spent", "fetches_per_day", "", 0},
		"a deadline":   {apps.WeChat, kindToken, context.DeadlineExceeded, "did not end in time", "Nothing yet", "", 0},
		"the end":      {apps.WeChat, kindToken, tokencache.ErrClosed, "is stopping", "another replica", "", 0},
		"another one":  {apps.WeCom, kindToken, errors.New("something else"), "something else", "whether WeCom can be reached", "", 0},
	} {
		var p problemStatus
		p.explain(c.platform, c.kind, c.err)
		if !strings.Contains(p.What, c.what) || !strings.Contains(p.Fix, c.fix) || p.Fix == "" || p.Errcode != c.errcode || p.Address != c.ip {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// A ticket can fail by its own call or by the token's: the advice is that of the one that knows the
// code.
func TestTheAdviceForATicketIsThatOfItsCall(t *testing.T) {
	for _, platform := range []apps.Platform{apps.WeChat, apps.WeCom} {
		if advice(platform, kindToken, 1) != "" || advice(platform, "jsapi_ticket", 1) != "" {
			t.Errorf("%v: there is advice for a code that nothing is known of", platform)
		}
	}
	if got, want := advice(apps.WeChat, "jsapi_ticket", 40164), advice(apps.WeChat, kindToken, 40164); got == "" || got != want {
		t.Errorf("of an address: %q, want %q", got, want)
	}
}

// The timeline has words for each result and reason. None is the name that the journal has for it.
func TestTheTimelineHasWordsForEachResult(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range []tokencache.Result{
		tokencache.ResultCut, tokencache.ResultDoubtResolved, tokencache.ResultLeaseCapped, tokencache.ResultDiscarded, tokencache.ResultCommitted, tokencache.ResultUnchanged,
		tokencache.ResultFailed, tokencache.ResultOrphaned, tokencache.ResultRefused, tokencache.ResultThrottled, tokencache.ResultAccepted, tokencache.ResultUnknown,
	} {
		words := resultWords(r, "")
		if seen[words] || words == string(r) && r != tokencache.ResultFailed {
			t.Errorf("%s: %q", r, words)
		}
		seen[words] = true
	}
	if words := resultWords(tokencache.ResultCut, tokencache.ResultFetch); seen[words] {
		t.Errorf("a fetch that has begun: %q", words)
	}
	for _, r := range []tokencache.Reason{tokencache.ReasonMissing, tokencache.ReasonDue, tokencache.ReasonReport} {
		if words := reasonWords(r); words == string(r) {
			t.Errorf("%s has no words", r)
		}
	}
	// A newer replica may write what this one does not know.
	if resultWords("new", "") != "new" || reasonWords("new") != "new" {
		t.Error("what is not known is not shown as it is")
	}
}

// An account is shown by what a person can do: only what WeChat refuses is trouble.
func TestWhatAnAccountsStateLooksLike(t *testing.T) {
	for state, want := range map[vault.State]struct {
		words string
		level level
	}{
		vault.StateActive: {"failing", levelAttention}, vault.StateRefused: {"refused", levelTrouble}, vault.StateWithdrawn: {"withdrawn", "plain"},
	} {
		a := accountStatus{State: string(state)}
		if accountWords(a) != want.words || accountLevel(a) != want.level {
			t.Errorf("%s: %q, %v", state, accountWords(a), accountLevel(a))
		}
	}
}
