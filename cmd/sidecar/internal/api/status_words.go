package api

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

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
	case tokencache.ReasonMissing:
		return "there was none"
	case tokencache.ReasonDue:
		return "it was time"
	case tokencache.ReasonReport:
		return "an app reported it"
	}
	return string(r)
}

func resultWords(r, why tokencache.Result) string {
	switch r {
	case tokencache.ResultCut:
		if why == askedFor {
			return "asked, no end is known"
		}
		return "old value cut short"
	case tokencache.ResultDoubtResolved:
		return "old value still good"
	case tokencache.ResultLeaseCapped:
		return "lock key without an end cut short"
	case tokencache.ResultDiscarded:
		return "foreign value in Redis deleted"
	case tokencache.ResultCommitted:
		return "new value"
	case tokencache.ResultUnchanged:
		return "same value again"
	case tokencache.ResultFailed:
		return "failed"
	case tokencache.ResultOrphaned:
		return "Redis lost before the end"
	case tokencache.ResultRefused:
		return "came too late, not used"
	case tokencache.ResultThrottled:
		return "allowance spent"
	case tokencache.ResultAccepted:
		return "the value works"
	case tokencache.ResultUnknown:
		return "no clear answer"
	}
	return string(r)
}

// askedFor is why a value is cut when a fetch begins. Its end is an entry of its own, unless the holder
// died.
const askedFor = "fetch"

// ended returns entries, newest first, without the beginnings of those fetches whose end follows.
func ended(entries []entryStatus) []entryStatus {
	type who struct{ app, kind, by string }
	later := map[who]bool{}
	var shown []entryStatus
	for _, e := range entries {
		w := who{e.App, e.Kind, e.By}
		if e.Result == tokencache.ResultCut && e.Why == askedFor && later[w] {
			continue
		}
		later[w] = true
		shown = append(shown, e)
	}
	return shown
}

// sign says a level without a colour.
func sign(l level) string {
	switch l {
	case levelTrouble:
		return "✕"
	case levelAttention:
		return "!"
	}
	return "✓"
}

// resultLevel says how a line of the journal looks.
func resultLevel(r tokencache.Result) level {
	switch r {
	case tokencache.ResultCommitted, tokencache.ResultUnchanged, tokencache.ResultAccepted, tokencache.ResultDoubtResolved:
		return levelWell
	case tokencache.ResultFailed:
		return levelTrouble
	}
	return levelAttention
}
