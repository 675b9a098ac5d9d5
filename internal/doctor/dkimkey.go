package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/authority"
	"github.com/postern-mail/postern/milter/sign"
)

// maxAliases bounds the number of CNAME records that are followed.
const maxAliases = 8

// The states of a key at a server.
const (
	statePublished = "published"
	stateNone      = "none"
	stateOther     = "other"
	stateError     = "error"
)

// checkKey checks a key, the record that a resolver returns for it, and the record at
// each authoritative server.
func (f *Facts) checkKey(ctx context.Context, key *sign.Key) (DKIMKey, []Finding) {
	one := DKIMKey{Selector: key.Selector, Algorithm: key.Algorithm, Bits: key.Bits, Path: key.Path, Names: []string{key.Name()}, Servers: []DKIMServer{}}
	found := checkSize(key)
	resolved := f.resolved(ctx, key)
	found = append(found, resolved...)
	for _, of := range f.checkServers(ctx, key, &one, len(resolved) == 0) {
		of.Check = aboutServers
		found = append(found, of)
	}
	one.Level = worst(found)
	return one, orOK(found, "%s: %s, published%s", key.Name(), kindOf(key), one.where())
}

// kindOf returns the type and size of a key.
func kindOf(key *sign.Key) string {
	if key.Bits > 0 {
		return fmt.Sprintf("%s of %d bit", key.Algorithm, key.Bits)
	}
	return key.Algorithm
}

// where returns the name of the record and the names that it leads to, as far as they
// were queried.
func (k *DKIMKey) where() string {
	text := ""
	if len(k.Names) > 1 {
		text = " through CNAME at " + k.Names[len(k.Names)-1]
	}
	if n := len(k.Servers); n > 0 {
		text += fmt.Sprintf(", the same at all %d authoritative servers", n)
	}
	return text
}

func checkSize(key *sign.Key) []Finding {
	if key.Bits > 0 && key.Bits < bulkBits {
		return []Finding{warnf("make a new key of 2048 bit with another selector: postern dkim genkey --selector NEW "+key.Domain,
			"%s: an RSA key of %d bit is short; large receivers want %d", key.Name(), key.Bits, bulkBits)}
	}
	return nil
}

// resolved judges the record that a resolver, and so a receiver, gets for a key.
func (f *Facts) resolved(ctx context.Context, key *sign.Key) []Finding {
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.dns)
	defer cancel()
	answer, err := f.DNS.Query(ctx, key.Name(), resolver.TypeTXT)
	if err != nil {
		return []Finding{failf("look at the name servers of "+key.Domain+", at a CNAME record there, and at DNSSEC", "%s cannot be looked up: %v", key.Name(), err)}
	}
	if len(answer.TXT) > 0 {
		return judgeRecords(key, answer.TXT)
	}
	if target := strings.TrimSuffix(answer.Name, "."); target != "" && target != key.Name() {
		return []Finding{failf("correct the CNAME record, or publish the record at "+target, "%s is a CNAME to %s, where there is no TXT record", key.Name(), target)}
	}
	return []Finding{f.misplaced(ctx, key)}
}

// misplaced looks for the record at the name that results from a missing dot at the
// end.
func (f *Facts) misplaced(ctx context.Context, key *sign.Key) Finding {
	wrong := key.Name() + "." + key.Domain
	if records, err := f.txt(ctx, wrong); err == nil && len(records) > 0 && dkim.ComparePublished(records, key.Signer.Public()) != dkim.Unpublished {
		return failf("name the record "+key.Selector+"._domainkey, or end its name with a dot", "%s has no record; it is at %s", key.Name(), wrong)
	}
	return failf("publish what postern dkim dns "+key.Domain+" prints, or "+f.withoutKey(key), "%s has no record: receivers cannot verify what the key signs", key.Name())
}

// judgeRecords judges the TXT records at the name of a key.
func judgeRecords(key *sign.Key, records []string) []Finding {
	public, name := key.Signer.Public(), key.Name()
	fix := "publish what postern dkim dns " + key.Domain + " prints"
	want, _ := key.Record()
	var found, wrong []Finding
	keys, same := 0, false
	for _, record := range records {
		i := dkim.Inspect(record, public)
		if i.Err == nil || i.Revoked {
			keys++
		}
		if i.Same {
			same = true
			found = append(found, judgeOwn(key, i)...)
			continue
		}
		wrong = append(wrong, judgeOther(name, fix, i, dkim.Misprint(record, want)))
	}
	switch {
	case same && keys > 1:
		found = append(found, warnf("leave one of them", "%s has %d key records: some verifiers take any, some the first, some none", name, keys))
	case !same && dkim.SplitOver(records, public):
		return []Finding{failf("make them strings of one record, as postern dkim dns prints it", "%s: the key is split over %d records, which verifiers do not put together", name, len(records))}
	case !same:
		found = wrong
	}
	return found
}

