package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Before a body is sent that cannot be sent twice, WeChat is asked whether it accepts the token.
// The question has a quota of its own, which is not published, so many such bodies in a row go by
// what other calls have seen.
const (
	probeEvery = 5 * time.Second // on average, for each app
	probeBurst = 20              // that may come at once
	// provenFor is how long it counts that a call with the token was answered.
	provenFor = 5 * time.Second
)

// proofs remember which token of each app WeChat accepted last. The zero value knows nothing. Safe
// for concurrent use.
type proofs struct{ of sync.Map } // *proof by Key

type proof struct {
	mu    sync.Mutex
	token secret.String
	at    time.Time // when it was accepted
	next  time.Time // how far ahead the probes have used up their time
}

func (p *proofs) app(k tokencache.Key) *proof {
	one, there := p.of.Load(k)
	if !there {
		one, _ = p.of.LoadOrStore(k, new(proof))
	}
	return one.(*proof)
}

// saw notes that WeChat accepted the token now.
func (p *proofs) saw(k tokencache.Key, token secret.String) {
	one := p.app(k)
	one.mu.Lock()
	defer one.mu.Unlock()
	one.token, one.at = token, time.Now()
}

// wanted reports whether WeChat is to be asked about the token, and counts that it will be.
func (p *proofs) wanted(k tokencache.Key, token secret.String) bool {
	one := p.app(k)
	one.mu.Lock()
	defer one.mu.Unlock()
	now := time.Now()
	if one.next.Before(now) {
		one.next = now
	}
	spent := one.next.Sub(now) > (probeBurst-1)*probeEvery
	if spent && now.Sub(one.at) < provenFor && one.token.Equal(token) {
		return false
	}
	if !spent {
		one.next = one.next.Add(probeEvery)
	}
	return true
}

// probe asks WeChat whether it accepts the token, once for all calls that want to know it at the
// same time.
func (p *Proxy) probe(ctx context.Context, k tokencache.Key, token secret.String) error {
	_, err, _ := p.probes.Do(k.String()+" "+token.Fingerprint(), func() (any, error) {
		// Not under ctx alone: others wait for the same answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), provenFor)
		defer cancel()
		err := p.cache.Probe(ctx, k, token)
		if err == nil {
			p.proofs.saw(k, token)
		}
		return nil, err
	})
	return err
}
