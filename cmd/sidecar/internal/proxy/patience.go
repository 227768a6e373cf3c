package proxy

import (
	"sync"
	"time"
)

// patience ends when nothing has moved for a while. Begin it once; the methods are safe for
// concurrent use.
type patience struct {
	limit time.Duration

	// mu makes sure that nothing is done about a call that has ended: its connection may serve the
	// next one by then. So it is held while lost runs, which must not wait for anything.
	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

func (p *patience) begin(limit time.Duration, lost func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
	p.timer = time.AfterFunc(limit, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.ended {
			lost()
		}
	})
}

// renew starts the time again.
func (p *patience) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.timer.Reset(p.limit)
	}
}

func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.timer.Stop()
}
