package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The kinds of [Endpoint]; the first two are also Go's network names.
const (
	NetworkTCP     = "tcp"
	NetworkUnix    = "unix"
	NetworkSystemd = "systemd"
)

const (
	maxUnixPath = 107 // bytes: sun_path is 108 with its final NUL, unix(7)
	maxFDName   = 255 // characters: FileDescriptorName=, systemd.socket(5)
	spellings   = "write inet:HOST:PORT, unix:PATH, systemd or systemd:NAME"
)

// Endpoint is one address to listen on, in Postfix's notation.
type Endpoint struct {
	Network string // NetworkTCP, NetworkUnix or NetworkSystemd
	// Address is host:port, an absolute path, or the FileDescriptorName of a
	// systemd socket. An empty systemd name means all descriptors that no
	// other endpoint names.
	Address string
	Suffix  []string // the words after "=", nil when there are none
}

// ParseEndpoint reads inet:HOST:PORT, unix:PATH, systemd or systemd:NAME, each
// optionally followed by =WORD,WORD. A relative PATH is below queueDir, Postfix's
// queue_directory, where a chrooted smtpd looks for it. With an empty queueDir it
// is an error. PORT is a number, 0 for one that the kernel picks, or a service
// name. A path cannot hold "=".
//
// The host is required, because inet:PORT is ambiguous: Postfix reads it as the
// loopback address in a client and as all addresses in master.cf.
func ParseEndpoint(s, queueDir string) (Endpoint, error) {
	where, words, hasSuffix := strings.Cut(s, "=")
	e, err := parseAddress(where, queueDir)
	if err == nil && hasSuffix {
		e.Suffix, err = parseSuffix(words)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q: %w", s, err)
	}
	return e, nil
}

func parseAddress(s, queueDir string) (Endpoint, error) {
	kind, rest, hasRest := strings.Cut(s, ":")
	switch {
	case kind == "inet" && hasRest:
		address, err := parseInet(rest)
		return Endpoint{Network: NetworkTCP, Address: address}, err
	case kind == "unix" && hasRest:
		path, err := parsePath(rest, queueDir)
		return Endpoint{Network: NetworkUnix, Address: path}, err
	case kind == "systemd":
		if hasRest && !validFDName(rest) {
			return Endpoint{}, errors.New("systemd:NAME needs the FileDescriptorName= of a .socket unit, printable ASCII without a colon")
		}
		return Endpoint{Network: NetworkSystemd, Address: rest}, nil
	}
	return Endpoint{}, errors.New(spellings)
}

func parseInet(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	switch {
	case err == nil && host == "*":
		return "", errors.New(`"*" is not a host: write inet:0.0.0.0:PORT or inet:[::]:PORT for every address`)
	case strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "["):
		return "", errors.New("an IPv6 address needs brackets: inet:[::1]:PORT")
	case err != nil, host == "":
		return "", errors.New("host and port are both needed, such as inet:127.0.0.1:10045")
	case !validHost(host):
		return "", fmt.Errorf("host %q is neither an IP address nor a host name", host)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err == nil:
		port = strconv.FormatUint(number, 10)
	case errors.Is(err, strconv.ErrRange), !validWord(port):
		return "", fmt.Errorf("port %q is not a number from 0 to 65535 or a service name", port)
	}
	return net.JoinHostPort(host, port), nil
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		// A zone may contain any byte, but String could not write "=" and control
		// characters back.
		return !strings.ContainsFunc(host, unprintable)
	}
	return !strings.ContainsFunc(host, func(r rune) bool {
		return !isAlnum(r) && r != '-' && r != '.' && r != '_'
	})
}

func parsePath(path, queueDir string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("unix: needs a path, such as unix:/run/postern/policyd.sock")
	case strings.ContainsFunc(path, unprintable):
		return "", errors.New("the path holds a control character")
	}
	isDir := strings.HasSuffix(path, "/")
	if !filepath.IsAbs(path) {
		if !filepath.IsAbs(queueDir) {
			return "", errors.New("a relative path lies under Postfix's queue directory: give it with --queue-directory, or write an absolute path")
		}
		path = filepath.Join(queueDir, path)
	}
	path = filepath.Clean(path)
	if isDir || path == "/" {
		return "", errors.New("the path names a directory, not a socket")
	}
	if strings.Contains(path, "=") {
		return "", fmt.Errorf(`the queue directory %s holds "=", which no endpoint can spell: write a symbolic link's path`, queueDir)
	}
	if len(path) > maxUnixPath {
		return "", fmt.Errorf("%s is %d bytes long, a unix socket's path has at most %d", path, len(path), maxUnixPath)
	}
	return path, nil
}

func parseSuffix(s string) ([]string, error) {
	words := strings.Split(s, ",")
	for i, word := range words {
		if !validWord(word) {
			return nil, fmt.Errorf(`after "=" write words of letters and digits, separated by commas, not %q (a path cannot hold "=")`, word)
		}
		if slices.Contains(words[:i], word) {
			return nil, fmt.Errorf("%q is given twice", word)
		}
	}
	return words, nil
}

func validFDName(name string) bool {
	return name != "" && len(name) <= maxFDName &&
		!strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r > '~' || unprintable(r) })
}

func validWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && r != '-' && r != '_' })
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f }

// String returns the endpoint in the notation of [ParseEndpoint], which parses it
// to the same endpoint. A path that was relative is written as an absolute one.
func (e Endpoint) String() string {
	var s string
	switch {
	case e.Network == NetworkTCP:
		s = "inet:" + e.Address
	case e.Network == NetworkSystemd && e.Address == "":
		s = NetworkSystemd
	default:
		s = e.Network + ":" + e.Address
	}
	if len(e.Suffix) > 0 {
		s += "=" + strings.Join(e.Suffix, ",")
	}
	return s
}
