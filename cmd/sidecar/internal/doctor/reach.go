package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"
)

// target is an address to dial.
type target struct {
	who     string      // Redis or WeChat
	network string      // tcp or unix
	address string      // host:port, or a path
	tls     *tls.Config // nil: no TLS
	named   string      // where the configuration says so
	plain   string      // what to write there for a peer without TLS
	secured string      // and for one with TLS
}

// reach looks up, dials and shakes hands, reports each step, and returns the connection; nil if it
// does not come so far.
func (e *examination) reach(ctx context.Context, check string, t target) net.Conn {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	dialled := t.address
	if t.network == "tcp" {
		host, port, err := net.SplitHostPort(t.address)
		if err != nil {
			e.fail(check+" name", t.address+" is not host:port", "correct "+t.named)
			return nil
		}
		ips, ok := e.resolve(ctx, check, host, t)
		if !ok {
			return nil
		}
		dialled = net.JoinHostPort(ips[0], port)
		if len(ips) > 1 {
			dialled = t.address // let the dialer try them all
		}
	}
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, t.network, dialled)
	if err != nil {
		text, fix := undialled(t, err)
		e.fail(check+" connection", text, fix)
		return nil
	}
	e.ok(check+" connection", t.address+" accepts connections")
	if t.tls == nil {
		return conn
	}
	cfg := t.tls.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(t.address)
	}
	secure := &secured{}
	own := cfg.GetClientCertificate
	cfg.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		secure.askedForCertificate = true
		if own != nil {
			return own(i)
		}
		return &tls.Certificate{}, nil
	}
	secure.Conn = tls.Client(conn, cfg)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		text, fix := unsecured(t, err)
		e.fail(check+" TLS", text, fix)
		return nil
	}
	e.certificate(check+" TLS", t, cfg, secure.ConnectionState())
	return secure
}

// certificate judges the certificate of a peer. Where the configuration says not to (skip_verify),
// nothing else has.
func (e *examination) certificate(check string, t target, cfg *tls.Config, state tls.ConnectionState) {
	if !cfg.InsecureSkipVerify || cfg.VerifyConnection != nil { // the latter verifies more than one name
		e.ok(check, "the certificate is good, "+tls.VersionName(state.Version))
		return
	}
	const risk = "skip_verify=true: any server at this address is taken for "
	chain := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		chain.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: cfg.ServerName, Roots: cfg.RootCAs, Intermediates: chain})
	if err == nil {
		e.warn(check, risk+t.who+". The certificate is good", "take skip_verify out of "+t.named+": it is not needed")
		return
	}
	text, fix := unsecured(t, err)
	e.warn(check, risk+t.who+", and reads its password and the tokens; "+text, fix+"; then take skip_verify out of "+t.named)
}

// secured is a connection whose peer may have demanded a client certificate. With TLS 1.3 it says
// only later that it wanted more than no answer, by an alert that a reset may overtake.
type secured struct {
	*tls.Conn
	askedForCertificate bool
}

func (e *examination) resolve(ctx context.Context, check, host string, t target) ([]string, bool) {
	if net.ParseIP(host) != nil {
		return []string{host}, true
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err == nil {
		e.ok(check+" name", host+" is "+strings.Join(ips, ", "))
		return ips, true
	}
	text, fix := "the name service does not answer: ", "look at the pod's DNS: may it reach the name service?"
	if d, ok := errors.AsType[*net.DNSError](err); ok && d.IsNotFound {
		text = "there is no such name: "
		fix = "correct the host in " + t.named + ", or let this pod's DNS know it"
		if t.who == "Redis" {
			fix = "correct the host in " + t.named + "; a Service of another namespace is name.namespace.svc"
		}
	}
	e.fail(check+" name", text+host, fix)
	return nil, false
}

func undialled(t target, err error) (text, fix string) {
	why := err.Error()
	if o, ok := errors.AsType[*net.OpError](err); ok {
		why = o.Err.Error()
	}
	switch timeout, isNet := errors.AsType[net.Error](err); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return t.address + " refuses connections: nothing listens there",
			"start it, or correct host and port in " + t.named
	case errors.Is(err, fs.ErrNotExist):
		return t.address + " does not exist", "mount the directory of the socket, or correct the path in " + t.named
	case errors.Is(err, fs.ErrPermission):
		return t.address + ": this user may not use it", "run with the group of the socket, or change its mode"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return t.address + " does not answer: something drops the packets",
			"let a firewall or NetworkPolicy pass this pod's connections to " + t.address + ", or correct " + t.named
	}
	return t.address + ": " + why, "let this pod reach " + t.address + ", or correct " + t.named
}

func unsecured(t target, err error) (text, fix string) {
	host, _, _ := net.SplitHostPort(t.address)
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return t.address + " answers, but without TLS", t.plain
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the certificate of " + t.address + " is signed by an authority that this host does not know",
			"give its CA certificate in a file and name that in the environment variable SSL_CERT_FILE"
	}
	if h, ok := errors.AsType[x509.HostnameError](err); ok {
		if t.who == "Redis" && net.ParseIP(host) != nil {
			return "the certificate of " + t.address + " is for other names: " + strings.Join(h.Certificate.DNSNames, ", "),
				"let " + t.named + " name one of these, the nodes announce their names, or the certificate hold " + host
		}
		return "the certificate of " + t.address + " is for other names: " + strings.Join(h.Certificate.DNSNames, ", "),
			"use one of these names in " + t.named + ", or a certificate for " + host
	}
	if c, ok := errors.AsType[x509.CertificateInvalidError](err); ok && c.Reason == x509.Expired {
		return "the certificate of " + t.address + " is not valid now", "renew it, or set this host's clock: it says " + time.Now().UTC().Format(time.RFC3339)
	}
	if errors.Is(err, syscall.ECONNRESET) || strings.HasSuffix(err.Error(), "EOF") {
		return t.address + " closes the connection in the TLS handshake",
			"if it speaks without TLS, " + t.plain + "; else look at the log of " + t.who + ", and at what is before it"
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return t.address + " does not answer the TLS handshake: it probably speaks without TLS", t.plain
	}
	return "TLS with " + t.address + ": " + err.Error(), "let " + t.who + " and this host agree on TLS"
}
