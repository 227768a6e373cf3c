package redisclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// Side says what is dialled: a server, or a Sentinel that knows which server is the master.
type Side int

// The sides.
const (
	Servers Side = iota
	Sentinels
)

// TLS returns what says how a connection to host:port is secured; nil for not at all. base is what
// go-redis makes of the URL of cfg.
//
// Each connection verifies the name that it dials. Sentinels and the nodes of a Cluster often
// announce addresses, while certificates are for names: an address may also show a certificate for
// one of the hosts in the URL.
func TLS(base *tls.Config, cfg config.Redis) func(Side, string) *tls.Config {
	hosts := urlHosts(cfg)
	return func(side Side, address string) *tls.Config {
		if base == nil || cfg.TLS.Only == config.TLSServers && side == Sentinels || cfg.TLS.Only == config.TLSSentinels && side == Servers {
			return nil
		}
		own := base.Clone()
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return own
		}
		if net.ParseIP(host) == nil {
			own.ServerName = host
			return own
		}
		if !own.InsecureSkipVerify {
			own.InsecureSkipVerify = true // what tls does by itself knows one name only
			own.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, base.RootCAs, append([]string{host}, hosts...)) }
		}
		return own
	}
}

// verify does what tls does for one name, for any of several.
func verify(s tls.ConnectionState, roots *x509.CertPool, names []string) error {
	chain := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		chain.AddCert(c)
	}
	var first error
	for _, name := range names {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: chain})
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: first}
}

// urlHosts returns the hosts that the URL names.
func urlHosts(cfg config.Redis) (hosts []string) {
	u, err := url.Parse(cfg.URL.Reveal())
	if err != nil {
		return nil // the configuration was checked
	}
	hosts = append(hosts, u.Hostname())
	for _, address := range u.Query()["addr"] {
		if host, _, err := net.SplitHostPort(address); err == nil {
			hosts = append(hosts, host)
		}
	}
	return slices.DeleteFunc(hosts, func(host string) bool { return host == "" })
}

// marked is the network by which a dialer knows that a client with Sentinels dials a server: both
// go through the same one, and only the server goes through the hooks of the client.
const marked = "server"

// markServers is the hook that marks.
type markServers struct{}

func (markServers) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, _, address string) (net.Conn, error) { return next(ctx, marked, address) }
}

func (markServers) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (markServers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// useFiles makes to use the files of from. The certificate and its key are read again for each
// connection, so that a rotation needs no restart; the CAs are read now.
func useFiles(to *tls.Config, from config.RedisTLS) error {
	if to == nil {
		return nil // not rediss://
	}
	if from.CAFile != "" {
		ca, err := os.ReadFile(from.CAFile)
		if err != nil {
			return fmt.Errorf("the CAs of Redis: %w", err)
		}
		to.RootCAs = x509.NewCertPool()
		if !to.RootCAs.AppendCertsFromPEM(ca) {
			return errors.New("the CAs of Redis: " + from.CAFile + " holds no certificate in PEM")
		}
	}
	if from.CertFile != "" {
		c := &clientCertificate{files: from}
		to.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.get() }
	}
	return nil
}

// clientCertificate is what the sidecar shows to Redis. Safe for concurrent use.
type clientCertificate struct {
	files config.RedisTLS

	mu   sync.Mutex
	last *tls.Certificate // that could be read
}

// get returns the certificate as it is now. While a rotation has replaced only one of the two
// files, it is the one before.
func (c *clientCertificate) get() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	switch {
	case err == nil:
		c.last = &now
	case c.last == nil:
		return nil, errors.New("the client certificate or its key cannot be read") // the cause may quote a file
	}
	return c.last, nil
}
