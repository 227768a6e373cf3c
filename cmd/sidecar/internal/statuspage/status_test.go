package statuspage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

const browserAccepts = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

func key(app, kind string) tokencache.Key { return tokencache.Key{App: app, Kind: kind} }

// good is a credential with nothing wrong.
func good(app, kind string) tokencache.Status {
	return tokencache.Status{Key: key(app, kind), Known: true, Fresh: true, Version: 7, ExpiresIn: 2 * time.Hour,
		RenewIn: 90 * time.Minute, KeyIn: 119 * time.Minute, Confirmed: 3 * time.Second}
}

func wrongSecret(app string) tokencache.Status {
	return tokencache.Status{Key: key(app, "access_token"), Backoff: 90 * time.Second, RenewIn: 90 * time.Second,
		Err: &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125, Message: "invalid appsecret: " +
			"The AppSecret is wrong: mistyped, or reset in the console since. Configure the present AppSecret; WeChat shows none again, so if it is lost, reset it."}}
}

func statusOf(all ...tokencache.Status) func() []tokencache.Status {
	return func() []tokencache.Status { return all }
}

func seen(c tokencache.Journal, err error) func(context.Context, int) (tokencache.Journal, error) {
	return func(context.Context, int) (tokencache.Journal, error) { return c, err }
}

// page returns the page's markup and what can be read on it.
func page(t *testing.T, o statuspage.Options) (markup, text string) {
	t.Helper()
	w := webtest.Serve(statuspage.New(o), "GET", "/status", "", "Accept", browserAccepts)
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %v", w.Code, w.Header())
	}
	markup = w.Body.String()
	wantWellFormed(t, markup)
	_, body, _ := strings.Cut(markup, "</head>")
	text = html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))
	return markup, strings.Join(strings.Fields(text), " ")
}

// wantWellFormed wants every tag closed in its turn, and every attribute quoted: where it is not,
// escaping a text is not enough.
func wantWellFormed(t *testing.T, markup string) {
	t.Helper()
	tag := regexp.MustCompile(`<(/?)([a-z][a-z0-9]*)(?: [a-z][a-z0-9-]*="[^"<>]*")*(/?)>`)
	body, ok := strings.CutPrefix(markup, "<!doctype html>")
	if rest := tag.ReplaceAllString(body, ""); !ok || strings.Contains(rest, "<") {
		t.Errorf("not all is text or a tag in\n%s", markup)
	}
	var open []string
	for _, m := range tag.FindAllStringSubmatch(body, -1) {
		closes, name, empty := m[1] != "", m[2], m[3] != "" || m[2] == "meta" || m[2] == "link"
		switch {
		case empty:
		case !closes:
			open = append(open, name)
		case len(open) == 0 || open[len(open)-1] != name:
			t.Fatalf("</%s> closes nothing: open are %q in\n%s", name, open, markup)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("left open: %q", open)
	}
}

func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
}

