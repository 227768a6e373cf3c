package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

// guard keeps out what only others than programs of this pod send. It returns nil for a request
// that may go on, else why not, and repeats nothing of the request.
func (h *handler) guard(r *http.Request) *web.Problem {
	if !plainTarget(r) {
		return web.BadRequest("The request target is not a plain path: no scheme or host, no . or .. segment, no encoded slash or backslash, no control character; below /v1 no empty segment either. (A base URL that ends in a slash makes one.)")
	}
	// With a bearer token no page that rebinds a name can do harm, and other hosts may call by any
	// name.
	if h.opts.Bearer().Empty() && !h.ownHost(r) && !h.upstreamsHost(r) {
		return &web.Problem{Kind: "forbidden-host", Status: http.StatusForbidden, Title: "The Host is not this listener's",
			Detail: "Call it by a loopback address, by localhost or by its own address; with a bearer token, by any name."}
	}
	if name := forwarded(r.Header); name != "" {
		return &web.Problem{Kind: "forwarded", Status: http.StatusForbidden, Title: "The request came through a proxy",
			Detail: "Requests with " + name + " are refused: this listener serves its own pod and is no backend."}
	}
	if web.CrossOrigin(r) {
		return &web.Problem{Kind: "cross-origin", Status: http.StatusForbidden, Title: "The request came from a web page",
			Detail: "Requests with an Origin, or with cross-site fetch metadata, are refused: no page may read a value."}
	}
	return nil
}

// forwarding are headers that reverse proxies, load balancers and content networks add, and that a
// client of this listener has no reason to send. To them come all that begin with X-Forwarded. What
// tracing adds is not among them: the pod's own programs send that.
var forwarding = map[string]bool{
	"Via": true, "Forwarded": true, "Forwarded-For": true, "X-Real-Ip": true, "X-Original-Forwarded-For": true,
	"X-Original-Host": true, "X-Original-Url": true, "X-Rewrite-Url": true, "X-Host": true, "X-Proxyuser-Ip": true,
	"X-Client-Ip": true, "Client-Ip": true, "X-Cluster-Client-Ip": true, "X-Remote-Ip": true, "X-Remote-Addr": true,
	"X-Originating-Ip": true, "X-Remote-User": true, "Proxy-Client-Ip": true, "Wl-Proxy-Client-Ip": true,
	"True-Client-Ip": true, "Cf-Connecting-Ip": true, "Cf-Connecting-Ipv6": true, "Cf-Ray": true, "Cdn-Loop": true,
	"Fastly-Client-Ip": true, "Fastly-Ff": true, "Ali-Cdn-Real-Ip": true, "X-Envoy-External-Address": true,
	"X-Envoy-Original-Path": true, "X-Appengine-User-Ip": true, "X-Azure-Clientip": true, "X-Azure-Socketip": true,
	"X-Amz-Cf-Id": true, "X-Scheme": true, "X-Varnish": true, "X-Nginx-Proxy": true,
}

// forwarded returns the name of a header of h that a proxy has added, or "".
func forwarded(h http.Header) string {
	for name := range h {
		if forwarding[name] {
			return name
		}
		if strings.HasPrefix(name, "X-Forwarded") {
			return "X-Forwarded-..." // what follows may be the caller's text
		}
	}
	return ""
}

// plainTarget reports whether r asks for a path that every reader understands in the same way. On
// WeChat's paths several slashes mean one, because SDKs double them and WeChat takes it.
func plainTarget(r *http.Request) bool {
	if r.Method == http.MethodConnect || r.URL.Scheme != "" || r.URL.Host != "" || r.URL.Opaque != "" {
		return false
	}
	p := r.URL.Path
	if p == "" || p[0] != '/' {
		return false
	}
	for i := range len(p) {
		if c := p[i]; c < ' ' || c == 0x7f || c == '\\' {
			return false
		}
	}
	if strings.Contains(p, "//") && strings.HasPrefix(collapse(p), "/v1/") {
		return false
	}
	if strings.Contains(p, "/.") {
		for segment := range strings.SplitSeq(p, "/") {
			if segment == "." || segment == ".." {
				return false
			}
		}
	}
	// RawPath is set if the path was encoded in an unusual way. What is encoded must not be what
	// separates.
	raw := strings.ToLower(r.URL.RawPath)
	return !strings.Contains(raw, "%2f") && !strings.Contains(raw, "%5c")
}

// upstreamsHost reports whether r was meant for the upstream of an app, by a pod whose name service
// says that it is here. A page that is led here by such a trick has its own site's name, so this
// lets no page in. But no client of /v1 has a reason to call it by a name of WeChat. The https face
// is there for these names. On the plain listener a setting permits them: a name service that lies
// must not open it by default.
func (h *handler) upstreamsHost(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		return false
	}
	name := web.HostName(r)
	_, known := apps.HostPlatform(name)
	return known && r.TLS != nil || h.apps().AllowsHost(name)
}

// ownHost reports whether the Host of r is a name of this listener. A page of another site reaches
// a loopback listener under that site's name, if its DNS answers 127.0.0.1.
func (h *handler) ownHost(r *http.Request) bool {
	name := web.HostName(r)
	if name == "127.0.0.1" || strings.EqualFold(name, "localhost") { // nearly all calls
		return true
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().IsLoopback() || isAddr(local, ip)
	}
	// Clients of a unix socket make up a host: nothing, or one word. A name with a dot came from
	// elsewhere, through something that forwards.
	_, unix := local.(*net.UnixAddr)
	return unix && !strings.Contains(name, ".")
}

func isAddr(local net.Addr, ip netip.Addr) bool {
	tcp, ok := local.(*net.TCPAddr)
	return ok && tcp.AddrPort().Addr().Unmap() == ip.Unmap()
}
