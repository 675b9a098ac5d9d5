package rotate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/private"
)

// maxTSIGFile bounds the file of a TSIG key, in octets.
const maxTSIGFile = 16 << 10

// TSIGKey is a key that signs updates.
type TSIGKey struct {
	Name      string // as a domain name with its last dot, in lower case
	Algorithm string // likewise
	Secret    config.Secret
}

// algorithms are those of RFC 8945 section 6 that are still recommended or required.
var algorithms = map[string]string{
	"hmac-sha1":   dns.HmacSHA1,
	"hmac-sha224": dns.HmacSHA224,
	"hmac-sha256": dns.HmacSHA256,
	"hmac-sha384": dns.HmacSHA384,
	"hmac-sha512": dns.HmacSHA512,
}

// ParseUpdate parses the value of --dns-update, "tsig:FILE@SERVER". It opens nothing.
func ParseUpdate(text string) (file string, server netip.AddrPort, err error) {
	rest, ok := strings.CutPrefix(text, "tsig:")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at <= 0 {
		return "", server, fmt.Errorf("%q is not tsig:KEYFILE@SERVER, as in tsig:/etc/postern/update.key@192.0.2.53", text)
	}
	server, err = ParseServer(rest[at+1:])
	return rest[:at], server, err
}

// OpenUpdate reads the key file and returns the publisher. Nothing is sent.
func OpenUpdate(file string, server netip.AddrPort, group int) (*Update, error) {
	key, err := readTSIGKey(file, group)
	if err != nil {
		return nil, err
	}
	return &Update{Server: server, Key: key}, nil
}

// readTSIGKey reads a key file in the format of tsig-keygen.
func readTSIGKey(path string, group int) (*TSIGKey, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private.Check(path, info, group, "the TSIG key"); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTSIGFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxTSIGFile {
		return nil, fmt.Errorf("%s: more than %d octets", path, maxTSIGFile)
	}
	key, err := parseTSIGKey(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// parseTSIGKey parses one clause of named.conf: key "NAME" { algorithm A; secret "S"; };
// An error never contains the secret.
func parseTSIGKey(text string) (*TSIGKey, error) {
	tokens, err := namedTokens(text)
	if err != nil {
		return nil, err
	}
	if len(tokens) < 4 || tokens[0] != "key" || tokens[2] != "{" {
		return nil, errors.New(`not a key as tsig-keygen prints it: key "NAME" { algorithm hmac-sha256; secret "..."; };`)
	}
	key := &TSIGKey{Name: dns.CanonicalName(tokens[1])}
	if _, ok := dns.IsDomainName(key.Name); !ok || key.Name == "." {
		return nil, errors.New("the name of the key is not a domain name")
	}
	rest := tokens[3:]
	for len(rest) >= 3 && rest[0] != "}" {
		if rest[2] != ";" {
			return nil, errors.New("a line of the key has no ; at its end")
		}
		if err := key.set(rest[0], rest[1]); err != nil {
			return nil, err
		}
		rest = rest[3:]
	}
	switch {
	case strings.Join(rest, "") != "};":
		return nil, errors.New("the key must end with }; and be the only one in its file")
	case key.Algorithm == "" || key.Secret.Empty():
		return nil, errors.New("the key needs an algorithm and a secret")
	}
	return key, nil
}

func (k *TSIGKey) set(name, value string) error {
	switch name {
	case "algorithm":
		algorithm, ok := algorithms[strings.ToLower(value)]
		if !ok {
			return errors.New("the algorithm is not one of hmac-sha1, -sha224, -sha256, -sha384 and -sha512")
		}
		k.Algorithm = algorithm
	case "secret":
		if secret, err := base64.StdEncoding.DecodeString(value); err != nil || len(secret) == 0 {
			return errors.New("the secret is not base64")
		}
		k.Secret = config.NewSecret(value)
	default:
		return errors.New("a key has an algorithm and a secret, nothing else")
	}
	return nil
}

// namedTokens splits text into the tokens of named.conf: words, strings in quotation
// marks, and the characters { } ; It skips comments of all three kinds.
func namedTokens(text string) (tokens []string, err error) {
	for text != "" {
		switch c := text[0]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			text = text[1:]
		case c == '#' || strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			_, rest, ok := strings.Cut(text[2:], "*/")
			if !ok {
				return nil, errors.New("a comment has no end")
			}
			text = rest
		case c == '"':
			word, rest, ok := strings.Cut(text[1:], `"`)
			if !ok {
				return nil, errors.New("a string has no end")
			}
			tokens, text = append(tokens, word), rest
		case c == '{' || c == '}' || c == ';':
			tokens, text = append(tokens, text[:1]), text[1:]
		default:
			n := strings.IndexAny(text, " \t\r\n{};\"")
			if n < 0 {
				n = len(text)
			}
			tokens, text = append(tokens, text[:n]), text[n:]
		}
	}
	return tokens, nil
}
