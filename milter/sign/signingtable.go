package sign

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// maxGlobs bounds the patterns that are tried one by one for each mail.
const maxGlobs = 1000

// signingTable chooses the keys that sign an author's mail.
type signingTable struct {
	// rules are by pattern: a local part or nothing, "@", and then a domain, a domain
	// with a dot before it (all names below it), or "*" (all domains).
	rules map[string]*rule
	// globs are all other patterns.
	globs []*rule
	// firstMatch lets the first line that matches decide, as OpenDKIM does in a file
	// of patterns. Without it, the most specific line decides.
	firstMatch bool
	named      map[string]*namedKey
}

// rule is a pattern with the entries of its lines.
type rule struct {
	line    tableLine // the first one
	glob    string
	entries []entry
}

// entry is one signature: the name of a key and the identity in i=.
type entry struct {
	name   string // "%" for the author's domain
	signer string // with "%" for the author's domain; "" for none
	// beside is set when the key does not align, and signs only beside others that
	// do: that of a provider, for example.
	beside bool
}

func (e entry) nameFor(domain string) string {
	if e.name == "%" {
		return domain
	}
	return e.name
}

// choose returns the keys of the rule for an author, without those whose domain
// would not align with the author's, unless they sign beside one that does.
func (t *signingTable) choose(a author.Mailbox) []*Key {
	r := t.find(mailaddr.Fold(a.Local), a.Domain)
	if r == nil {
		return nil
	}
	keys := make([]*Key, 0, len(r.entries))
	for _, e := range r.entries {
		named := t.named[e.nameFor(a.Domain)]
		if named == nil {
			continue
		}
		key := named.key(a.Domain)
		if key != nil && (e.beside || covers(key.Domain, a.Domain)) && indexOf(keys, key) < 0 {
			keys = append(keys, key.as(e.signer, a.Domain))
		}
	}
	set := keySet{keys: keys}
	set.alignOne(a.Domain)
	return set.keys
}

// find returns the rule for an address, or nil.
func (t *signingTable) find(local, domain string) *rule {
	if len(t.rules)+len(t.globs) == 0 {
		return nil
	}
	var found *rule
	for _, pattern := range patternsFor(local, domain) {
		r := t.rules[pattern]
		if r != nil && (found == nil || t.firstMatch && r.line.number < found.line.number) {
			found = r
		}
	}
	for _, r := range t.globs {
		if found != nil && found.line.number < r.line.number {
			break
		}
		if matchGlob(r.glob, local+"@"+domain) {
			return r
		}
	}
	return found
}

func (t *signingTable) without(out func(*Key) bool) signingTable {
	rest := *t
	rest.named = make(map[string]*namedKey, len(t.named))
	for name, named := range t.named {
		rest.named[name] = named.without(out)
	}
	return rest
}

// as returns the key with an identity for i=, if that belongs to the key's domain.
func (k *Key) as(signer, domain string) *Key {
	if signer == "" {
		return k
	}
	identity := strings.ReplaceAll(signer, "%", domain)
	_, at, _ := strings.Cut(identity, "@")
	if !covers(k.Domain, strings.ToLower(at)) {
		return k
	}
	named := *k
	named.Identity = identity
	return &named
}

// covers reports whether a signature of domain aligns with an author's domain.
func covers(domain, authors string) bool {
	return domain == authors || strings.HasSuffix(authors, "."+domain)
}

// patternsFor lists what can match an address, the most specific first, in the
// order in which OpenDKIM asks its tables.
func patternsFor(local, domain string) []string {
	var patterns []string
	add := func(domain string) {
		if local != "" {
			patterns = append(patterns, local+"@"+domain)
		}
		patterns = append(patterns, "@"+domain)
	}
	add(domain)
	for parent := strings.TrimPrefix(domain, "."); ; {
		_, next, ok := strings.Cut(parent, ".")
		if !ok {
			break
		}
		add("." + next)
		parent = next
	}
	add("*")
	return patterns
}

