package sign

import (
	"crypto"
	"crypto/rsa"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds of a key store.
const (
	// MaxKeys is the number of keys a store may hold.
	MaxKeys = 10_000
	// MaxKeysPerDomain is the number of signatures a message may get.
	MaxKeysPerDomain = 8
)

// KeySource says where private keys are. Without Dir and KeyTable the store is empty.
type KeySource struct {
	// Dir holds DIR/<domain>/<selector>.private.
	Dir string
	// Credential is the name of a systemd credential; if it is set, Dir is the folder
	// of the service's credentials. LoadCredential=NAME:DIR turns a folder of keys
	// into files named NAME_<domain>_<selector>.private.
	Credential string
	// KeyTable and SigningTable are OpenDKIM's data sets of these names: a path,
	// with "file:" or "refile:" before it, or a list behind "csl:".
	KeyTable, SigningTable string
	// Group is the group whose members may read keys besides their owner: the
	// daemon's own. A negative number means none.
	Group int
	// Tables are tables that have been read already. All other files are read.
	Tables []*Table
	// Before are the keys of the previous load, or nil. When a file cannot be read
	// now, its key from that load still signs.
	Before *Keys
	// RSA returns the signer that uses an RSA key; nil uses the key itself.
	RSA func(*rsa.PrivateKey) crypto.Signer
}

// Keys is one load of all keys. It never changes.
type Keys struct {
	byDomain map[string][]*Key // of the folder
	table    signingTable
	all      []*Key
	idle     map[*Key]bool // of all: no line of the signing table names them
	dirs     []string
	warnings []string
	problems int

	// For the next load: keys by their files, and the rows of tables.
	signers map[string]crypto.Signer
	rows    map[string][]tableLine
}

// All returns the keys by domain and selector. A key of a table that signs for any
// domain occurs once for each domain that the signing table names.
func (k *Keys) All() []*Key { return slices.Clone(k.all) }

// Signing returns those of All that sign some mail. The others are keys of a key table that
// no line of the signing table names, such as the last or the next one of a rotation.
func (k *Keys) Signing() []*Key {
	return slices.DeleteFunc(k.All(), func(key *Key) bool { return k.idle[key] })
}

// Domains returns the domains that have a key, sorted.
func (k *Keys) Domains() []string {
	domains := make(map[string]bool)
	for _, key := range k.all {
		domains[key.Domain] = true
	}
	return slices.Sorted(maps.Keys(domains))
}

// For returns the keys that sign mail of a domain, except those for single senders of it.
// With subdomains, a parent's keys sign the mail of a domain without keys.
func (k *Keys) For(domain string, subdomains bool) []*Key {
	return k.choose(author.Mailbox{Domain: domain}, subdomains)
}

// Of returns the keys of domains, and the domains that have none in their canonical form.
// The error is about a text that is no domain.
func (k *Keys) Of(domains []string) (keys []*Key, none []string, err error) {
	for _, text := range domains {
		domain, err := mailaddr.ParseDomain(text)
		if err != nil {
			return nil, nil, fmt.Errorf("domain %q: %w", text, err)
		}
		none = append(none, domain)
	}
	keys = slices.DeleteFunc(k.All(), func(key *Key) bool { return !slices.Contains(none, key.Domain) })
	none = slices.DeleteFunc(none, func(domain string) bool {
		return slices.ContainsFunc(keys, func(key *Key) bool { return key.Domain == domain })
	})
	return keys, none, nil
}

// Empty reports whether nothing can be signed.
func (k *Keys) Empty() bool { return len(k.signers) == 0 }

// Problems is the number of files, folders and rows that could not be used.
func (k *Keys) Problems() int { return k.problems }

// Warnings are about rows that were read and have no effect.
func (k *Keys) Warnings() []string { return slices.Clone(k.warnings) }

// Dirs returns the folders of keys, also of keys that could not be read. After a
// change in one of them the keys have to be loaded again.
func (k *Keys) Dirs() []string { return slices.Clone(k.dirs) }

// Without returns the keys except those for which out returns true.
func (k *Keys) Without(out func(*Key) bool) *Keys {
	rest := *k
	rest.all = slices.DeleteFunc(slices.Clone(k.all), out)
	rest.byDomain = make(map[string][]*Key, len(k.byDomain))
	for domain, keys := range k.byDomain {
		rest.byDomain[domain] = slices.DeleteFunc(slices.Clone(keys), out)
	}
	rest.table = k.table.without(out)
	return &rest
}

// choose returns the keys for mail of an author. The keys of his own domain come from
// the folder and from the signing table; with subdomains, a domain without keys uses
// those of its nearest parent that has keys in the folder.
func (k *Keys) choose(a author.Mailbox, subdomains bool) []*Key {
	keys, _ := k.addKeys(nil, a, subdomains) // only keys of other tables can conflict
	return keys
}

// addKeys adds the keys for mail of an author to the keys from another source. The error
// names a key that differs between the two; then the one from the other source is
// used.
func (k *Keys) addKeys(keys []*Key, a author.Mailbox, subdomains bool) ([]*Key, error) {
	set := keySet{keys: keys}
	for _, key := range k.table.choose(a) {
		set.join(key)
	}
	for domain := a.Domain; ; {
		for _, key := range k.byDomain[domain] {
			set.join(key)
		}
		_, parent, ok := strings.Cut(domain, ".")
		if len(set.keys) > 0 || !subdomains || !ok {
			break
		}
		domain = parent
	}
	return set.keys[:min(len(set.keys), MaxKeysPerDomain)], set.err()
}

// indexOf returns the index of a key for the same record among keys, or -1.
func indexOf(keys []*Key, key *Key) int {
	return slices.IndexFunc(keys, func(k *Key) bool { return k.Selector == key.Selector && k.Domain == key.Domain })
}
