package text

import (
	"errors"
	"net"
	"strings"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// RedisTitle says in a few words whether Redis is away or what it refuses.
func RedisTitle(c tokencache.StoreClass) string {
	switch c {
	case tokencache.StoreRefused, tokencache.StoreTimeout, tokencache.StoreClosed:
		return "Redis cannot be reached"
	case tokencache.StoreTLS:
		return "There is no TLS with Redis"
	case tokencache.StoreNoAuth:
		return "Redis refuses the login"
	case tokencache.StoreNoPerm:
		return "Redis refuses a command"
	case tokencache.StoreReadOnly, tokencache.StoreOOM:
		return "Redis takes no writes"
	case tokencache.StoreLoading, tokencache.StoreUnavailable:
		return "Redis is not ready"
	}
	return "Redis answers with an error"
}

// Redis says in words what is wrong with Redis.
func Redis(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "Redis cannot be found: its name does not resolve."
	}
	s, ok := errors.AsType[*tokencache.StoreError](err)
	if !ok {
		s = &tokencache.StoreError{Err: err}
	}
	switch s.Class() {
	case tokencache.StoreRefused:
		return "Redis is not there: its address refuses connections."
	case tokencache.StoreTimeout:
		return "Redis does not answer in time."
	case tokencache.StoreTLS:
		return "There is no TLS with Redis: one side does not accept the other's certificate, or speaks no TLS. It says: " + s.Err.Error()
	case tokencache.StoreNoAuth:
		return "Redis refuses the login: user or password are wrong."
	case tokencache.StoreNoPerm:
		return "Redis refuses a command: the ACL of its user lacks something. It says: " + s.Err.Error()
	case tokencache.StoreLoading:
		return "Redis is starting: it reads its data."
	case tokencache.StoreUnavailable:
		return "Redis is busy, its cluster is down, or slots are on the move. It says: " + s.Err.Error()
	case tokencache.StoreReadOnly:
		return "This Redis takes no writes: it is a replica, or has lost its disk or its replicas."
	case tokencache.StoreOOM:
		return "Redis is out of memory (maxmemory), and takes no writes."
	}
	return "Redis: " + strings.TrimPrefix(s.Err.Error(), "redis: ")
}
