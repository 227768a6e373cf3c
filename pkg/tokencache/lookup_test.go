package tokencache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A replica that has just started knows whose a lately replaced value was, although it never had
// it: an app still uses it, and must not be taken for another account's.
func TestAReplicaThatStartsKnowsTheLastValues(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		var values []secret.String
		for range 6 {
			token := c.Replicas[0].MustGet(t)
			values = append(values, token.Value)
			c.Upstream.Kill()
			if _, err := c.Replicas[0].Cache.Report(t.Context(), tokencachetest.Key, token.Value); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		values = append(values, c.Replicas[0].MustGet(t).Value)
		young := c.Add()
		if got := young.MustGet(t); !got.Value.Equal(values[6]) {
			t.Fatalf("the new replica has another value: %+v", got)
		}
		for i, v := range values {
			k, ok := young.Cache.Lookup(v)
			if want := i >= 2; ok != want || ok && k != tokencachetest.Key {
				t.Errorf("value %d of 7: belongs to %v, %t; want %t", i+1, k, ok, want)
			}
		}
		// Nothing of a value is in Redis but the present one.
		for field, text := range map[string]string{"past": c.Meta("past"), "digest": c.Meta("digest")} {
			for _, v := range values {
				if strings.Contains(text, v.Reveal()) {
					t.Errorf("%s holds a value", field)
				}
			}
		}
		// What another program left there is no harm.
		for _, garbage := range []string{"", "x", strings.Repeat("z", 1<<16)} {
			c.Redis.HSet(c.ValueKey()+":meta", "past", garbage)
			if r := c.Add(); !r.MustGet(t).Value.Equal(values[6]) {
				t.Error("with garbage: another value")
			} else if _, ok := r.Cache.Lookup(values[6]); !ok {
				t.Error("with garbage: the present value is unknown")
			}
		}
	}, rarely(time.Minute))
}
