package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source/sourcetest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// strangers is the number of requests: a million with WXTOKEN_LONG=1, as make histories sets it.
func strangers() int {
	if os.Getenv("WXTOKEN_LONG") == "1" {
		return 1_000_000
	}
	return 50_000
}

// strange are requests for what there is not, or that must not be kept, each another one for each
// n. Each is with the status that answers it.
var strange = []struct {
	name   string
	status int
	make   func(n int) (method, path, query, body string)
}{
	{"unknown app", 404, func(n int) (_, _, _, _ string) { return "GET", fmt.Sprintf("/v1/apps/wxs%015x/token", n), "", "" }},
	{"report for an unknown app", 404, func(n int) (_, _, _, _ string) {
		return "POST", fmt.Sprintf("/v1/apps/wxs%015x/token/report", n), "", fmt.Sprintf(`{"access_token":"97_%d","errcode":40001}`, n)
	}},
	{"report of what never was a token", 200, func(n int) (_, _, _, _ string) {
		return "POST", "/v1/apps/shop/token/report", "", fmt.Sprintf(`{"access_token":"97_garbage-%d","errcode":40001}`, n)
	}},
	{"report that is none", 400, func(n int) (_, _, _, _ string) {
		return "POST", "/v1/apps/shop/token/report", "", fmt.Sprintf(`{"access_token":"%d"`, n)
	}},
	{"unknown path", 200, func(n int) (_, _, _, _ string) { return "GET", fmt.Sprintf("/v2/%d/%x", n, n), "", "" }},
	{"unknown method", 405, func(n int) (_, _, _, _ string) { return fmt.Sprintf("M%d", n), tokenPath, "", "" }},
	{"unknown ticket", 404, func(n int) (_, _, _, _ string) { return "GET", fmt.Sprintf("/v1/apps/shop/tickets/t%d", n), "", "" }},
	{"page to sign", 200, func(n int) (_, _, _, _ string) {
		return "POST", "/v1/apps/shop/jssdk", "", fmt.Sprintf(`{"url":"https://h%d.example/%d"}`, n, n)
	}},
	{"drop-in token", 200, func(n int) (_, _, _, _ string) {
		return "GET", "/cgi-bin/token", fmt.Sprintf("grant_type=client_credential&appid=wxs%015x&secret=%d", n, n), ""
	}},
	{"drop-in token with a wrong secret", 200, func(n int) (_, _, _, _ string) {
		return "GET", "/cgi-bin/token", fmt.Sprintf("grant_type=client_credential&appid=%s&secret=%d", strict.ID, n), ""
	}},
	{"drop-in stable_token", 200, func(n int) (_, _, _, _ string) {
		return "POST", "/cgi-bin/stable_token", "", fmt.Sprintf(`{"grant_type":"client_credential","appid":"wxs%015x","secret":"%d","force_refresh":true}`, n, n)
	}},
	{"drop-in gettoken", 200, func(n int) (_, _, _, _ string) {
		return "GET", "/cgi-bin/gettoken", fmt.Sprintf("corpid=wws%015x&corpsecret=%d", n, n), ""
	}},
	{"drop-in getticket", 200, func(n int) (_, _, _, _ string) {
		return "GET", "/cgi-bin/ticket/getticket", fmt.Sprintf("access_token=97_%d&type=jsapi", n), ""
	}},
	{"proxy of an unknown app", 404, func(n int) (_, _, _, _ string) {
		return "GET", fmt.Sprintf("/proxy/wxs%015x/cgi-bin/menu/get", n), fmt.Sprintf("x=%d", n), ""
	}},
	{"plain call of an unknown app", 200, func(n int) (_, _, _, _ string) {
		return "POST", fmt.Sprintf("/cgi-bin/message/%d", n), fmt.Sprintf("appid=wxs%015x", n), "{}"
	}},
	{"unknown host", 403, func(n int) (_, _, _, _ string) { return "GET", tokenPath, fmt.Sprintf("host=%d", n), "" }},
	{"odd target", 400, func(n int) (_, _, _, _ string) { return "GET", fmt.Sprintf("/v1/apps/%d/../x", n), "", "" }},
}

