package sign

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/private"
)

// maxTableValue bounds a value of a key table, in octets.
const maxTableValue = 64 << 10

// splitValues returns the entries of values. Entries are separated by commas; a key
// contains none.
func splitValues(values []string) []string {
	var all []string
	for _, value := range values {
		for text := range strings.SplitSeq(value, ",") {
			if text = strings.TrimSpace(text); text != "" && len(all) <= MaxKeysPerDomain {
				all = append(all, text)
			}
		}
	}
	return all
}

// key makes a key from a value. Errors never show text that may be a key. Beside an
// error it may return the previous key.
func (t *Tables) key(value, name, authors string) (*Key, error) {
	domain, selector, text, err := cutValue(value, name)
	if err != nil {
		return nil, err
	}
	if domain == "%" || domain == "*" {
		domain = authors
	}
	domain, err = mailaddr.ParseDomain(domain)
	if err != nil {
		return nil, errors.New("the key has no domain; write DOMAIN:SELECTOR:KEY, or name the key like its domain")
	}
	selector = strings.ToLower(selector)
	if _, err := mailaddr.ParseDomain(selector + "._domainkey." + domain); err != nil {
		return nil, errors.New("the first word is not a selector; write SELECTOR and the key, or DOMAIN:SELECTOR:KEY")
	}
	if strings.HasPrefix(text, "/") {
		path := filepath.Clean(strings.ReplaceAll(text, "%", domain))
		signer, readErr := t.signers.ofFile(path, t.Group, t.RSA)
		if signer == nil {
			return nil, readErr
		}
		key, err := newKey(domain, selector, path, signer)
		return key, errors.Join(err, readErr)
	}
	if err := t.secret(); err != nil {
		return nil, err
	}
	signer, err := t.signers.ofText(text, t.RSA)
	if err != nil {
		return nil, err
	}
	return newKey(domain, selector, t.Keys.Name, signer)
}

// cutValue splits a value into its parts. A value is one of
//
//	SELECTOR KEY
//	DOMAIN:SELECTOR:KEY
//	/path/SELECTOR.private
//
// with the key in PEM, as the base64 of it alone, or as the path of a file.
func cutValue(value, name string) (domain, selector, key string, err error) {
	if len(value) > maxTableValue {
		return "", "", "", fmt.Errorf("more than %d octets, which is no key", maxTableValue)
	}
	if strings.HasPrefix(value, "/") {
		selector, ok := strings.CutSuffix(filepath.Base(value), keySuffix)
		if !ok {
			return "", "", "", fmt.Errorf("a path alone must end in /SELECTOR%s; write the selector before it", keySuffix)
		}
		return name, selector, value, nil
	}
	first, rest, ok := strings.Cut(strings.NewReplacer("\t", " ", "\n", " ").Replace(value), " ")
	if domain, more, colon := strings.Cut(first, ":"); colon {
		selector, _, ok = strings.Cut(more, ":")
		if !ok {
			return "", "", "", errors.New("want DOMAIN:SELECTOR:KEY")
		}
		return domain, selector, strings.TrimSpace(value[len(domain)+len(selector)+2:]), nil
	}
	if !ok {
		return "", "", "", errors.New("want the selector and the key, or DOMAIN:SELECTOR:KEY")
	}
	return name, first, strings.TrimSpace(rest), nil
}

// secret refuses keys in a table that others can read.
func (t *Tables) secret() error {
	for _, path := range t.Keys.Files {
		info, err := os.Stat(path)
		if err != nil {
			return openError(path, err)
		}
		if err := private.Check(path, info, t.Group, "the private keys in it"); err != nil {
			return err
		}
	}
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(t.Keys.Name, "proxy:"), ":"); kind {
	case "inline", "static":
		return errors.New("the setting itself holds a key, where everyone sees it; write the path of a file")
	case "unionmap":
		return errors.New("a union of tables may name the files of keys, not hold keys; name the one table that does")
	}
	return nil
}

