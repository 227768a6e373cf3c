package tokencache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// StoreClass says what kind of failure a [StoreError] is. It can label a metric.
type StoreClass string

// The classes of a [StoreError].
const (
	StoreTimeout     StoreClass = "timeout"     // no answer in time
	StoreRefused     StoreClass = "refused"     // no connection could be made
	StoreClosed      StoreClass = "closed"      // the connection broke
	StoreNoAuth      StoreClass = "noauth"      // a password is missing or wrong
	StoreNoPerm      StoreClass = "noperm"      // the ACL user lacks a right
	StoreReadOnly    StoreClass = "readonly"    // a replica, or a primary that must not write (disk, too few replicas)
	StoreOOM         StoreClass = "oom"         // maxmemory is reached
	StoreLoading     StoreClass = "loading"     // Redis is starting
	StoreUnavailable StoreClass = "unavailable" // the cluster is down or has the key elsewhere, or a script blocks Redis
	StoreReply       StoreClass = "reply"       // the answer is not one of this program's scripts
	StoreOther       StoreClass = "other"
)

// StoreClasses are all classes.
var StoreClasses = [...]StoreClass{StoreTimeout, StoreRefused, StoreClosed, StoreNoAuth, StoreNoPerm, StoreReadOnly,
	StoreOOM, StoreLoading, StoreUnavailable, StoreReply, StoreOther}

// answers are Redis' own error codes.
var answers = map[string]StoreClass{
	"NOAUTH": StoreNoAuth, "WRONGPASS": StoreNoAuth, "NOPERM": StoreNoPerm,
	"READONLY": StoreReadOnly, "MISCONF": StoreReadOnly, "NOREPLICAS": StoreReadOnly, "OOM": StoreOOM,
	"LOADING": StoreLoading, "MASTERDOWN": StoreUnavailable, "CLUSTERDOWN": StoreUnavailable, "TRYAGAIN": StoreUnavailable, "BUSY": StoreUnavailable,
	"MOVED": StoreUnavailable, "ASK": StoreUnavailable, "CROSSSLOT": StoreUnavailable,
}

// Title says for people, in a few words, whether Redis is away or what it refuses.
func (c StoreClass) Title() string {
	switch c {
	case StoreRefused, StoreTimeout, StoreClosed:
		return "Redis cannot be reached"
	case StoreNoAuth:
		return "Redis refuses the login"
	case StoreNoPerm:
		return "Redis refuses a command"
	case StoreReadOnly, StoreOOM:
		return "Redis takes no writes"
	case StoreLoading, StoreUnavailable:
		return "Redis is not ready"
	}
	return "Redis answers with an error"
}

// Class returns what kind of failure it is.
func (e *StoreError) Class() StoreClass {
	var answer redis.Error
	var network net.Error
	var dial *net.OpError
	switch err := e.Err; {
	case errors.Is(err, errReply):
		return StoreReply
	case errors.As(err, &answer):
		return classOfAnswer(answer.Error())
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &dial) && dial.Op == "dial" && !dial.Timeout():
		return StoreRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout),
		errors.As(err, &network) && network.Timeout():
		return StoreTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, redis.ErrClosed):
		return StoreClosed
	}
	return StoreOther
}

func classOfAnswer(text string) StoreClass {
	code, _, _ := strings.Cut(strings.TrimPrefix(text, "ERR "), " ")
	if class, ok := answers[code]; ok {
		return class
	}
	// Redis before 7 and some of its relatives wrap what a command of a script answered.
	if _, inside, ok := strings.Cut(text, "@user_script:"); ok || strings.Contains(text, "Error running script") {
		for word := range strings.FieldsFuncSeq(cmp.Or(inside, text), func(r rune) bool { return r < 'A' || r > 'Z' }) {
			if class, ok := answers[word]; ok {
				return class
			}
		}
	}
	switch {
	// What NOPERM is called inside of a script, by Redis 7.2 and 7.0.
	case strings.Contains(text, "ACL failure in script"), strings.Contains(text, "The user executing the script can't"):
		return StoreNoPerm
	case strings.Contains(text, "invalid password"), strings.Contains(text, "unauthenticated"), strings.Contains(text, "without any password configured"):
		return StoreNoAuth
	}
	return StoreOther
}
