package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/milter/sign"
)

// checkKeys compares the keys with their DNS records, and looks at their rotation.
func checkKeys(ctx context.Context, f *Facts) []Finding {
	if !f.namesMilterd() && !f.Milterd.wanted() {
		return nil
	}
	return append(f.checkRecords(ctx), f.rotations()...)
}

// checkRecords compares the keys with their DNS records.
func (f *Facts) checkRecords(ctx context.Context) []Finding {
	keys, err := f.keys()
	var found []Finding
	if err != nil && f.Milterd.CheckErr == nil && len(f.Milterd.Problems) == 0 {
		text, fix := splitFix(oneLine(err.Error()), "correct the file; postern dkim keys shows all")
		found = append(found, failf(fix, "%s", text))
	}
	if f.tablesErr != nil {
		text, fix := splitFix(oneLine(f.tablesErr.Error()), "correct dkim-key-table and dkim-signing-table")
		return append(found, failf(fix, "%s", text))
	}
	if len(keys) == 0 && len(found) == 0 && f.tables != nil {
		return []Finding{okf("keys are in %s: postern dkim check DOMAIN looks at those of a domain", f.Milterd.text("dkim-key-table"))}
	}
	if len(keys) == 0 && len(found) == 0 && f.Milterd.text("dkim-keys") == "" {
		return []Finding{okf("no keys are set (dkim-keys is empty): no mail is signed")}
	}
	if len(keys) == 0 && len(found) == 0 {
		return []Finding{warnf("postern dkim genkey DOMAIN", "no DKIM key: no mail is signed")}
	}
	published := make([]Finding, len(keys))
	each(len(keys), func(i int) { published[i] = f.published(ctx, keys[i]) })
	for _, one := range published {
		if one.Level != OK {
			found = append(found, one)
		}
	}
	return orOK(found, "%d keys are in the DNS as they sign", len(keys))
}

// keyGroup returns the group whose members may read keys, or -1.
func (f *Facts) keyGroup() int {
	if f.Milterd.Identity == nil {
		return -1
	}
	return f.Milterd.Identity.GID
}

// openKeyTables opens the Postfix tables of keys.
func (f *Facts) openKeyTables() {
	f.tables, f.closeTables, f.tablesErr = milterd.KeyTables(f.Milterd.text("dkim-key-table"), f.Milterd.text("dkim-signing-table"), f.keyGroup())
	if f.tablesErr != nil {
		f.tables = new(sign.Tables)
	}
}

// keysOf returns the keys in Postfix tables that the mail of a domain is signed with.
func (f *Facts) keysOf(ctx context.Context, domain string) ([]*sign.Key, error) {
	if f.tables == nil {
		return nil, f.tablesErr
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.check)
	defer cancel()
	keys, err := f.tables.Find(ctx, domain, f.signsSubdomains())
	return keys, errors.Join(f.tablesErr, err)
}

// readKeys reads the keys in files.
func (f *Facts) readKeys() (*sign.Keys, error) {
	src := sign.KeySource{Dir: f.Milterd.text("dkim-keys"), KeyTable: f.Milterd.text("dkim-key-table"), SigningTable: f.Milterd.text("dkim-signing-table"), Group: f.keyGroup()}
	if f.tables != nil {
		src.KeyTable, src.SigningTable = "", ""
	}
	if _, err := os.Lstat(src.Dir); src.Dir == api.DKIMKeysFolder && errors.Is(err, fs.ErrNotExist) {
		src.Dir = ""
	}
	if src.Dir == "" && src.KeyTable == "" {
		return new(sign.Keys), nil
	}
	keys, err := sign.LoadKeys(src)
	if keys == nil {
		keys = new(sign.Keys)
	}
	return keys, err
}

// signsSubdomains reports whether keys sign the mail of subdomains too.
func (f *Facts) signsSubdomains() bool { return f.Milterd.text("dkim-subdomains") == "true" }

// published judges the DNS record of a key.
func (f *Facts) published(ctx context.Context, key *sign.Key) Finding {
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.dns)
	defer cancel()
	records, err := f.txt(ctx, key.Name())
	if err != nil {
		return warnf("look at the resolver and at the name servers of "+key.Domain, "%s cannot be looked up: %v", key.Name(), err)
	}
	fix := "publish what postern dkim dns " + key.Domain + " prints"
	switch state := dkim.ComparePublished(records, key.Signer.Public()); state {
	case dkim.PublishedSame:
		return okf("%s is published", key.Name())
	case dkim.PublishedTesting:
		return warnf("take t=y out of the record when it works", "%s is published as a test (t=y): receivers treat its mail as unsigned", key.Name())
	default:
		return failf(fix+", or "+f.withoutKey(key), "%s is %s: receivers cannot verify what it signs", key.Name(), state)
	}
}

// withoutKey returns how to have a domain's mail not signed with a key. A key that a table
// names may be that of other domains too.
func (f *Facts) withoutKey(key *sign.Key) string {
	folder, table := f.Milterd.text("dkim-keys"), f.Milterd.text("dkim-signing-table")
	if table != "" && f.tables == nil && (folder == "" || !below(key.Path, folder)) {
		return "take " + key.Domain + " out of " + table
	}
	return "remove " + key.Path
}