// A caller of the listener can name as many apps, pages and hosts as it likes. None of that may be
// remembered, counted by its name, or sent anywhere.
func TestAMillionRequestsForUnknownThingsLeaveNothingBehind(t *testing.T) {
	// Not parallel: the heap is the process's.
	registry := prometheus.NewPedanticRegistry()
	metrics := observe.NewMetrics(registry)
	s := sourcetest.New(t, sourcetest.Options{Observe: metrics.Observe}, plain, strict, lone)
	var asked atomic.Int64 // of WeChat
	s.WeChat.Tune(func(k *wechattest.Knobs) {
		k.LatencyFunc = func(*http.Request) time.Duration { asked.Add(1); return 0 }
	})
	registry.MustRegister(metrics.Collector(s.Cache.Status), observe.NewRedisCollector(s.Cache.Health))
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.DebugLevel))
	for _, a := range []config.App{plain, strict} {
		metrics.Track(source.Key(a))
	}
	forward := proxy.New(s.Cache, s.Apps.Load, proxy.Options{
		Transport: counting(func(*http.Request) (*http.Response, error) { asked.Add(1); return nil, io.EOF }),
		Observe:   func(r proxy.Result) { metrics.Proxied(r.App, string(r.Outcome), observe.Once) },
	})
	defer forward.Close()
	handler := api.New(s.Cache, s.Apps.Load().Lookup, api.Options{Apps: s.Apps.Load, Bearer: func() secret.String { return secret.String{} },
		Proxy: forward, Plain: forward.Plain(), Metrics: metrics, Log: log})

	request := func(n int) {
		one := strange[n%len(strange)]
		method, path, query, body := one.make(n)
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "127.0.0.1:7200",
			Header: http.Header{"X-Wxtoken-App": {fmt.Sprintf("app%d", n)}, "User-Agent": {fmt.Sprintf("agent/%d", n)}}, Body: io.NopCloser(bytes.NewReader([]byte(body))), ContentLength: int64(len(body))}
		if one.status == 403 {
			r.Host = fmt.Sprintf("h%d.example", n)
		}
		w := answerTo{header: http.Header{}}
		handler.ServeHTTP(&w, r.WithContext(context.Background()))
		if w.status != one.status {
			t.Fatalf("%s, %s %s: got %d, want %d: %s", one.name, method, path, w.status, one.status, w.body)
		}
		var said struct{ Errcode int }
		if _ = json.Unmarshal(w.body, &said); one.name[:4] == "drop" && said.Errcode == 0 {
			t.Fatalf("%s: %s", one.name, w.body)
		}
	}
	s.Token(t, plain)
	s.Token(t, strict)
	s.Ticket(t, plain, "jsapi")
	const warmUp = 5_000
	for n := range warmUp {
		request(n)
	}
	var commands atomic.Int64 // of Redis
	s.Redis.Server().SetPreHook(func(*server.Peer, string, ...string) bool { commands.Add(1); return false })
	before, goroutines, series, calls := heap(), runtime.NumGoroutine(), seriesOf(t, registry), asked.Load()
	start, strangers := time.Now(), strangers()
	for n := warmUp; n < warmUp+strangers; n++ {
		request(n)
	}
	took := time.Since(start)
	after := heap()
	t.Logf("%d requests in %v: the heap went from %d to %d KiB, %d series, %d commands for Redis", strangers, took.Round(time.Millisecond), before>>10, after>>10, series, commands.Load())
	// Half a byte for each request: what remembers one takes more than that.
	if after > before+max(64<<10, uint64(strangers)/2) {
		t.Errorf("the heap went from %d to %d bytes", before, after)
	}
	if got := seriesOf(t, registry); got != series {
		t.Errorf("%d series, were %d", got, series)
	}
	if got := asked.Load(); got != calls {
		t.Errorf("WeChat was asked %d times", got-calls)
	}
	// A reported value that this replica does not know may be newer than its snapshot: such reports
	// share a look each 100 ms, a script of some 20 commands. Nothing else asks Redis.
	if got, most := commands.Load(), 30*(int64(took/(100*time.Millisecond))+1); got > most {
		t.Errorf("Redis got %d commands, want at most %d", got, most)
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines, were %d", got, goroutines)
	}
	runtime.KeepAlive(handler)
}

// heap returns the bytes that are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what a pool holds survives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func seriesOf(t *testing.T, g prometheus.Gatherer) (n int) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		n += len(f.Metric)
	}
	return n
}

// answerTo is the answer to one request.
type answerTo struct {
	header http.Header
	status int
	body   []byte
}

func (a *answerTo) Header() http.Header { return a.header }

func (a *answerTo) WriteHeader(status int) { a.status = status }

func (a *answerTo) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

type counting func(*http.Request) (*http.Response, error)

func (f counting) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
