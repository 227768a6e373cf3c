package proxy

import (
	"sync"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// rejectedTokens are callers' tokens that WeChat has rejected lately: a placeholder in an SDK's
// configuration, or one that was replaced before this sidecar started. They are not sent a second
// time. The zero value is ready for use. Safe for concurrent use.
type rejectedTokens struct {
	mu   sync.Mutex
	list [64]rejectedToken
	next int
}

type rejectedToken struct {
	token secret.String
	at    time.Time
}

// rejectedFor is how long a token that WeChat rejected is not tried again: WeChat's servers may
// disagree for a while.
const rejectedFor = 10 * time.Minute

func (r *rejectedTokens) add(token secret.String) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[r.next%len(r.list)] = rejectedToken{token, time.Now()}
	r.next++
}

func (r *rejectedTokens) has(token secret.String) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.list {
		if !one.token.Empty() && one.token.Equal(token) {
			return time.Since(one.at) < rejectedFor
		}
	}
	return false
}
