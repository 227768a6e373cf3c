package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/ops"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// canaries are a value, a superseded one, a bearer token and the text in the causes of errors.
var canaries = []string{"CANARY-1/+value", "CANARY-2/+value", "CANARY-bearer/+", "CANARY-cause/+"}

// findCanary returns the first canary in text, in whatever form.
func findCanary(text string) string { return secrettest.Find(text, append(canaries, "CANARY")...) }

// A day of everything that goes wrong. Values leave through answers of 200 and through nothing
// else.
func TestNoValueLeavesButInAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fault error
		current, rejected := canaries[0], false
		changing := func(c *tokencache.Credential) {
			c.Overlap, c.Margin = 5*time.Minute, time.Minute
			c.Source = sourceFunc(func() (tokencache.Value, error) {
				if fault != nil {
					return tokencache.Value{}, fault
				}
				return tokencache.Value{Value: secret.New(current), Life: 2 * time.Hour, RenewLeft: 30 * time.Minute}, nil
			})
			c.Probe = func(context.Context, secret.String) error {
				if rejected {
					return tokencache.ErrRejected
				}
				return nil
			}
		}
		bearer := secret.String{}
		s := newStack(t, api.Options{Bearer: func() secret.String { return bearer }}, changing, plain)
		s.registry.MustRegister(s.metrics.Collector(s.Cache.Status))
		ops := ops.New(ops.Options{Gatherer: s.registry, Page: statuspage.Options{Status: s.Cache.Status, Journal: s.Cache.Journal, Health: s.Cache.Health}})
		var console strings.Builder
		events := observe.LogEvents(zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&console), zap.DebugLevel)))

		seen := 0
		check := func(w *httptest.ResponseRecorder) {
			t.Helper()
			text := fmt.Sprint(w.Header())
			if w.Code != 200 {
				text += w.Body.String()
			} else if findCanary(w.Body.String()) != "" {
				seen++
			}
			if c := findCanary(text); c != "" {
				t.Errorf("%d answers with %s: %s", w.Code, c, text)
			}
		}
		all := func() {
			t.Helper()
			for _, value := range canaries {
				check(s.call("GET", tokenPath, ""))
				check(s.call("GET", tokenPath, "", "Accept", "text/plain"))
				check(s.call("HEAD", tokenPath, ""))
				check(s.call("POST", tokenPath+"/report", `{"access_token":"`+value+`","errcode":40001}`))
				check(s.call("POST", tokenPath+"/report", `{"access_token":"`+value+`","errcode":1}`))
				check(s.call("POST", tokenPath+"/report", `{"access_token":"`+value))
				check(s.call("GET", "/v1/apps/"+url.PathEscape(value)+"/token", ""))
				check(s.call("GET", "/v1/apps/CANARY/token?access_token="+url.QueryEscape(value), ""))
				check(s.call("GET", "/"+url.QueryEscape(value), ""))
				check(s.call("CANARY", tokenPath, ""))
				check(s.call("GET", tokenPath, "", "Origin", value))
				check(s.call("GET", tokenPath, "", "X-Forwarded-For", value))
				check(s.call("GET", tokenPath, "", "Authorization", "Bearer "+value))
			}
			if c := findCanary(webtest.Serve(ops, "GET", "/status", "").Body.String() + webtest.Serve(ops, "GET", "/status?format=html", "").Body.String() + webtest.Serve(ops, "GET", "/metrics", "").Body.String()); c != "" {
				t.Errorf("the operations listener shows %s", c)
			}
			time.Sleep(time.Minute)
		}
		all()
		current, rejected = canaries[1], true
		all() // the report is believed
		rejected = false
		bearer = secret.New(canaries[2])
		all()
		bearer = secret.String{}
		for _, fault = range []error{
			errors.New(canaries[3]),
			&tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125, Message: "wrong secret", Err: errors.New(canaries[3])},
			&tokencache.FetchError{Class: tokencache.ClassTransient, Unclear: true, Message: "half an answer", Err: errors.New(canaries[3])},
		} {
			time.Sleep(2*time.Hour - 30*time.Second)
			all()
		}
		s.Replica.Link.Refuse()
		all()
		time.Sleep(3 * time.Hour)
		all()
		s.Replica.Link.Heal()
		s.Cache.Close()
		all()

		for _, e := range s.Replica.Events() {
			events(e)
			s.metrics.Observe(e)
		}
		all()
		logs := console.String()
		for _, e := range s.logs.All() {
			logs += fmt.Sprintln(e.Message, e.ContextMap())
		}
		if c := findCanary(logs); c != "" {
			t.Errorf("the log shows %s", c)
		}
		// The test has seen what it is about.
		if seen == 0 || !strings.Contains(logs, "callers got no value") || !strings.Contains(logs, "token replaced") || !strings.Contains(logs, "redis unreachable") {
			t.Errorf("%d values seen in answers, log: %s", seen, logs)
		}
	})
}