func TestStatusAsJSON(t *testing.T) {
	read := time.Now()
	h := statuspage.New(statuspage.Options{
		Apps: func() *apps.Set {
			return apps.New("", apps.App{Key: key("wx1", "access_token"), Alias: "shop"})
		},
		Status: statusOf(wrongSecret("wx2"),
			tokencache.Status{Key: key("wx1", "jsapi_ticket"), Known: true, InDoubt: true, Rejected: true, ForeignRefresher: true,
				Version: 6, ExpiresIn: 1500 * time.Millisecond},
			good("wx1", "access_token")),
		Journal: seen(tokencache.Journal{
			Replica: "pod-1", Reachable: true, Took: 2 * time.Millisecond, Listeners: 2,
			Entries: []tokencache.Entry{
				{Key: key("wx1", "access_token"), By: "pod-2", Reason: tokencache.ReasonDue, Result: tokencache.ResultCommitted, Version: 7, Took: 300 * time.Millisecond, Age: 3 * time.Minute},
				{Key: key("wx2", "access_token"), By: "pod-1", Reason: tokencache.ReasonMissing, Result: tokencache.ResultFailed, Code: 40125, Backoff: 90 * time.Second, Age: time.Hour},
				{Key: key("wx1", "access_token"), By: "pod-2", Reason: tokencache.ReasonReport, Result: tokencache.ResultAccepted, Age: 2 * time.Hour},
			},
		}, nil),
		Health: func() tokencache.Health { return tokencache.Health{Subscribed: true} },
		Configuration: func() statuspage.Configuration {
			return statuspage.Configuration{Warnings: []string{"w"}, Read: read, Err: errors.New("apps[0].id: is empty")}
		},
		Stopping: func() bool { return true },
	})
	w := webtest.Serve(h, "GET", "/status", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Vary") != "Accept" {
		t.Fatalf("got %d %v", w.Code, w.Header())
	}
	var got, want map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "version") // of the build
	delete(got, "revision")
	const golden = `{"started": true, "stopping": true, "uptime": 0, "level": "trouble", "replica": "pod-1",
	"problems": [
	  {"level": "trouble", "what": "WeChat rejects the value, and there is no other yet.", "credentials": ["wx1/jsapi_ticket"],
	   "fix": "Wait a moment: the report that found it out has started a refresh."},
	  {"level": "trouble", "errcode": 40125, "what": "WeChat answers 40125: invalid appsecret", "retry_in": 90, "credentials": ["wx2/access_token"],
	   "fix": "The AppSecret is wrong: mistyped, or reset in the console since. Configure the present AppSecret; WeChat shows none again, so if it is lost, reset it."},
	  {"level": "attention", "what": "Values are rejected soon after they were fetched: probably another program refreshes this app.", "credentials": ["wx1/jsapi_ticket"],
	   "fix": "Find the program that fetches tokens with this app's secret, and stop it; or use stable_token, whose tokens other programs cannot invalidate."},
	  {"level": "attention", "what": "The new configuration is not valid, so the old one stays: apps[0].id: is empty", "fix": "Correct it. It is read again by itself."}],
	"apps": [
	  {"id": "wx1", "alias": "shop", "credentials": [
	    {"kind": "access_token", "state": "fresh", "condition": "fresh", "version": 7, "expires_in": 7200, "renew_in": 5400, "leaves_redis_in": 7140,
	     "confirmed": 3, "in_doubt": false, "rejected": false, "foreign_refresher": false},
	    {"kind": "jsapi_ticket", "state": "stale", "condition": "rejected", "version": 6, "expires_in": 1, "renew_in": 0, "leaves_redis_in": 0,
	     "confirmed": 0, "in_doubt": true, "rejected": true, "foreign_refresher": true}]},
	  {"id": "wx2", "credentials": [
	    {"kind": "access_token", "state": "missing", "condition": "backing off", "version": 0, "expires_in": 0, "renew_in": 90, "leaves_redis_in": 0,
	     "confirmed": 0, "in_doubt": false, "rejected": false, "foreign_refresher": false,
	     "backoff": 90, "error": "upstream error 40125: invalid appsecret: The AppSecret is wrong: mistyped, or reset in the console since. Configure the present AppSecret; WeChat shows none again, so if it is lost, reset it."}]}],
	"redis": {"reachable": true, "took_ms": 2, "confirmed": 0, "listening": true, "listeners": 2},
	"configuration": {"warnings": ["w"], "reload": {"age": 0, "ok": false, "error": "apps[0].id: is empty"}},
	"replicas": [{"name": "pod-2", "age": 180, "entries": 2}, {"name": "pod-1", "this": true, "age": 3600, "entries": 1}],
	"journal": {"entries": [
	  {"age": 180, "app": "wx1", "kind": "access_token", "by": "pod-2", "reason": "due", "result": "committed", "version": 7, "took_ms": 300},
	  {"age": 3600, "app": "wx2", "kind": "access_token", "by": "pod-1", "reason": "missing", "result": "failed", "took_ms": 0, "errcode": 40125, "backoff": 90},
	  {"age": 7200, "app": "wx1", "kind": "access_token", "by": "pod-2", "reason": "report", "result": "accepted", "took_ms": 0}]}}`
	if err := json.Unmarshal([]byte(golden), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatusOfNothingIsAnEmptyList(t *testing.T) {
	o := statuspage.Options{Started: func() (bool, string) { return false, "the listener" }}
	w := webtest.Serve(statuspage.New(o), "GET", "/status", "")
	if got := w.Body.String(); !strings.Contains(got, `"apps": []`) || !strings.Contains(got, `"missing": "the listener"`) {
		t.Errorf("got %s", got)
	}
	_, text := page(t, o)
	wantAll(t, text, "No app is configured.", "The start is not over: the listener.")
}

func TestBrowsersGetThePageAndEverybodyElseJSON(t *testing.T) {
	h := statuspage.New(statuspage.Options{Status: statusOf(good("wx1", "access_token"))})
	for _, c := range []struct{ target, accept, want string }{
		{"/status", browserAccepts, "text/html; charset=utf-8"},
		{"/status", "text/html", "text/html; charset=utf-8"},
		{"/status", "application/json;q=0.5, Text/HTML", "text/html; charset=utf-8"},
		{"/status?refresh", "text/html", "text/html; charset=utf-8"},
		{"/status", "", "application/json"},
		{"/status", "*/*", "application/json"},
		{"/status", "text/plain", "application/json"},
		{"/status", "application/json, text/html;q=0.9", "application/json"},
		{"/status", "text/html;q=0", "application/json"},
		{"/status?format=html", "application/json", "text/html; charset=utf-8"},
		{"/status?format=json", browserAccepts, "application/json"},
	} {
		var headers []string
		if c.accept != "" {
			headers = []string{"Accept", c.accept}
		}
		w := webtest.Serve(h, "GET", c.target, "", headers...)
		if got := w.Header().Get("Content-Type"); w.Code != 200 || got != c.want {
			t.Errorf("%s, Accept %q: got %d %s, want %s", c.target, c.accept, w.Code, got, c.want)
		}
		if w := webtest.Serve(h, "HEAD", c.target, "", headers...); w.Body.Len() > 0 || w.Header().Get("Content-Type") != c.want {
			t.Errorf("HEAD %s: %d bytes, %v", c.target, w.Body.Len(), w.Header())
		}
	}
	webtest.WantProblem(t, webtest.Serve(h, "GET", "/status?format=xml", ""), 400, "bad-request")
}

func TestThePageIsLockedDown(t *testing.T) {
	w := webtest.Serve(statuspage.New(statuspage.Options{}), "GET", "/status?format=html&refresh=30", "")
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	body := w.Body.String()
	// A style attribute or an inline handler would need more than the policy allows.
	if m := regexp.MustCompile(`(?i)<script|\sstyle=|\son\w+=|https?:`).FindString(body); m != "" {
		t.Errorf("the page has %q", m)
	}
	wantAll(t, body, `<meta http-equiv="refresh" content="30">`, `lang="en"`, "<main>", "prefers-color-scheme: dark", "width=device-width")
	if again := webtest.Serve(statuspage.New(statuspage.Options{}), "GET", "/status?format=html", ""); strings.Contains(again.Body.String(), `http-equiv="refresh"`) {
		t.Error("the page refreshes itself unasked")
	}
}

func TestThePageSaysHowItIs(t *testing.T) {
	apps := func() *apps.Set {
		return apps.New("", apps.App{Key: key("wx1", "access_token"), Alias: "shop"}, apps.App{Key: key("ww1:100", "access_token"), Platform: apps.WeCom})
	}
	refused := good("wx1", "access_token")
	refused.Err = &tokencache.UnavailableError{Key: refused.Key, Err: &tokencache.FetchError{Class: tokencache.ClassLocal, Code: 40164,
		Message: "invalid ip 203.0.113.66 ipv6 ::ffff:203.0.113.66, not in whitelist: Add it."}}
	late := good("wx1", "access_token")
	late.Backoff, late.RenewIn, late.Err = 42*time.Second, 0, &tokencache.FetchError{Class: tokencache.ClassTransient, Code: -1, Message: "system error"}
	forgotten := good("wx1", "access_token") // it failed once, and another replica did it
	forgotten.Err = late.Err
	doubt := tokencache.Status{Key: key("wx1", "access_token"), Known: true, InDoubt: true, Fresh: true, ExpiresIn: 3 * time.Minute, KeyIn: 3 * time.Minute}
	stale := tokencache.Status{Key: key("wx1", "access_token"), Known: true, ExpiresIn: time.Hour, Confirmed: 5 * time.Minute}
	due := good("wx1", "access_token")
	due.RenewIn = -time.Second
	limited := tokencache.Status{Key: key("wx1", "access_token"), Backoff: 5 * time.Minute, Err: tokencache.ErrLimited}
	corp := tokencache.Status{Key: key("ww1:100", "access_token"), Err: &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40001, Message: "m"}}
	for name, c := range map[string]struct {
		status tokencache.Status
		want   []string
	}{
		"well":      {good("wx1", "access_token"), []string{"All well. One credential, and it is good.", "shop wx1", "access_token fresh", "2 h left renews in 1 h 30 min"}},
		"due":       {due, []string{"All well.", "due", "renews now"}},
		"forgotten": {forgotten, []string{"All well."}},
		"secret":    {wrongSecret("wx1"), []string{"Trouble. 1 credential cannot be served.", "40125", "The AppSecret is wrong", "Concerns shop/access_token", "backing off", "asked again in 1 min 30 s"}},
		"address":   {refused, []string{"Attention. Everything is served", "IP whitelist", "as WeChat sees it: 203.0.113.66", "fresh"}},
		"backoff":   {late, []string{"Attention.", "WeChat answers -1: system error", "tried again by itself", "due backing off", "asked again in 42 s"}},
		"doubt":     {doubt, []string{"Attention.", "in doubt", "3 min left"}},
		"stale":     {stale, []string{"Attention.", "stale", "has not been confirmed"}},
		"limited":   {limited, []string{"Trouble.", "allowance", "fetches_per_day", "asked again in 5 min"}},
		"start":     {tokencache.Status{Key: key("wx1", "access_token")}, []string{"Starting.", "not been looked for yet", "missing"}},
		"wecom":     {corp, []string{"WeCom answers 40001: m", "The secret is wrong"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, text := page(t, statuspage.Options{Apps: apps, Status: statusOf(c.status)})
			wantAll(t, text, c.want...)
		})
	}
}

