package tokencache_test

import (
	"context"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// sourceFunc is a Source.
type sourceFunc func(ctx context.Context, r tokencache.Request) (tokencache.Value, error)

func (f sourceFunc) Fetch(ctx context.Context, r tokencache.Request) (tokencache.Value, error) {
	return f(ctx, r)
}

// The secret is replaced while a refresh with the old one is on its way: the refresh ends with the
// old one, and its failure holds nothing up for the new one.
func TestAReloadDuringARefreshMixesNoTwoSecrets(t *testing.T) {
	t.Parallel()
	for class, redis := range map[tokencache.Class]bool{tokencache.ClassPermanent: true, tokencache.ClassLocal: true, tokencache.ClassQuota: false} {
		t.Run(string(class), func(t *testing.T) {
			bubble(t, 1, &upstream{Mode: repeating}, func(t *testing.T, c *cluster) {
				r := c.Replicas[0]
				var asked []string
				older, newer := r.Credential, r.Credential
				older.Fingerprint, newer.Fingerprint = "old", "new"
				older.Source = sourceFunc(func(context.Context, tokencache.Request) (tokencache.Value, error) {
					asked = append(asked, "old")
					if err := r.Cache.Set(newer); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second)
					return tokencache.Value{}, &tokencache.FetchError{Class: class, Code: 40125, Message: "wrong secret"}
				})
				newer.Source = sourceFunc(func(context.Context, tokencache.Request) (tokencache.Value, error) {
					asked = append(asked, "new")
					return tokencache.Value{Value: secret.New("TOKEN"), Life: time.Hour}, nil
				})
				if err := r.Cache.Set(older); err != nil {
					t.Fatal(err)
				}
				if !redis {
					r.Link.Refuse()
				}
				if _, err := get(t.Context(), r); err == nil {
					t.Error("no error from the old secret")
				}
				start := time.Now()
				r.MustGet(t)
				if took := time.Since(start); took > time.Second || len(asked) != 2 || asked[1] != "new" {
					t.Errorf("asked with %v, %v after the reload", asked, took)
				}
			})
		})
	}
}
