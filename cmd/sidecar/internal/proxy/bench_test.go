package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
)

// BenchmarkProxyBesideBare makes calls through the proxy and through a bare
// httputil.ReverseProxy by turns, on sockets, so that both see the same machine, and reports the
// time of the one as a multiple of the other.
func BenchmarkProxyBesideBare(b *testing.B) {
	for name, body := range map[string][]byte{"Get": nil, "Post1K": bytes.Repeat([]byte("x"), 1<<10)} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, options{})
			r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.Copy(io.Discard, req.Body)
				w.Header().Set("Content-Type", "application/json; encoding=utf-8")
				_, _ = io.WriteString(w, `{"errcode":0,"errmsg":"ok","list":["one","two","three"]}`)
			})
			r.Token(r.t, shop)
			upstream := httptest.NewServer(r.upstream)
			defer upstream.Close()
			target, err := url.Parse(upstream.URL)
			if err != nil {
				b.Fatal(err)
			}
			r.setBase(target.Host)
			bare := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }})
			defer bare.Close()
			ours := proxy.New(r.Cache, r.Apps.Load, proxy.Options{})
			defer ours.Close()
			front := httptest.NewServer(ours)
			defer front.Close()

			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			call := func(url string) time.Duration {
				method := "GET"
				if body != nil {
					method = "POST"
				}
				start := time.Now()
				req, err := http.NewRequest(method, url, bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode != 200 {
					b.Fatal(res.Status)
				}
				return time.Since(start)
			}
			viaOurs, viaBare := front.URL+"/proxy/shop/cgi-bin/x?a=1", bare.URL+"/cgi-bin/x?a=1&access_token=x"
			call(viaOurs)
			call(viaBare)
			var us, them time.Duration
			for b.Loop() {
				us += call(viaOurs)
				them += call(viaBare)
			}
			b.ReportMetric(float64(us)/float64(them), "x-bare")
			b.ReportMetric(float64(us.Nanoseconds())/float64(b.N), "ns/proxy")
			b.ReportMetric(float64(them.Nanoseconds())/float64(b.N), "ns/bare")
		})
	}
}