func TestTheBarsCanBeReadWithoutEyes(t *testing.T) {
	markup, _ := page(t, statuspage.Options{Status: statusOf(good("wx1", "access_token"))})
	wantAll(t, markup, `role="meter" aria-label="Life left of access_token" aria-valuemin="0" aria-valuemax="7200" aria-valuenow="7200" aria-valuetext="2 h"`,
		`<rect class="life" width="100.00%"`, `<line class="renew" x1="25.00%"`, `<rect class="margin" width="0.83%"`)
}

func TestStatusTellsOfRedisAndWaitsForItNoLongerThanItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		away := statuspage.Options{
			Status: statusOf(good("wx1", "access_token")),
			Journal: func(ctx context.Context, _ int) (tokencache.Journal, error) {
				asked++
				<-ctx.Done()
				return tokencache.Journal{Replica: "pod-1", Listeners: -1}, &tokencache.StoreError{Op: "journal", Err: ctx.Err()}
			},
		}
		start := time.Now()
		_, text := page(t, away)
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("took %v, want 300ms", took)
		}
		wantAll(t, text, "Attention.", "Redis does not answer in time.", "Bring Redis back.", "Credentials read3 s ago", "2 h left")

		// Who asks at once shares one look.
		h := statuspage.New(away)
		asked = 0
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { webtest.Serve(h, "GET", "/status", "") })
		}
		wg.Wait()
		if asked != 1 {
			t.Errorf("Redis was asked %d times, want once", asked)
		}
	})
}