// readKeyText reads a key as it is in a table: in PEM whose line breaks have become
// white space or "\n", or the base64 of it alone. Errors never show its content.
func readKeyText(text string) (crypto.Signer, error) {
	text = strings.NewReplacer(`\r`, "", `\n`, "\n").Replace(text)
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	kind, body := "", text
	if _, rest, ok := strings.Cut(text, begin); ok {
		kind, body, _ = strings.Cut(rest, dashes)
		body, rest, ok = strings.Cut(body, end)
		if !ok || strings.Contains(rest, begin) {
			return nil, errors.New("not one private key in PEM, from its BEGIN line to its END line")
		}
	}
	if strings.Contains(body, "ENCRYPTED") || strings.Contains(body, ":") {
		return nil, errors.New("the key is encrypted, or has lines that are no base64; write it without a passphrase")
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(body), ""))
	if err != nil || len(der) == 0 {
		return nil, errors.New("the key is no base64; write SELECTOR and the key in PEM, or the absolute path of its file")
	}
	if kind != "" {
		return parseKey(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	if key, err := parseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err == nil {
		return key, nil
	}
	return parseKey(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}))
}

// maxSigners bounds the parsed keys of tables that are kept. Others are parsed again.
const maxSigners = 4096

// signerCache keeps parsed keys, because parsing a key takes as long as signing.
type signerCache struct {
	mu      sync.Mutex
	signers map[string]cachedSigner // by path, or by the hash of the text
}

type cachedSigner struct {
	signer crypto.Signer
	file   fileState // of a path
}

// fileState is the data of a file that changes when the file is written or replaced.
type fileState struct {
	modified time.Time
	size     int64
	mode     os.FileMode
}

// ofFile returns the key in a file. The file is read again when it has changed. While
// it cannot be read, ofFile returns its previous key beside the error.
func (c *signerCache) ofFile(path string, group int, engine rsaEngine) (crypto.Signer, error) {
	known := c.get(path)
	info, err := os.Stat(path)
	if err != nil {
		return known.signer, openError(path, err)
	}
	state := fileState{info.ModTime(), info.Size(), info.Mode()}
	if known.signer != nil && known.file == state {
		return known.signer, nil
	}
	signer, err := readKeyFile(path, group)
	if err != nil {
		return known.signer, err
	}
	signer = engine.signer(signer)
	c.put(path, cachedSigner{signer, state})
	return signer, nil
}

// ofText returns the key in a text.
func (c *signerCache) ofText(text string, engine rsaEngine) (crypto.Signer, error) {
	sum := sha256.Sum256([]byte(text))
	at := string(sum[:])
	if known := c.get(at); known.signer != nil {
		return known.signer, nil
	}
	signer, err := readKeyText(text)
	if err != nil {
		return nil, err
	}
	signer = engine.signer(signer)
	c.put(at, cachedSigner{signer: signer})
	return signer, nil
}

func (c *signerCache) get(at string) cachedSigner {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signers[at]
}

func (c *signerCache) put(at string, s cachedSigner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.signers == nil {
		c.signers = make(map[string]cachedSigner)
	}
	if _, known := c.signers[at]; !known && len(c.signers) >= maxSigners {
		for other := range c.signers { // any: the order of a map is random
			delete(c.signers, other)
			break
		}
	}
	c.signers[at] = s
}

// seenKeys are the latest keys of tables, by name.
type seenKeys struct {
	mu   sync.Mutex
	keys map[string]*Key
}

func (s *seenKeys) note(key *Key) {
	name := key.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.keys[name]; known != nil && known.SameAs(key) {
		return
	}
	if s.keys == nil || len(s.keys) >= maxSigners {
		s.keys = make(map[string]*Key)
	}
	s.keys[name] = key
}

func (s *seenKeys) list() []*Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.Collect(maps.Values(s.keys))
	slices.SortFunc(keys, byDomain)
	return keys
}
