package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// String returns the platform's name.
func (p Platform) String() string {
	if p == WeCom {
		return "WeCom"
	}
	return "WeChat"
}

// redisWords says in words what is wrong with Redis.
func redisWords(err error) string {
	cause := err
	if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
		cause = s.Err
	}
	var timeout net.Error
	var dns *net.DNSError
	switch {
	case errors.As(cause, &dns):
		return "Redis cannot be found: its name does not resolve."
	case errors.Is(cause, syscall.ECONNREFUSED):
		return "Redis is not there: its address refuses connections."
	case errors.Is(cause, context.DeadlineExceeded), errors.As(cause, &timeout) && timeout.Timeout():
		return "Redis does not answer in time."
	case redis.HasErrorPrefix(cause, "NOAUTH"), redis.HasErrorPrefix(cause, "WRONGPASS"):
		return "Redis refuses the login: user or password are wrong."
	case redis.HasErrorPrefix(cause, "NOPERM"):
		return "Redis refuses a command: the ACL of its user lacks something. It says: " + cause.Error()
	case redis.HasErrorPrefix(cause, "LOADING"):
		return "Redis is starting: it reads its data."
	case redis.HasErrorPrefix(cause, "READONLY"):
		return "This Redis is a replica, which takes no writes."
	}
	return "Redis: " + strings.TrimPrefix(cause.Error(), "redis: ")
}

// span says a duration in at most two units: "1 h 42 min".
func span(s int64) string {
	d := time.Duration(s) * time.Second
	switch {
	case s < 0:
		return "0 s"
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 600 && s%60 != 0:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case d < 48*time.Hour && s/60%60 != 0:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", s/3600)
	}
	return fmt.Sprintf("%d days", s/86400)
}

// ago says how long ago something was: one unit is enough.
func ago(s int64) string {
	switch {
	case s < 1:
		return "just now"
	case s < 60:
		return fmt.Sprintf("%d s ago", s)
	case s < 3600:
		return fmt.Sprintf("%d min ago", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h ago", s/3600)
	}
	return fmt.Sprintf("%d days ago", s/86400)
}

// took says how long something took; "" if that is not known.
func took(ms int64) string {
	switch {
	case ms <= 0:
		return ""
	case ms < 1000:
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}

func reasonWords(r tokencache.Reason) string {
	switch r {
	case tokencache.Missing:
		return "there was none"
	case tokencache.Due:
		return "it was time"
	case tokencache.Report:
		return "an app reported it"
	}
	return string(r)
}

func resultWords(r tokencache.Result) string {
	switch r {
	case tokencache.Committed:
		return "new value"
	case tokencache.Unchanged:
		return "same value again"
	case tokencache.Failed:
		return "failed"
	case tokencache.Orphaned:
		return "Redis lost before the end"
	case tokencache.Refused:
		return "came too late, not used"
	case tokencache.Throttled:
		return "allowance spent"
	case tokencache.Accepted:
		return "the value works"
	case tokencache.Unknown:
		return "no clear answer"
	}
	return string(r)
}

// resultLevel says how a line of the journal looks.
func resultLevel(r tokencache.Result) level {
	switch r {
	case tokencache.Committed, tokencache.Unchanged, tokencache.Accepted:
		return levelWell
	case tokencache.Failed:
		return levelTrouble
	}
	return levelAttention
}