func TestRedisErrorsAreToldInWords(t *testing.T) {
	for want, c := range map[string]struct {
		reachable bool
		err       error
	}{
		"its address refuses connections":                   {false, &tokencache.StoreError{Op: "journal", Err: fmt.Errorf("dial: %w", syscall.ECONNREFUSED)}},
		"user or password are wrong":                        {true, &tokencache.StoreError{Op: "journal", Err: redisError("WRONGPASS invalid username-password pair")}},
		"It says: NOPERM no":                                {true, &tokencache.StoreError{Op: "journal", Err: redisError("NOPERM no")}},
		"it reads its data":                                 {true, &tokencache.StoreError{Op: "journal", Err: redisError("LOADING Redis is loading")}},
		"Redis: something <new>":                            {true, &tokencache.StoreError{Op: "journal", Err: errors.New("redis: something <new>")}},
		"no permission to read the journal: add +xrevrange": {true, tokencache.ErrJournalDenied},
	} {
		_, text := page(t, statuspage.Options{Journal: seen(tokencache.Journal{Reachable: c.reachable, Listeners: -1}, c.err)})
		wantAll(t, text, want)
		if c.reachable != strings.Contains(text, "Nowanswers") {
			t.Errorf("%q: whether Redis is there is wrong in\n%s", want, text)
		}
		if denied := errors.Is(c.err, tokencache.ErrJournalDenied); denied != strings.Contains(text, "All well.") {
			t.Errorf("%q: how it is is wrong in\n%s", want, text)
		}
	}
}

