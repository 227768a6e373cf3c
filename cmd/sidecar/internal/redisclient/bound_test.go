package redisclient

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// stream is a connection that only reads.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }
func (stream) Close() error                 { return nil }

func TestALongTextOfRedisEndsTheConnection(t *testing.T) {
	long := "$1048577\r\n"
	for raw, whole := range map[string]bool{
		"+OK\r\n:1\r\n$-1\r\n_\r\n$0\r\n\r\n*2\r\n$3\r\nabc\r\n$4\r\n$99\n\r\n": true,
		"$15\r\n" + long + "12345\r\n+OK\r\n":                                   true, // it is part of a text
		"$1048576\r\n" + strings.Repeat("x", 1<<20) + "\r\n+OK\r\n":             true,
		long + strings.Repeat("x", 100):                                         false,
		"+OK\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$536870912\r\n":               false,
		"!99999999\r\n":                  false,
		"=99999999\r\n":                  false,
		"-" + strings.Repeat("x", 2<<20): false,
	} {
		for name, reader := range map[string]io.Reader{"whole": strings.NewReader(raw), "bytes": iotest.OneByteReader(strings.NewReader(raw))} {
			got, err := io.ReadAll(&redisConn{Conn: stream{Reader: reader}})
			if whole != (err == nil) || whole && string(got) != raw {
				t.Errorf("%.40q, %s: %d bytes, %v", raw, name, len(got), err)
			}
		}
	}
}

// A neighbour publishes 25 MB on the channel: the subscription is not worth so much memory, and
// commands go on.
func TestAHugePublishIsNotTakenWhole(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	rdb, err := Connect(config.Redis{URL: secret.New("redis://" + addr), Form: config.RedisSingle})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	sub := rdb.Subscribe(t.Context(), "wxtoken:events")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	neighbour := redis.NewClient(&redis.Options{Addr: addr})
	defer neighbour.Close()
	if err := neighbour.Publish(t.Context(), "wxtoken:events", strings.Repeat("x", 25<<20)).Err(); err != nil {
		t.Fatal(err)
	}
	message, err := sub.ReceiveTimeout(t.Context(), time.Minute)
	if err == nil || message != nil {
		t.Errorf("got %T, %v; want an error: the connection ends", message, err)
	}
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A restart of Redis closes the idle connections. The next command notices that before it is sent.
func TestAnIdleConnectionThatRedisClosedIsNotUsed(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	// In front of it, so that the port stays in use while the connections end.
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			conn, err := front.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", server.Addr())
			if err != nil {
				_ = conn.Close()
				continue
			}
			go func() { _, _ = io.Copy(back, conn); _ = back.Close() }()
			go func() { _, _ = io.Copy(conn, back) }()
			accepted <- conn
		}
	}()
	rdb := redis.NewClient(&redis.Options{Addr: front.Addr().String(), Dialer: dialer{timeout: time.Second, secure: TLS(nil, config.Redis{})}.dial, MaxRetries: -1, PoolSize: 1})
	defer rdb.Close()
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	// Not Close, which ends the connection only when the copies above have noticed.
	if err := (<-accepted).(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Errorf("without a retry: %v", err)
	}
}
