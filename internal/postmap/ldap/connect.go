package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

const (
	defaultPort    = "389"
	defaultTLSPort = "636"
	defaultSocket  = "/run/slapd/ldapi"
	maxPort        = 65535
)

// directory is how the servers are reached.
type directory struct {
	conf     *conf.Conf
	names    []string
	port     string
	startTLS bool
	tls      remote.TLSFiles
	bind     binding
}

// binding is how a connection says who it is.
type binding struct {
	kind         string // "no", "simple" or "external"
	dn, password string
}

func readDirectory(c *conf.Conf) *directory {
	d := &directory{
		conf: c, names: c.List("server_host", "localhost"),
		port:     strconv.Itoa(c.Int("server_port", 389, 1, maxPort)),
		startTLS: c.Bool("start_tls", false),
		tls: remote.TLSFiles{
			CAFile: c.String("tls_ca_cert_file", ""), CAPath: c.String("tls_ca_cert_dir", ""),
			Cert: c.String("tls_cert", ""), Key: c.String("tls_key", ""),
		},
		bind: readBinding(c),
	}
	if c.Bool("tls_require_cert", false) {
		d.tls.Verify = remote.VerifyName
	}
	if version := c.Int("version", 3, 2, 3); version == 2 {
		c.Warn("version", "version 2 of LDAP was withdrawn (RFC 3494); version 3 is spoken")
	}
	c.Refuse("name the server that the referrals lead to", []string{"no", "0", ""}, "chase_referrals")
	c.Refuse("take it out: the ciphers are chosen by Go's crypto/tls", []string{""}, "tls_cipher_suite")
	c.Ignore("is ignored, as in Postfix", "cache", "cache_expiry", "cache_size")
	c.Ignore("changes no answer and is ignored", "debuglevel", "tls_random_file")
	return d
}

func readBinding(c *conf.Conf) binding {
	b := binding{dn: c.String("bind_dn", ""), password: c.Secret("bind_pw")}
	switch kind := strings.ToLower(c.String("bind", "yes")); kind {
	case "no", "none":
		b.kind = "no"
	case "yes", "simple":
		b.kind = "simple"
	case "sasl":
		b.kind = "external"
		if mechs := c.List("sasl_mechs", ""); len(mechs) != 1 || !strings.EqualFold(mechs[0], "EXTERNAL") {
			c.Fail("bind", "sasl is supported with sasl_mechs = EXTERNAL only", "bind with bind_dn and bind_pw, or by a certificate")
		}
		c.Refuse("take it out", []string{"", "0"}, "sasl_realm", "sasl_authz_id", "sasl_minssf")
	default:
		c.Fail("bind", fmt.Sprintf("%.40q is not allowed", kind), "write no, yes or sasl")
	}
	if b.kind != "external" {
		c.Ignore("is of no meaning without bind = sasl", "sasl_mechs", "sasl_realm", "sasl_authz_id", "sasl_minssf")
	}
	return b
}

// server is one host of the list.
type server struct {
	network, address string
	name             string // for certificates
	overTLS          bool   // from the first octet
}

func (d *directory) hosts() ([]remote.Host[*ldap.Conn], error) {
	config, err := d.tls.Config()
	if err != nil {
		return nil, fmt.Errorf("%s: TLS: %w", d.conf.Path, err)
	}
	var hosts []remote.Host[*ldap.Conn]
	for _, name := range d.names {
		s, err := d.server(name)
		if err != nil {
			return nil, d.conf.Error("server_host", err.Error(), "write host, host:port, or an ldap://, ldaps:// or ldapi:// URL")
		}
		if s.overTLS && d.startTLS {
			return nil, d.conf.Error("start_tls", "cannot be had on ldaps://, which is TLS already", "keep one of them")
		}
		own := config.Clone()
		own.ServerName = s.name
		hosts = append(hosts, remote.Host[*ldap.Conn]{
			Name: "ldap server " + name,
			Dial: func(ctx context.Context) (*ldap.Conn, error) { return d.dial(ctx, s, own) },
		})
	}
	if len(hosts) == 0 {
		return nil, d.conf.Error("server_host", "is empty", "name a server")
	}
	return hosts, nil
}

// server reads one of the hosts.
func (d *directory) server(name string) (server, error) {
	if !isURL(name) {
		return tcpServer(name, d.port, false)
	}
	if strings.HasPrefix(strings.ToLower(name), "ldapi:") {
		return unixServer(name)
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return server{}, fmt.Errorf("%q is no URL with a host", name)
	}
	if strings.EqualFold(u.Scheme, "ldaps") {
		return tcpServer(u.Host, defaultTLSPort, true)
	}
	return tcpServer(u.Host, defaultPort, false)
}

// unixServer reads ldapi://%2Fpath.
func unixServer(name string) (server, error) {
	_, rest, _ := strings.Cut(name, "://")
	rest, _, _ = strings.Cut(rest, "/")
	path, err := url.PathUnescape(rest)
	if err != nil {
		return server{}, fmt.Errorf("%q: %w", name, err)
	}
	if path == "" {
		path = defaultSocket
	}
	return server{network: "unix", address: path, name: "localhost"}, nil
}

func tcpServer(name, port string, overTLS bool) (server, error) {
	host := name
	if h, p, err := net.SplitHostPort(name); err == nil {
		host, port = h, p
	}
	host = strings.Trim(host, "[]")
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > maxPort || host == "" {
		return server{}, fmt.Errorf("%q is no server", name)
	}
	return server{network: "tcp", address: net.JoinHostPort(host, port), name: host, overTLS: overTLS}, nil
}

// dial connects, starts TLS and binds.
func (d *directory) dial(ctx context.Context, s server, config *tls.Config) (*ldap.Conn, error) {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, err
	}
	if s.overTLS {
		secure := tls.Client(raw, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("TLS: %w", err), raw.Close())
		}
		raw = secure
	}
	conn := ldap.NewConn(raw, s.overTLS)
	conn.Start()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetTimeout(max(time.Until(deadline), time.Millisecond))
	}
	if err := d.greet(conn, config); err != nil {
		_ = conn.Close() // the first error is the one that explains it
		return nil, err
	}
	return conn, nil
}

func (d *directory) greet(conn *ldap.Conn, config *tls.Config) error {
	if d.startTLS {
		if err := conn.StartTLS(config); err != nil {
			return fmt.Errorf("start TLS: %w", err)
		}
	}
	var err error
	switch {
	case d.bind.kind == "external":
		err = conn.ExternalBind()
	case d.bind.kind == "no" || d.bind.dn == "" && d.bind.password == "":
		// Version 3 needs no bind to be anonymous.
	case d.bind.password == "":
		err = conn.UnauthenticatedBind(d.bind.dn)
	default:
		err = conn.Bind(d.bind.dn, d.bind.password)
	}
	if err != nil {
		return fmt.Errorf("bind as %q: %w", d.bind.dn, err)
	}
	return nil
}
