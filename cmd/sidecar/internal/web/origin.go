package web

import (
	"net"
	"net/http"
	"strings"
)

// CrossOrigin reports whether a browser sends r for a web page. It is stricter than
// http.CrossOriginProtection, which lets pages read: there is no page here that could be the same
// origin, so any Origin is a foreign one, whatever the method.
func CrossOrigin(r *http.Request) bool {
	if r.Header["Origin"] != nil {
		return true
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "none" && site != "same-origin" { // none: a person typed the address
			return true
		}
	}
	return false
}

// HostName returns the Host of r without its port.
func HostName(r *http.Request) string {
	if name, _, err := net.SplitHostPort(r.Host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
}