func TestEventsThatDoNotArriveAreAProblem(t *testing.T) {
	refused := &tokencache.StoreError{Op: "watch", Err: redisError("ERR unknown command 'subscribe'")}
	_, text := page(t, statuspage.Options{
		Journal: seen(tokencache.Journal{Reachable: true, Listeners: -1}, nil),
		Health:  func() tokencache.Health { return tokencache.Health{SubscribeErr: refused} },
	})
	wantAll(t, text, "Attention.", "The events of the other replicas do not arrive. Redis: ERR unknown command 'subscribe'", "permit SUBSCRIBE", "do not arrive")
}

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

func TestTheTimelineSaysWhoDidWhatAndWhy(t *testing.T) {
	_, text := page(t, statuspage.Options{
		Status: statusOf(good("wx1", "access_token")),
		Journal: seen(tokencache.Journal{Replica: "pod-1", Reachable: true, Listeners: 3, Entries: []tokencache.Entry{
			{Key: key("wx1", "access_token"), By: "pod-2", Reason: tokencache.ReasonDue, Result: tokencache.ResultCommitted, Took: 1300 * time.Millisecond, Age: 3 * time.Minute},
			{Key: key("wx1", "access_token"), By: "pod-1", Reason: tokencache.ReasonReport, Result: tokencache.ResultFailed, Code: 40243, Backoff: time.Minute, Took: 30 * time.Millisecond, Age: 5 * time.Hour},
			{Key: key("wx1", "later_kind"), By: "pod-1", Reason: "later reason", Result: "later result", Age: 50 * time.Hour},
		}}, nil),
	})
	wantAll(t, text, "3 min ago wx1 access_token it was time new value 1.3 s pod-2", "5 h ago", "an app reported it", "failed 40243 wait 1 min", "Unfreeze it", "30 ms",
		"2 days ago", "later reason", "later result", "pod-1 this one", "Listeners3")
}

// Nothing that others may write makes markup.
func TestHostileTextIsShownAsText(t *testing.T) {
	const hostile = `</p><script>alert(1)</script><img src=x onerror=alert(1)>"'`
	bad := wrongSecret("wx1")
	bad.Err = &tokencache.FetchError{Code: 40125, Message: hostile}
	other := wrongSecret("wx2")
	other.Err = errors.New(hostile)
	o := statuspage.Options{
		Status: statusOf(bad, other),
		Apps:   func() *apps.Set { return apps.New("", apps.App{Key: key("wx1", "access_token"), Alias: hostile}) },
		Journal: seen(tokencache.Journal{Replica: hostile, Reachable: true, Entries: []tokencache.Entry{
			{Key: key("wx1", "access_token"), By: hostile, Reason: hostile, Result: hostile},
		}}, &tokencache.StoreError{Err: errors.New(hostile)}),
		Configuration: func() statuspage.Configuration {
			return statuspage.Configuration{Warnings: []string{hostile}, Read: time.Now(), Err: errors.New(hostile), NeedsRestart: []string{hostile}}
		},
		Started: func() (bool, string) { return false, hostile },
		Platforms: func() []platform.Status {
			return []platform.Status{{ID: hostile, Kind: hostile, Vault: errors.New(hostile), Worst: []platform.Account{{ID: hostile, State: hostile, Since: time.Hour}}}}
		},
	}
	markup, text := page(t, o)
	for _, tag := range []string{"<script", "<img", "onerror=alert(1)>"} {
		if strings.Contains(markup, tag) {
			t.Errorf("the page has %s", tag)
		}
	}
	if n := strings.Count(text, "<script>alert(1)</script>"); n < 14 {
		t.Errorf("the text can be read %d times in\n%s", n, text)
	}
}

