package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/rotate"
	"github.com/postern-mail/postern/milter/sign"
)

func dkimGroup() group {
	return group{"dkim", "Make, print and watch signing keys.", []command{
		{path: "dkim genkey", args: "DOMAIN", help: "make signing keys and their DNS records", bind: bindDKIMGenkey, words: map[string][]string{"type": {"rsa", "ed25519", "both"}}},
		{path: "dkim dns", args: "[DOMAIN ...]", help: "the DNS records of all signing keys, to paste into a zone", bind: bindDKIMDNS},
		{path: "dkim check", args: "[DOMAIN ...]", help: "whether signatures verify and receivers would accept them: keys at every name server, SPF, DMARC, the rules for bulk senders", bind: bindDKIMCheck},
		{path: "dkim keys", help: "which keys the running daemon signs with", bind: bindDKIMKeys},
		{path: "dkim rotate", args: "[DOMAIN]", help: "replace the signing keys of a domain, step by step, and its DNS records", bind: bindDKIMRotate},
	}}
}

// bindDKIMGenkey makes keys without asking the daemon, which notices new keys itself.
func bindDKIMGenkey(fs *pflag.FlagSet) runner {
	var req sign.NewKeys
	fs.StringVar(&req.Dir, "dir", api.DKIMKeysFolder, "`folder` of all keys: writes FOLDER/DOMAIN/SELECTOR.private and .txt")
	fs.StringVar(&req.Selector, "selector", sign.DefaultSelector, "`name` of the key in the DNS; of two keys the Ed25519 one gets -ed25519 behind it")
	fs.StringVar((*string)(&req.Type), "type", string(sign.Both), "`kind` of key: rsa, ed25519, or both for one of each")
	fs.IntVar(&req.Bits, "bits", sign.DefaultBits, "`size` of an RSA key, 1024 to 4096")
	return func(_ context.Context, io streams, args []string) (int, error) {
		if len(args) != 1 {
			return exitFailed, errUsage
		}
		req.Domain = args[0]
		keys, err := sign.Generate(req)
		for _, key := range keys {
			fmt.Fprintf(io.err, "wrote %s and %s\n", key.Path, key.RecordPath)
		}
		if err != nil {
			return exitFailed, err
		}
		return exitYes, printZone(io.out, newKeys(keys))
	}
}

func newKeys(made []sign.NewKey) []*sign.Key {
	var keys []*sign.Key
	for _, key := range made {
		keys = append(keys, key.Key)
	}
	return keys
}

func bindDKIMDNS(fs *pflag.FlagSet) runner {
	src := sign.KeySource{}
	settings := fs.String("config", api.MilterdConfig, "the daemon's configuration `file`, read when it exists and no other flag names keys")
	fs.StringVar(&src.Dir, "dir", api.DKIMKeysFolder, "`folder` of all keys, as in --dkim-keys of "+api.Milterd)
	fs.StringVar(&src.KeyTable, "key-table", "", "OpenDKIM's KeyTable `file`, as in --dkim-key-table")
	fs.StringVar(&src.SigningTable, "signing-table", "", "OpenDKIM's SigningTable `file`, as in --dkim-signing-table")
	return func(_ context.Context, io streams, args []string) (int, error) {
		if !fs.Changed("dir") && !fs.Changed("key-table") && !fs.Changed("signing-table") {
			if err := milterd.FindKeys(&src, *settings); err != nil {
				return exitFailed, err
			}
		}
		src.Group = rotate.GroupOf(src.Dir)
		keys, err := sign.LoadKeys(src)
		if keys == nil {
			return exitFailed, err
		}
		code := exitYes
		if err != nil { // others can be printed
			fmt.Fprintln(io.err, err)
			code = exitNo
		}
		all := keys.All()
		if len(args) == 0 && len(all) == 0 {
			fmt.Fprintln(io.err, "no key; make one with `postern dkim genkey DOMAIN`")
			return exitNo, nil
		}
		if len(args) > 0 {
			var none []string
			if all, none, err = keys.Of(args); err != nil {
				return exitFailed, err
			}
			for _, domain := range none {
				fmt.Fprintf(io.err, "%s has no key; make one with `postern dkim genkey %[1]s`\n", domain)
				code = exitNo
			}
		}
		return code, printZone(io.out, all)
	}
}

// printZone prints records that can be pasted into zones, in the form of
// opendkim-genkey. The name of each domain is above its records.
func printZone(w io.Writer, keys []*sign.Key) error {
	domain := ""
	for _, key := range keys {
		entry, err := key.ZoneEntry()
		if err != nil {
			return err
		}
		if key.Domain != domain {
			domain = key.Domain
			fmt.Fprintf(w, "$ORIGIN %s.\n", domain)
		}
		fmt.Fprint(w, entry)
	}
	return nil
}

// bindDKIMKeys answers exitNo when a key does not sign.
func bindDKIMKeys(fs *pflag.FlagSet) runner {
	client := milterdClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		var keys []api.KeyStatus
		if err := client.Call(ctx, api.DKIMKeys, struct{}{}, &keys, nil); err != nil {
			return exitFailed, err
		}
		code := exitYes
		if len(keys) == 0 || slices.ContainsFunc(keys, func(k api.KeyStatus) bool { return !k.Signs }) {
			code = exitNo
		}
		if *asJSON {
			return code, printJSON(io.out, keys)
		}
		printKeys(io.out, keys)
		return code, nil
	}
}

func printKeys(w io.Writer, keys []api.KeyStatus) {
	if len(keys) == 0 {
		fmt.Fprintln(w, "no key: no mail is signed")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DOMAIN\tSELECTOR\tKEY\tSIGNS\tDNS")
	for _, k := range keys {
		if k.Error != "" {
			continue
		}
		kind := k.Algorithm
		if k.Bits > 0 {
			kind = fmt.Sprintf("%s %d", kind, k.Bits)
		}
		dns := k.DNS
		if dns == "" {
			dns = "not watched (dkim-require-dns)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", k.Domain, k.Selector, kind, map[bool]string{true: "yes", false: "no"}[k.Signs], dns)
	}
	t.Flush()
	for _, k := range keys {
		if k.Error != "" {
			fmt.Fprintln(w, "not used:", k.Error)
		}
	}
}
