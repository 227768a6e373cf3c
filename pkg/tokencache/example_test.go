package tokencache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// clientCredentials is a Source for the client credentials grant of OAuth 2.0 (RFC 6749, 4.4).
type clientCredentials struct {
	tokenURL, id string
	secret       secret.String
}

// Fetch asks the authorization server for an access token.
func (c clientCredentials) Fetch(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassPermanent, Message: "the token URL is no URL"}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret.Reveal()))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		// Not wrapped: its text may hold the URL. The server may have issued a token.
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "no answer", Unclear: true}
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusUnauthorized:
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: res.StatusCode, Message: "the client is refused: check its id and secret"}
	default:
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassTransient, Code: res.StatusCode, Message: res.Status}
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "half an answer", Unclear: true}
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	return tokencache.Value{Value: secret.New(answer.AccessToken), Life: life, RenewLeft: life / 10}, nil
}

// authorizationServer issues TOKEN-1, TOKEN-2, ... Each lives an hour.
func authorizationServer() *httptest.Server {
	n := 0
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		fmt.Fprintf(w, `{"access_token":"TOKEN-%d","token_type":"Bearer","expires_in":3600}`, n)
	}))
}

// embedded returns a client of a Redis inside this process. Yours is a real one.
func embedded() (*redis.Client, func()) {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	return rdb, func() { _ = rdb.Close(); server.Close() }
}

// Replicas of a program share one access token of OAuth client credentials.
func Example() {
	rdb, stop := embedded()
	defer stop()
	server := authorizationServer()
	defer server.Close()

	cache := tokencache.New(rdb, tokencache.Options{Namespace: "billing"})
	defer cache.Close()
	key := tokencache.Key{App: "billing-api", Kind: "access_token"}
	s := clientCredentials{tokenURL: server.URL, id: "billing", secret: secret.New("from a file")}
	if err := cache.Set(tokencache.Credential{Key: key, Source: s, Fingerprint: s.secret.Fingerprint()}); err != nil {
		panic(err)
	}
	// Run refreshes ahead of the end and follows the other replicas, until its context ends.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = cache.Run(ctx) }()

	token, err := cache.Get(ctx, key)
	if err != nil {
		panic(err)
	}
	fmt.Println(token.Value, token.ExpiresIn > 59*time.Minute, token.Stale)
	fmt.Println(token.Value.Reveal()) // the only way out
	// Output:
	// [redacted] true false
	// TOKEN-1
}

// A program that gets a 401 reports the token and repeats its call once. However many replicas
// report it, it is replaced once.
func ExampleCache_Report() {
	rdb, stop := embedded()
	defer stop()
	server := authorizationServer()
	defer server.Close()
	cache := tokencache.New(rdb, tokencache.Options{})
	defer cache.Close()
	key := tokencache.Key{App: "billing-api", Kind: "access_token"}
	s := clientCredentials{tokenURL: server.URL, id: "billing", secret: secret.New("from a file")}
	if err := cache.Set(tokencache.Credential{Key: key, Source: s}); err != nil {
		panic(err)
	}
	call := func(token tokencache.Token) error {
		if token.Value.Reveal() == "TOKEN-1" {
			return errors.New("401 Unauthorized")
		}
		return nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	token, err := cache.Get(ctx, key)
	if err != nil {
		panic(err)
	}
	if err := call(token); err != nil {
		if token, err = cache.Report(ctx, key, token.Value); err != nil {
			panic(err) // errors.As an *UnavailableError: RetryAfter says when to come back
		}
		fmt.Println(call(token), token.Value.Reveal())
	}
	// Output: <nil> TOKEN-2
}

// oauthToken has the fields of an oauth2.Token. With golang.org/x/oauth2, use that type instead.
type oauthToken struct {
	AccessToken, TokenType string
	Expiry                 time.Time
}

// tokenSource is an oauth2.TokenSource whose tokens are shared by all replicas. It needs no
// oauth2.ReuseTokenSource around it: a token in memory costs no lock.
type tokenSource struct {
	cache *tokencache.Cache
	key   tokencache.Key
}

// Token returns the token to use now. As in x/oauth2 it has no context, so it brings its own.
func (s tokenSource) Token() (*oauthToken, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	t, err := s.cache.Get(ctx, s.key)
	if err != nil {
		return nil, err
	}
	return &oauthToken{AccessToken: t.Value.Reveal(), TokenType: "Bearer", Expiry: t.ExpiresAt}, nil
}

// An adapter for libraries that take an oauth2.TokenSource.
func ExampleCache_Get_oauth2() {
	rdb, stop := embedded()
	defer stop()
	server := authorizationServer()
	defer server.Close()
	cache := tokencache.New(rdb, tokencache.Options{})
	defer cache.Close()
	key := tokencache.Key{App: "billing-api", Kind: "access_token"}
	if err := cache.Set(tokencache.Credential{Key: key, Source: clientCredentials{tokenURL: server.URL, id: "billing"}}); err != nil {
		panic(err)
	}
	token, err := tokenSource{cache, key}.Token()
	if err != nil {
		panic(err)
	}
	fmt.Println(token.TokenType, token.AccessToken, time.Until(token.Expiry) > 59*time.Minute)
	// Output: Bearer TOKEN-1 true
}
