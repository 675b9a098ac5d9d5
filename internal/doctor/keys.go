package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/milter/sign"
)

// checkKeys compares the keys with the DNS.
func checkKeys(ctx context.Context, f *Facts) []Finding {
	if !f.namesMilterd() && !f.Milterd.wanted() {
		return nil
	}
	keys, err := f.keys()
	var found []Finding
	if err != nil && f.Milterd.CheckErr == nil && len(f.Milterd.Problems) == 0 {
		text, fix := splitFix(oneLine(err.Error()), "correct the file; postern dkim keys shows all")
		found = append(found, failf(fix, "%s", text))
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

// readKeys reads the keys that milterd signs with.
func (f *Facts) readKeys() ([]*sign.Key, error) {
	src := sign.KeySource{Dir: f.Milterd.text("dkim-keys"), KeyTable: f.Milterd.text("dkim-key-table"), SigningTable: f.Milterd.text("dkim-signing-table"), Group: -1}
	if f.Milterd.Identity != nil {
		src.Group = f.Milterd.Identity.GID
	}
	if _, err := os.Lstat(src.Dir); src.Dir == api.DKIMKeysFolder && errors.Is(err, fs.ErrNotExist) {
		src.Dir = ""
	}
	if src.Dir == "" && src.KeyTable == "" {
		return nil, nil
	}
	keys, err := sign.LoadKeys(src)
	if keys == nil {
		return nil, err
	}
	return keys.All(), err
}

// published judges what the DNS has of a key.
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
		return failf(fix+", or remove "+key.Path, "%s is %s: receivers cannot verify what it signs", key.Name(), state)
	}
}
