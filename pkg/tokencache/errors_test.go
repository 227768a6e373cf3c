package tokencache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
)

// answer is an error of Redis.
type answer string

func (a answer) Error() string { return string(a) }
func (a answer) RedisError()   {}

func TestFailuresOfRedisHaveAClass(t *testing.T) {
	_, refused := net.Dial("tcp", "127.0.0.1:1")
	for _, c := range []struct {
		err  error
		want StoreClass
	}{
		{context.DeadlineExceeded, StoreTimeout},
		{fmt.Errorf("lock: obtaining: %w", os.ErrDeadlineExceeded), StoreTimeout},
		{redis.ErrPoolTimeout, StoreTimeout},
		{refused, StoreRefused},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, StoreRefused},
		{&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, StoreTimeout},
		{io.EOF, StoreClosed},
		{fmt.Errorf("listening for events: %w", io.ErrUnexpectedEOF), StoreClosed},
		{answer("NOAUTH Authentication required."), StoreNoAuth},
		{answer("WRONGPASS invalid username-password pair or user is disabled."), StoreNoAuth},
		{answer("ERR AUTH <password> called without any password configured for the default user."), StoreNoAuth},
		{answer("NOPERM No permissions to access a key"), StoreNoPerm},
		{answer("ERR ACL failure in script: User u has no permissions to run the 'hset' command script: 1, on @user_script:1."), StoreNoPerm},
		{answer("ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1."), StoreNoPerm},
		{answer("READONLY You can't write against a read only replica."), StoreReadOnly},
		{answer("MISCONF Redis is configured to save RDB snapshots"), StoreReadOnly},
		{answer("OOM command not allowed when used memory > 'maxmemory'."), StoreOOM},
		{answer("LOADING Redis is loading the dataset in memory"), StoreLoading},
		{answer("CLUSTERDOWN The cluster is down"), StoreUnavailable},
		{answer("MOVED 3999 127.0.0.1:6381"), StoreUnavailable},
		{answer("NOREPLICAS Not enough good replicas to write."), StoreReadOnly},
		{answer("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."), StoreUnavailable},
		{answer("ERR Error running script (call to f_2b3c): @user_script:66: @user_script: 66: -OOM command not allowed when used memory > 'maxmemory'."), StoreOOM},
		{answer("ERR Error running script (call to f_2b3c): @user_script:66: @user_script: 66: -READONLY You can't write against a read only replica."), StoreReadOnly},
		{answer("ERR Protocol error: unauthenticated multibulk length"), StoreNoAuth},
		{answer("ERR DB index is out of range"), StoreOther},
		{answer("ERR unknown command"), StoreOther},
		{&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}}, StoreTLS},
		{fmt.Errorf("dial: %w", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), StoreTLS},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(116)}, StoreTLS},
		{errReply, StoreReply},
		{errors.New("new"), StoreOther},
	} {
		if got := (&StoreError{Op: "load", Err: c.err}).Class(); got != c.want {
			t.Errorf("%v: got %s, want %s", c.err, got, c.want)
		}
	}
}
