package tokencache

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrUnknown is returned for a [Key] that the cache was not given.
var ErrUnknown = errors.New("tokencache: no such credential")

// ErrClosed is returned for what would need a refresh after [Cache.Close].
var ErrClosed = errors.New("tokencache: closed")

// Class says what a failed fetch means for the next one.
type Class string

// The classes of a [FetchError].
const (
	// Transient: the next try may work. The cluster waits 1 s, doubling up to 1 minute.
	ClassTransient Class = "transient"
	// Permanent: no try will work with this secret until a human acts. Replicas with the same
	// secret wait 1 minute, doubling up to 10; one with another secret does not.
	ClassPermanent Class = "permanent"
	// Quota: upstream counts and has had enough. The cluster waits 5 minutes, doubling up to 30.
	ClassQuota Class = "quota"
	// Local: upstream refuses this pod (its address), not the app. Only this replica waits, 1
	// minute doubling up to 10; another one may try at once.
	ClassLocal Class = "local"
	// Ended: the right to use the credential has ended, so no replica hands its value out any more,
	// not even as stale. The cluster waits 1 minute, doubling up to 10; [Cache.Revoke] and
	// [Cache.Retry] end that.
	ClassEnded Class = "ended"

	ClassLimited Class = "limited" // no answer of upstream, which was not asked: an allowance is spent, of the credential or of its Source
)

// FetchError says why a [Source] has no value. It holds no secret and no value.
type FetchError struct {
	Class Class
	// Code is upstream's error code, 0 if it gave none.
	Code int
	// Message is for people: what happened and, if a human must act, what to do.
	Message string
	// Unclear is set if upstream may have issued a value whose answer was lost.
	Unclear bool
	// RetryAfter is the least time to wait, if upstream said or implied one. More than 24 hours
	// count as 24 hours.
	RetryAfter time.Duration
	// Err is the cause, if there is one to unwrap.
	Err error
}

func (e *FetchError) Error() string {
	if e.Code != 0 {
		return fmt.Sprintf("upstream error %d: %s", e.Code, e.Message)
	}
	return "upstream: " + e.Message
}

func (e *FetchError) Unwrap() error { return e.Err }

// UnavailableError says why there is no value now, and when to ask again. Its cause is a
// *[FetchError] when upstream was asked, now or before; a context error when the caller's time ran
// out; else something about Redis or an allowance.
type UnavailableError struct {
	Key        Key
	RetryAfter time.Duration // 0: no reason to wait
	Err        error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("tokencache: %s is not available: %v", e.Key, e.Err)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// ErrLimited is the cause when one of a [Credential]'s allowances is spent.
var ErrLimited = errors.New("the allowance of upstream calls is spent, waiting for the next")

// StoreError is a failed operation on Redis. Err is go-redis' error, or wraps it if its text had to
// be scrubbed ([secret.ScrubRedisError]).
type StoreError struct {
	Op  string // load, lease, caplease, begin, discard, commit, finish, cut, revoke, watch
	Err error
}

func (e *StoreError) Error() string { return fmt.Sprintf("redis: %s: %v", e.Op, e.Err) }

func (e *StoreError) Unwrap() error { return e.Err }

// Answered reports whether Redis is there: it answered, if only with an error.
func (e *StoreError) Answered() bool { return answered(e.Err) }

// longestBackoff bounds what upstream can ask for with a RetryAfter; the same number as in
// lua/prelude.lua.
const longestBackoff = 24 * time.Hour

// backoff is how long a class makes the others wait: from base, doubling, up to limit.
func (c Class) backoff() (base, limit time.Duration) {
	switch c {
	case ClassPermanent, ClassLocal, ClassEnded:
		return time.Minute, 10 * time.Minute
	case ClassQuota:
		return 5 * time.Minute, 30 * time.Minute
	default:
		return time.Second, time.Minute
	}
}

// StoreClass says what kind of failure a [StoreError] is. It can label a metric.
type StoreClass string

// The classes of a [StoreError].
const (
	StoreTimeout     StoreClass = "timeout"     // no answer in time
	StoreRefused     StoreClass = "refused"     // no connection could be made
	StoreClosed      StoreClass = "closed"      // the connection broke
	StoreTLS         StoreClass = "tls"         // a certificate is not accepted, on either side, or one side speaks no TLS
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
var StoreClasses = [...]StoreClass{StoreTimeout, StoreRefused, StoreClosed, StoreTLS, StoreNoAuth, StoreNoPerm,
	StoreReadOnly, StoreOOM, StoreLoading, StoreUnavailable, StoreReply, StoreOther}

// answers are Redis' own error codes.
var answers = map[string]StoreClass{
	"NOAUTH": StoreNoAuth, "WRONGPASS": StoreNoAuth, "NOPERM": StoreNoPerm,
	"READONLY": StoreReadOnly, "MISCONF": StoreReadOnly, "NOREPLICAS": StoreReadOnly, "OOM": StoreOOM,
	"LOADING": StoreLoading, "MASTERDOWN": StoreUnavailable, "CLUSTERDOWN": StoreUnavailable, "TRYAGAIN": StoreUnavailable, "BUSY": StoreUnavailable,
	"MOVED": StoreUnavailable, "ASK": StoreUnavailable, "CROSSSLOT": StoreUnavailable,
}

// Class returns what kind of failure it is.
func (e *StoreError) Class() StoreClass {
	var answer redis.Error
	var network net.Error
	var dial *net.OpError
	switch err := e.Err; {
	case isTLS(err):
		return StoreTLS
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

// isTLS reports whether the two sides could not agree on TLS. An alert of the other side has no
// type of its own.
func isTLS(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert *net.OpError
	return errors.As(err, &certificate) || errors.As(err, &record) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
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

// unavailable returns err as callers get it.
func unavailable(k Key, err error) *UnavailableError {
	if u, ok := errors.AsType[*UnavailableError](err); ok {
		return u
	}
	if err == nil {
		err = errors.New("the refresh brought nothing usable")
	}
	return &UnavailableError{Key: k, RetryAfter: time.Second, Err: err}
}
