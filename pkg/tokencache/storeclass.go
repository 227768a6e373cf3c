package tokencache

import (
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
	StoreTimeout  StoreClass = "timeout"     // no answer in time
	StoreRefused  StoreClass = "refused"     // no connection could be made
	StoreClosed   StoreClass = "closed"      // the connection broke
	StoreNoAuth   StoreClass = "noauth"      // a password is missing or wrong
	StoreNoPerm   StoreClass = "noperm"      // the ACL user lacks a right
	StoreReadOnly StoreClass = "readonly"    // a replica, or a primary that must not write (disk, too few replicas)
	StoreOOM      StoreClass = "oom"         // maxmemory is reached
	StoreLoading  StoreClass = "loading"     // Redis is starting
	StoreCluster  StoreClass = "unavailable" // the cluster is down, or a script blocks Redis
	StoreReply    StoreClass = "reply"       // the answer is not one of this program's scripts
	StoreOther    StoreClass = "other"
)

// StoreClasses are all classes.
var StoreClasses = [...]StoreClass{StoreTimeout, StoreRefused, StoreClosed, StoreNoAuth, StoreNoPerm, StoreReadOnly,
	StoreOOM, StoreLoading, StoreCluster, StoreReply, StoreOther}

// answers are Redis' own error codes.
var answers = map[string]StoreClass{
	"NOAUTH": StoreNoAuth, "WRONGPASS": StoreNoAuth, "NOPERM": StoreNoPerm,
	"READONLY": StoreReadOnly, "MISCONF": StoreReadOnly, "NOREPLICAS": StoreReadOnly, "OOM": StoreOOM,
	"LOADING": StoreLoading, "MASTERDOWN": StoreCluster, "CLUSTERDOWN": StoreCluster, "TRYAGAIN": StoreCluster, "BUSY": StoreCluster,
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
	switch {
	// What NOPERM is called inside of a script, by Redis 7.2 and 7.0.
	case strings.Contains(text, "ACL failure in script"), strings.Contains(text, "The user executing the script can't"):
		return StoreNoPerm
	case strings.Contains(text, "invalid password"), strings.Contains(text, "without any password configured"):
		return StoreNoAuth
	}
	return StoreOther
}