func TestOfManyAppsThoseWithProblemsComeFirst(t *testing.T) {
	var all []tokencache.Status
	for i := range 100 {
		app := fmt.Sprintf("wx%03d", i)
		if i%40 == 33 {
			all = append(all, wrongSecret(app))
			continue
		}
		all = append(all, good(app, "access_token"))
	}
	late := good("wx090", "access_token")
	late.Err, late.Backoff = errors.New("x"), time.Second
	all[90] = late
	perApp := 0
	markup, text := page(t, statuspage.Options{Status: statusOf(all...), Journal: func(_ context.Context, n int) (tokencache.Journal, error) {
		perApp = n
		return tokencache.Journal{Reachable: true}, nil
	}})
	wantAll(t, text, "Trouble. 2 of 100 apps cannot be served.", "Concerns wx033/access_token, wx073/access_token")
	if n := strings.Count(text, "The AppSecret is wrong"); n != 1 {
		t.Errorf("one problem is told %d times", n)
	}
	rows := regexp.MustCompile(`<h3><code>(wx\d+)</code></h3>`).FindAllStringSubmatch(markup, -1)
	if len(rows) != 100 || rows[0][1] != "wx033" || rows[1][1] != "wx073" || rows[2][1] != "wx090" || rows[3][1] != "wx000" {
		t.Errorf("%d rows, the first %v", len(rows), rows[:4])
	}
	if perApp != 3 {
		t.Errorf("%d entries asked of each of 100 journals, want 3", perApp)
	}
}

func TestAProblemOfManyCredentialsNamesTheFirst(t *testing.T) {
	var all []tokencache.Status
	for i := range 9 {
		all = append(all, wrongSecret(fmt.Sprintf("wx%d", i)))
	}
	_, text := page(t, statuspage.Options{Status: statusOf(all...)})
	wantAll(t, text, "wx4/access_token, wx5/access_token and 3 more")
}

func TestThePageSaysWhichConfigurationIsInForce(t *testing.T) {
	for want, c := range map[string]statuspage.Configuration{
		"Readat the start":     {},
		"just now in force":    {Read: time.Now()},
		"not valid The old":    {Read: time.Now(), Err: errors.New("x")},
		"PROXY_PORT, API_PORT": {Read: time.Now(), NeedsRestart: []string{"PROXY_PORT", "API_PORT"}},
	} {
		_, text := page(t, statuspage.Options{Configuration: func() statuspage.Configuration { return c }})
		wantAll(t, text, want)
	}
}

// The page is made while the set of apps changes and the process stops.
func TestStatusMayBeAskedAtAnyTime(t *testing.T) {
	var stopping atomic.Bool
	h := statuspage.New(statuspage.Options{Status: statusOf(good("wx1", "access_token")), Stopping: stopping.Load,
		Journal: seen(tokencache.Journal{Reachable: true, Entries: []tokencache.Entry{{Key: key("gone", "access_token"), Result: "failed", Code: 40125}}}, nil)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if w := webtest.Serve(h, "GET", "/status?format=html", ""); w.Code != 200 {
					t.Error(w.Code)
				}
			}
		})
	}
	stopping.Store(true)
	wg.Wait()
	w := webtest.Serve(h, "GET", "/status?format=html", "")
	wantAll(t, w.Body.String(), "This replica is stopping.")
}

func TestStatusReadsRedisOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := statuspage.New(statuspage.Options{Journal: func(context.Context, int) (tokencache.Journal, error) {
			asked++
			return tokencache.Journal{Reachable: true}, nil
		}})
		for range 100 { // for 10 s, and one at its end
			if w := webtest.Serve(h, "GET", "/status", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"reachable": true`) {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if asked != 10 {
			t.Errorf("100 requests in 10 s asked Redis %d times, want 10", asked)
		}
	})
}
