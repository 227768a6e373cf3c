// Package listener opens the sockets of the sidecar, serves on a bounded number of connections, and
// drains them.
package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Open opens host:port, or unix:/path with a mode.
func Open(address string, mode fs.FileMode) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listening: %w (another sidecar? choose another address)", err)
		}
		return l, nil
	}
	if err := removeDeadSocket(path); err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	l, err := listenUnix(path, mode)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return l, nil
}

// umask is held while the umask of the process is another one.
var umask sync.Mutex

// listenUnix creates a socket that has its mode from the first moment on: a chmod afterwards would
// leave one in which others can connect. What other goroutines create meanwhile gets fewer
// permissions, not more.
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	umask.Lock()
	defer umask.Unlock()
	before := syscall.Umask(int(0o777 &^ mode.Perm()))
	defer syscall.Umask(before)
	return net.Listen("unix", path)
}

// removeDeadSocket removes what a killed process left behind, and nothing else: a socket that
// answers is in use, and one that cannot be dialled may be.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%s exists and is no socket", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("%s is in use by another process", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

// stopGrace is how long answers in progress may take after the program was asked to stop.
const stopGrace = 5 * time.Second

// Options say how to serve.
type Options struct {
	// Connections bounds the connections at one time. Required.
	Connections int
	// TLS, unless nil, makes it https, with HTTP/2 and HTTP/1.1.
	TLS *tls.Config
	// Track is called for each change of a connection. Default: nothing is.
	Track func(net.Conn, http.ConnState)
}

// Serve answers on l until ctx ends, and then finishes what it has begun.
func Serve(ctx context.Context, l net.Listener, h http.Handler, o Options) error {
	server := &http.Server{
		Handler:           boundBodies(h),
		ReadHeaderTimeout: headTime,
		IdleTimeout:       IdleTime,
		MaxHeaderBytes:    16 << 10,
		ConnState:         o.Track,
		TLSConfig:         o.TLS,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		// Not ctx: it has ended, and the answers in progress get their time.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		stopped <- server.Shutdown(grace)
	})
	serve := server.Serve
	if o.TLS != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	err := serve(newBoundedListener(l, o.Connections))
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	if err := <-stopped; err != nil {
		_ = server.Close() // the grace is over
	}
	return nil
}

// HostPort returns how to reach l from this host.
func HostPort(l net.Listener) string {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		if a.IP.IsUnspecified() {
			return fmt.Sprintf("127.0.0.1:%d", a.Port)
		}
		return a.String()
	}
	return l.Addr().String()
}
