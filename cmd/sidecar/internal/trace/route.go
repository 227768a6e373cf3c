package trace

import (
	"net/http"
	"strings"
)

// routeOf returns which kind of path p is, of a closed set: a path is the caller's to choose, and may
// hold what nobody should read.
func routeOf(p string) string {
	switch parts := strings.Split(p, "/"); {
	case strings.HasPrefix(p, "/proxy/"):
		return "/proxy/{app}/"
	case strings.HasPrefix(p, "/v1/apps/") && len(parts) > 4:
		for _, tail := range []string{"token", "token/report", "tickets/jsapi", "tickets/wx_card", "tickets/agent_config", "jssdk"} {
			if strings.Join(parts[4:], "/") == tail {
				return "/v1/apps/{app}/" + tail
			}
		}
	case strings.HasPrefix(p, "/cgi-bin/"):
		for _, dropIn := range []string{"token", "stable_token", "gettoken", "ticket/getticket", "get_jsapi_ticket", "ticket/get"} {
			if p == "/cgi-bin/"+dropIn {
				return p
			}
		}
	}
	return "/"
}

func methodOf(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER" // as OpenTelemetry's conventions call it
}