// judgeOwn judges a record that holds the key.
func judgeOwn(key *sign.Key, i dkim.Inspection) (found []Finding) {
	if i.Testing {
		found = append(found, warnf("take t=y out of the record when it works", "%s is published as a test (t=y): receivers treat its mail as unsigned", key.Name()))
	}
	if i.Unusable != "" {
		found = append(found, failf("publish what postern dkim dns "+key.Domain+" prints", "%s: verifiers refuse the key: %s", key.Name(), i.Unusable))
	}
	if _, at, ok := strings.Cut(key.Identity, "@"); ok && i.Strict && !strings.EqualFold(at, key.Domain) {
		found = append(found, failf("take t=s out of the record", "%s has t=s, and the key signs with i=%s", key.Name(), key.Identity))
	}
	return found
}

// judgeOther judges a record that does not hold the key.
func judgeOther(name, fix string, i dkim.Inspection, misprint string) Finding {
	switch {
	case misprint != "":
		return failf(fix, "%s: the record is no use: %s", name, misprint)
	case i.Revoked:
		return failf("publish the key again, or make a new one with another selector and remove this one", "%s is revoked (empty p=)", name)
	case i.Err != nil:
		return failf(fix, "%s: the record cannot be used: %v", name, i.Err)
	default:
		return failf(fix, "%s holds another key: what is signed fails everywhere", name)
	}
}

// checkServers asks each authoritative server and follows CNAME records. seen is set if
// a resolver has the right record.
func (f *Facts) checkServers(ctx context.Context, key *sign.Key, one *DKIMKey, seen bool) []Finding {
	ask := authority.Asker{DNS: f.DNS, Timeout: f.Options.bounds.dns / 4, Port: f.Options.dnsPort}
	name := key.Name()
	for range maxAliases {
		answer, err := ask.TXT(ctx, name)
		if err != nil {
			return []Finding{warnf("look at the name servers of "+key.Domain, "%s: its authoritative servers cannot be found: %v", name, err)}
		}
		target, found := agreeOnAlias(name, answer.Replies)
		if len(found) > 0 {
			return found
		}
		if target == "" {
			return one.agree(key, name, answer, seen)
		}
		if name = strings.TrimSuffix(target, "."); slices.Contains(one.Names, name) {
			break
		}
		one.Names = append(one.Names, name)
	}
	return []Finding{failf("correct the CNAME records", "%s: more than %d CNAME records behind each other, or a circle of them", key.Name(), maxAliases)}
}

// agreeOnAlias returns the CNAME target of all servers that answer, or "" if none has a
// CNAME record.
func agreeOnAlias(name string, replies []authority.Reply) (target string, found []Finding) {
	first := true
	for i := range replies {
		r := &replies[i]
		switch {
		case r.Err != nil:
		case first:
			target, first = r.Alias, false
		case r.Alias != target:
			return "", []Finding{failf("wait until the zone has reached all servers, or correct the one that is behind",
				"%s: %s has %s, others have %s", name, r, aliasText(r.Alias), aliasText(target))}
		}
	}
	return target, nil
}

func aliasText(target string) string {
	if target == "" {
		return "no CNAME record"
	}
	return "a CNAME record to " + strings.TrimSuffix(target, ".")
}

// agree records the answer of each server, and judges whether they agree.
func (k *DKIMKey) agree(key *sign.Key, name string, answer authority.Answer, seen bool) (found []Finding) {
	having := make(map[string][]string) // state to servers
	for i := range answer.Replies {
		r := &answer.Replies[i]
		state := DKIMServer{Server: strings.TrimSuffix(r.Server, "."), State: stateOf(key, r)}
		if r.Addr.IsValid() {
			state.Address = r.Addr.String()
		}
		if r.Err != nil {
			state.Error = r.Err.Error()
			found = append(found, warnf("correct the server, or take it out of the NS records of "+strings.TrimSuffix(answer.Zone, "."), "%s: %s gives no answer: %v", name, r, r.Err))
		}
		if state.State == statePublished {
			k.Strings = max(k.Strings, stringsOf(key, r))
		}
		k.Servers = append(k.Servers, state)
		having[state.State] = append(having[state.State], r.String())
	}
	good, missing := having[statePublished], slices.Concat(having[stateNone], having[stateOther])
	switch {
	case len(good) > 0 && len(missing) > 0:
		found = append(found, failf("wait until the zone has reached all servers; look at the transfer to those that are behind",
			"%s: %s has not the record that the other servers have: some receivers cannot verify", name, strings.Join(missing, ", ")))
	case len(good) > 0 && !seen:
		found = append(found, warnf("wait until caches have dropped what they have", "%s: all authoritative servers have the record, the resolver does not see it yet", name))
	case len(good) == 0 && len(missing) > 0 && seen:
		found = append(found, failf("publish it again: it is still in caches and will be gone",
			"%s: the resolver has the record, and no authoritative server has it", name))
	}
	return found
}

// stateOf returns the state of a key at a server.
func stateOf(key *sign.Key, r *authority.Reply) string {
	switch {
	case r.Err != nil:
		return stateError
	case len(r.Records) == 0:
		return stateNone
	}
	switch dkim.ComparePublished(r.Texts(), key.Signer.Public()) {
	case dkim.PublishedSame, dkim.PublishedTesting:
		return statePublished
	}
	return stateOther
}

// stringsOf returns the number of strings in the record of a key.
func stringsOf(key *sign.Key, r *authority.Reply) int {
	for _, parts := range r.Records {
		if dkim.Inspect(strings.Join(parts, ""), key.Signer.Public()).Same {
			return len(parts)
		}
	}
	return 0
}
