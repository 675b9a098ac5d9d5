package redisclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is the way in which servers are found.
type kind uint8

const (
	single kind = iota
	sentinel
	cluster
)

const (
	redisPort    = "6379"
	sentinelPort = "26379"
	// maxServers bounds the servers of an address.
	maxServers = 32
	// maxDatabase is more than any server has.
	maxDatabase = 1 << 16
)

// address is the parsed URL of a store.
type address struct {
	kind     kind
	tls      bool
	user     string
	servers  []string // host:port
	master   string   // of Sentinel
	database int
	prefix   string // of keys
	caFile   string
	// sentinelAuth means that the Sentinels need the password too.
	sentinelAuth bool
	timeout      time.Duration // of one operation, not of the text
}

var schemes = map[string]address{
	"redis":           {kind: single},
	"rediss":          {kind: single, tls: true},
	"redis+sentinel":  {kind: sentinel},
	"rediss+sentinel": {kind: sentinel, tls: true},
	"redis+cluster":   {kind: cluster},
	"rediss+cluster":  {kind: cluster, tls: true},
}

// Schemes returns the schemes that a URL may have.
func Schemes() []string {
	var names []string
	for name := range schemes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// CheckURL returns an error if a URL is not valid. It sends nothing.
func CheckURL(raw string) error {
	_, err := parseURL(raw)
	return err
}

// parseURL parses scheme://[user@]host[:port][,host[:port]…][/path][?settings]. The
// path is a database number. For Sentinel it is the master's name, and a database may
// follow. net/url does not parse lists of hosts.
func parseURL(raw string) (address, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	a, known := schemes[scheme]
	if !ok || !known {
		return address{}, fmt.Errorf("%q is none of the schemes %s", scheme, strings.Join(Schemes(), ", "))
	}
	rest, query, _ := strings.Cut(rest, "?")
	rest, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if strings.Contains(rest[:at], ":") {
			return address{}, errors.New("the URL holds a password, which the process list would show: put it into the password file")
		}
		a.user, rest = rest[:at], rest[at+1:]
	}
	return a, errors.Join(a.readServers(rest), a.readPath(path), a.readSettings(query))
}

func (a *address) readServers(list string) error {
	port := redisPort
	if a.kind == sentinel {
		port = sentinelPort
	}
	hosts := strings.Split(list, ",")
	if len(hosts) > maxServers {
		return fmt.Errorf("more than %d servers", maxServers)
	}
	if a.kind == single && len(hosts) > 1 {
		return errors.New("several servers: use redis+sentinel:// or redis+cluster://")
	}
	for _, host := range hosts {
		server, err := withPort(host, port)
		if err != nil {
			return err
		}
		a.servers = append(a.servers, server)
	}
	return nil
}

func withPort(host, port string) (string, error) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q is no port", port)
	}
	if host == "" || strings.ContainsAny(host, " \t\r\n[]") {
		return "", fmt.Errorf("%q is no host", host)
	}
	return net.JoinHostPort(host, port), nil
}

func (a *address) readPath(path string) error {
	switch a.kind {
	case sentinel:
		a.master, path, _ = strings.Cut(path, "/")
		if a.master == "" {
			return errors.New("no name of the master: write redis+sentinel://host,host/NAME")
		}
	case cluster:
		if path != "" {
			return errors.New("a Cluster has no database numbers: leave the path out")
		}
	}
	if path == "" {
		return nil
	}
	n, err := strconv.ParseUint(path, 10, 32)
	if err != nil || n > maxDatabase {
		return fmt.Errorf("%q is no database number", path)
	}
	a.database = int(n)
	return nil
}

func (a *address) readSettings(query string) error {
	a.prefix = "postern"
	settings, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the part after ? is not name=value&name=value")
	}
	for name, values := range settings {
		value := values[len(values)-1]
		switch name {
		case "prefix":
			if value == "" || len(value) > 64 || strings.Trim(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") != "" {
				return errors.New("prefix: at most 64 letters, digits and -_.: are taken")
			}
			a.prefix = value
		case "ca":
			a.caFile = value
		case "sentinel-auth":
			if value != "yes" && value != "no" {
				return errors.New("sentinel-auth is yes or no")
			}
			a.sentinelAuth = value == "yes"
		default:
			return fmt.Errorf("%.40q is none of the settings prefix, ca, sentinel-auth", name)
		}
	}
	return nil
}

// tlsConfig returns nil for a connection without TLS. It reads the file of the authority.
func (a *address) tlsConfig() (*tls.Config, error) {
	if !a.tls {
		if a.caFile != "" {
			return nil, errors.New("ca is given, but the scheme is not rediss")
		}
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(a.caFile)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; let the daemon's user or one of its groups read it, and pass through every folder above it", err)
	case err != nil:
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", a.caFile)
	}
	return c, nil
}
