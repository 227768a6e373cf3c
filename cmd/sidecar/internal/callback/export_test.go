package callback

import (
	"context"
	"net"
	"net/http"
)

const MaxAtOnce = maxAtOnce

// Dial makes connections to addresses of forward, as a name service does.
func Dial(h *Handler, dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	h.forward.Transport.(*http.Transport).DialContext = dial
}
