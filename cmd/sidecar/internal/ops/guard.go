package ops

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

// guard keeps web pages out of the operations listener. Behind kubectl port-forward they reach it
// as the person does who opened the port. A page of another site is known by its Origin and its
// fetch metadata; one that rebinds its own name to this address, by that name in the Host. guard
// returns nil for a request that may go on, else why not, and repeats nothing of it.
func (h *ops) guard(r *http.Request) *web.Problem {
	if web.CrossOrigin(r) && !followsLink(r) {
		return &web.Problem{Kind: "cross-origin", Status: http.StatusForbidden, Title: "The request came from a web page",
			Detail: "Requests with an Origin, or with cross-site fetch metadata, are refused: no page may read or change anything here."}
	}
	if r.URL.Path != pathHealth && !noSitesName(web.HostName(r)) {
		return &web.Problem{Kind: "forbidden-host", Status: http.StatusForbidden, Title: "The Host may be a web site's name",
			Detail: "Call this listener by an IP address, localhost, a name without a dot, or one that ends in .svc, .cluster.local or .internal."}
	}
	return nil
}

// pathHealth answers ok, whatever the Host: the answer is of no use to a page.
const pathHealth = "/healthz"

// followsLink reports whether a browser opens a page for a person who followed a link of another
// page. The other page does not see the answer.
func followsLink(r *http.Request) bool {
	return r.Header["Origin"] == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// privateSuffixes end names that no web site can have: the public DNS does not know them.
var privateSuffixes = [...]string{".svc", ".cluster.local", ".internal", ".localhost"}

// noSitesName reports whether a host is an address, a name without a dot, or a name of a cluster.
// Kubelet and Prometheus call by the pod's address. HTTP/1.0 has no Host; browsers always send one.
func noSitesName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	for _, suffix := range privateSuffixes {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// quitHeader must come with POST /quitquitquit. A page of another site cannot send it: the browser
// would first ask by OPTIONS, which is refused.
const quitHeader = "X-Wxtoken-Quit"

// quit stops the program, for a main container that is done. The operations listener is open to the
// cluster, and this is for the pod alone.
func (h *ops) quit(w http.ResponseWriter, r *http.Request) {
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && !addr.Addr().Unmap().IsLoopback() {
		web.Write(w, r, http.StatusForbidden, web.Text("only from this pod: call localhost\n"))
		return
	}
	if r.Header.Get(quitHeader) == "" {
		web.Write(w, r, http.StatusForbidden, web.Text("send the header "+quitHeader+": 1, which a web page cannot\n"))
		return
	}
	web.Write(w, r, http.StatusOK, web.Text("stopping\n"))
	h.opts.Quit()
}
