package redisclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"regexp"
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

// dialer makes the connections of one client.
type dialer struct {
	timeout   time.Duration
	secure    func(Side, string) *tls.Config // as of [TLS]
	sentinels bool                           // without a mark (see [marked]), it is a Sentinel that is dialled
	resp2     bool                           // HELLO must not be sent
}

// dial dials as go-redis does, and ends a connection on which a longer text begins.
func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	side := Servers
	if network == marked {
		network = "tcp"
	} else if d.sentinels {
		side = Sentinels
	}
	conn, err := redis.NewDialer(&redis.Options{DialTimeout: d.timeout})(ctx, network, address)
	if err != nil {
		return nil, err
	}
	bounded := &redisConn{Conn: conn, hidesHello: d.resp2}
	if config := d.secure(side, address); config != nil {
		ctx, cancel := context.WithTimeout(ctx, d.timeout)
		defer cancel()
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		bounded.Conn = secure
		return bounded, nil
	}
	if socket, ok := conn.(syscall.Conn); ok {
		return socketConn{bounded, socket}, nil
	}
	return bounded, nil
}

// redisConn follows the lengths that Redis announces: a text is "$N", a line break, N bytes and a
// line break; in RESP3 also with ! and =. One goroutine reads at a time.
type redisConn struct {
	net.Conn
	skip int64  // of the present text are still to come, its line break included
	line []byte // as much as has come of the present line, outside of texts

	hidesHello bool   // a HELLO that is written first is not sent, but refused here
	refusal    []byte // of a HELLO, as far as it has not been read
}

// There are proxies that close a connection on which HELLO is sent, or never answer it. go-redis
// sends it for RESP2, too, and goes on with AUTH when a server refuses it.
var helloRefused = []byte("-ERR unknown command 'HELLO': the URL says protocol=2\r\n")

// isHello finds the command HELLO, as go-redis writes it.
var isHello = regexp.MustCompile(`^\*\d+\r\n\$5\r\n(?i:hello)\r\n`)

// Write sends p, all but the first HELLO of a connection that hides it.
func (c *redisConn) Write(p []byte) (int, error) {
	if c.hidesHello {
		c.hidesHello = false
		if isHello.Match(p) {
			c.refusal = helloRefused
			return len(p), nil
		}
	}
	return c.Conn.Write(p)
}

// socketConn is a redisConn on a bare socket. By SyscallConn go-redis notices, before it sends a
// command, that Redis has closed an idle connection, and takes another one. TLS has no such look.
type socketConn struct {
	*redisConn
	syscall.Conn
}

func (c *redisConn) Read(p []byte) (int, error) {
	if len(c.refusal) > 0 {
		n := copy(p, c.refusal)
		c.refusal = c.refusal[n:]
		return n, nil
	}
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
