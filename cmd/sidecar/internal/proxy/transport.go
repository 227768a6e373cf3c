package proxy

import (
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// newTransport returns the transport that a proxy has of its own.
func newTransport() *http.Transport {
	// HTTP/1 only, as in pkg/wechat: how WeChat behaves on HTTP/2 is not known.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		Protocols:           &protocols,
		TLSHandshakeTimeout: 3 * time.Second,
		DisableCompression:  true, // bytes pass as they are
		MaxIdleConns:        256,
		MaxIdleConnsPerHost: 64,
		// Short, because a POST on a connection that WeChat is just closing fails.
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		// The time until the answer begins is limited for each call, body and token included.
	}
}

// avoid is for how long a host is left for last after no connection to it came about.
const avoid = 30 * time.Second

// hosts remembers which hosts could not be reached lately. The zero value knows nothing. Safe for
// concurrent use.
type hosts struct {
	mu   sync.Mutex
	down map[string]time.Time // until when, by host and port; those that are configured, so few
}

// order returns the list with the hosts that could not be reached lately at the end.
func (h *hosts) order(list []*url.URL) []*url.URL {
	if len(list) == 1 {
		return list
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.down) == 0 {
		return list
	}
	var up, down []*url.URL
	for _, u := range list {
		if time.Now().Before(h.down[u.Host]) {
			down = append(down, u)
		} else {
			up = append(up, u)
		}
	}
	return append(up, down...)
}

// failed notes that no connection to the host of u came about.
func (h *hosts) failed(u *url.URL) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for host, until := range h.down {
		if now.After(until) {
			delete(h.down, host)
		}
	}
	if h.down == nil {
		h.down = map[string]time.Time{}
	}
	h.down[u.Host] = now.Add(avoid)
}

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