// matchGlob reports whether text matches a pattern in which "*" is any text.
func matchGlob(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	text, ok := strings.CutPrefix(text, first)
	if !ok || !star {
		return ok && text == ""
	}
	for {
		var next string
		if next, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(text, next)
		}
		i := strings.Index(text, next)
		if i < 0 {
			return false
		}
		text = text[i+len(next):]
	}
}

func (l *loader) loadSigningTable(set DataSet, named map[string]*namedKey) {
	t := signingTable{rules: make(map[string]*rule), firstMatch: set.Patterns, named: named}
	for _, line := range l.readTable(set) {
		pattern, glob, err := parsePattern(line.key, set.Patterns)
		if err != nil {
			l.fail(line.errorf("%q: %w", line.key, err))
			continue
		}
		entries, err := l.parseEntries(line, pattern, named)
		if err != nil {
			l.fail(err)
		}
		if len(entries) == 0 {
			continue
		}
		if err := t.addRule(rule{line: line, glob: glob, entries: entries}, pattern); err != nil {
			l.fail(err)
		}
	}
	if t.firstMatch {
		l.checkOrder(&t)
	}
	l.settle(&t)
	l.keys.table = t
	l.keys.idle = l.idle(&t)
}

// idle returns the keys of the key table that no line of the signing table names, and that
// the folder has not.
func (l *loader) idle(t *signingTable) map[*Key]bool {
	signs := make(map[*Key]bool)
	for _, key := range slices.Concat(slices.Collect(maps.Values(l.keys.byDomain))...) {
		signs[key] = true
	}
	names := t.names()
	for name, row := range t.named {
		// "%" can be any row that is called as a domain.
		if _, err := mailaddr.ParseDomain(name); names[name] || names["%"] && err == nil {
			for _, key := range row.keys() {
				signs[key] = true
			}
		}
	}
	idle := make(map[*Key]bool)
	for _, key := range l.keys.all {
		if !signs[key] {
			idle[key] = true
		}
	}
	return idle
}

// names returns the names of rows of the key table that the lines have.
func (t *signingTable) names() map[string]bool {
	names := make(map[string]bool)
	for _, r := range slices.Concat(t.globs, slices.Collect(maps.Values(t.rules))) {
		for _, e := range r.entries {
			names[e.name] = true
		}
	}
	return names
}

// parseEntries reads the value of a line: names of keys, separated by commas, each
// with an optional ":signer". Wrong ones are left out.
func (l *loader) parseEntries(line tableLine, pattern string, named map[string]*namedKey) ([]entry, error) {
	var entries, unaligned []entry
	var errs []error
	for text := range strings.SplitSeq(line.value, ",") {
		name, signer, _ := strings.Cut(strings.TrimSpace(text), ":")
		e := entry{name: strings.TrimSpace(name), signer: strings.TrimSpace(signer)}
		if !isIdentity(e.signer) {
			l.warn(line.errorf("%q is not an identity for i=, so the signature has no i=; write user@domain, user@%% or @domain", e.signer))
			e.signer = ""
		}
		switch aligns, err := checkEntry(line, pattern, e, named); {
		case err != nil:
			errs = append(errs, err)
		case aligns:
			entries = append(entries, e)
		default:
			e.beside = true
			unaligned = append(unaligned, e)
		}
	}
	if len(entries) > 0 {
		return append(entries, unaligned...), errors.Join(errs...)
	}
	for _, e := range unaligned {
		_, domain, _ := strings.Cut(pattern, "@")
		errs = append(errs, line.errorf("the key %q is of %s, which does not align with %s", e.name, named[e.name].domain, strings.TrimPrefix(domain, ".")))
	}
	return nil, errors.Join(errs...)
}

// checkEntry reports whether a key aligns with the addresses that the pattern
// matches. It returns an error when the key does not exist.
func checkEntry(line tableLine, pattern string, e entry, named map[string]*namedKey) (aligns bool, err error) {
	if e.name == "%" {
		return true, nil
	}
	key, ok := named[e.name]
	if !ok {
		return false, line.errorf("no key is named %q", e.name)
	}
	_, domain, _ := strings.Cut(pattern, "@")
	domain, below := strings.CutPrefix(domain, ".")
	switch {
	case key.domain == "", key.domain == "%", domain == "", domain == "*", covers(key.domain, domain):
		return true, nil
	case below && covers(domain, key.domain):
		return true, nil // it aligns with some of what the pattern matches
	}
	return false, nil
}

