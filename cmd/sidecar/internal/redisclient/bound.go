package redisclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxRedisReply bounds one text of Redis' in bytes. What the sidecar asks for has some thousand. A
// client that may publish on the channel, or write a key, could send half a gigabyte, which
// go-redis reads whole.
const maxRedisReply = 1 << 20

var errLongReply = errors.New("a text of Redis is longer than any that the sidecar asks for")

// boundedDialer dials as go-redis does, and ends a connection on which a longer text begins.
func boundedDialer(timeout time.Duration, config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{DialTimeout: timeout, TLSConfig: config})
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		bounded := &redisConn{Conn: conn}
		if socket, ok := conn.(syscall.Conn); ok {
			return socketConn{bounded, socket}, nil
		}
		return bounded, nil
	}
}

// redisConn follows the lengths that Redis announces: a text is "$N", a line break, N bytes and a
// line break; in RESP3 also with ! and =. One goroutine reads at a time.
type redisConn struct {
	net.Conn
	skip int64  // of the present text are still to come, its line break included
	line []byte // as much as has come of the present line, outside of texts
}

// socketConn is a redisConn on a bare socket. By SyscallConn go-redis notices, before it sends a
// command, that Redis has closed an idle connection, and takes another one. TLS has no such look.
type socketConn struct {
	*redisConn
	syscall.Conn
}

func (c *redisConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.follow(p[:n]) {
		_ = c.Conn.Close()
		return 0, errLongReply
	}
	return n, err
}

// follow reports whether everything is within the bound.
func (c *redisConn) follow(p []byte) bool {
	for len(p) > 0 {
		if c.skip > 0 {
			part := min(c.skip, int64(len(p)))
			c.skip -= part
			p = p[part:]
			continue
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			c.line = append(c.line, p...)
			return len(c.line) <= maxRedisReply
		}
		c.line = append(c.line, p[:end]...)
		p = p[end+1:]
		if len(c.line) > 1 && (c.line[0] == '$' || c.line[0] == '!' || c.line[0] == '=') {
			length, err := strconv.ParseInt(string(bytes.TrimRight(c.line[1:], "\r")), 10, 64)
			if err == nil && length > maxRedisReply {
				return false
			}
			if err == nil && length >= 0 {
				c.skip = length + 2
			}
		}
		c.line = c.line[:0]
	}
	return true
}