// isIdentity reports whether a signer can be written into i= as it is.
func isIdentity(signer string) bool {
	return signer == "" || strings.Count(signer, "@") == 1 && strings.Trim(signer, "@%abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+") == ""
}

// addRule adds a line to its pattern. A pattern may have several lines: its mail then
// gets all the signatures, which have to be of one domain.
func (t *signingTable) addRule(r rule, pattern string) error {
	if r.glob != "" {
		if len(t.globs) == maxGlobs {
			return r.line.errorf("more than %d patterns other than *@domain, *@*.domain, user@domain and *", maxGlobs)
		}
		t.globs = append(t.globs, &r)
		return nil
	}
	known := t.rules[pattern]
	if known == nil {
		t.rules[pattern] = &r
		return nil
	}
	first := t.domainOf(known.entries[0])
	for _, e := range r.entries {
		switch domain := t.domainOf(e); {
		case domain != first && domain != "" && first != "" && !e.beside:
			return r.line.errorf("ambiguous: an earlier line signs the same mail for %s", first)
		case len(known.entries) == MaxKeysPerDomain:
			return r.line.errorf("more than %d keys", MaxKeysPerDomain)
		case !slices.Contains(known.entries, e):
			known.entries = append(known.entries, e)
		}
	}
	return nil
}

// domainOf returns the domain that an entry signs for, in the form of namedKey.
func (t *signingTable) domainOf(e entry) string {
	if key := t.named[e.name]; key != nil {
		return key.domain
	}
	return "%"
}

// checkOrder warns of lines that never decide, because an earlier line matches the
// same mail.
func (l *loader) checkOrder(t *signingTable) {
	for _, pattern := range slices.SortedFunc(maps.Keys(t.rules), func(a, b string) int { return t.rules[a].line.number - t.rules[b].line.number }) {
		r := t.rules[pattern]
		local, domain, _ := strings.Cut(pattern, "@")
		for _, wider := range patternsFor(local, domain) {
			w := t.rules[wider]
			if w != nil && w.line.number < r.line.number && !slices.Equal(w.entries, r.entries) {
				l.warn(r.line.errorf("ambiguous: line %d matches the same mail first; move it below this one", w.line.number))
				break
			}
		}
	}
}

// parsePattern reads the key of a line of the signing table. It returns a pattern for
// rules or, if the key has another form, a glob.
func parsePattern(s string, wildcards bool) (pattern, glob string, err error) {
	local, domain, ok := strings.Cut(s, "@")
	switch {
	case s == "*":
		return "@*", "", nil
	case !ok && wildcards && strings.HasPrefix(s, "*."):
		local, domain = "*", s
	case !ok && wildcards && strings.Contains(s, "*"):
		return "", mailaddr.Fold(s), nil
	case !ok && wildcards:
		return "", "", errors.New("a pattern matches whole addresses; write *@domain")
	case !ok:
		local, domain = "*", s
	}
	domain, ok = canonicalPattern(domain, wildcards)
	switch {
	case local != "" && (local == "*" || !strings.Contains(local, "*")) && ok:
	case wildcards && strings.Contains(s, "*"):
		return "", mailaddr.Fold(s), nil
	default:
		return "", "", errors.New("only *@domain, *@*.domain, user@domain and * are read")
	}
	if local == "*" {
		return "@" + domain, "", nil
	}
	return mailaddr.Fold(local) + "@" + domain, "", nil
}

// canonicalPattern returns the domain of a pattern in the form that rules use.
func canonicalPattern(domain string, wildcards bool) (string, bool) {
	if domain == "*" {
		return domain, true
	}
	name := domain
	if wildcards && strings.HasPrefix(domain, "*.") {
		domain, name = domain[1:], domain[2:]
	} else if !wildcards && strings.HasPrefix(domain, ".") {
		name = domain[1:]
	}
	canonical, err := mailaddr.ParseDomain(name)
	return domain[:len(domain)-len(name)] + canonical, err == nil
}
