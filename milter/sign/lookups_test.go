package sign

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/record"
)

// rows is a Postfix table in memory. The value "ERROR" is a server that is down.
type rows map[string][]string

var errDown = errors.New("the server is down")

func (r rows) Lookup(_ context.Context, key string) ([]string, error) {
	values := r[key]
	if len(values) == 1 && values[0] == "ERROR" {
		return nil, errDown
	}
	return values, nil
}

func tableOf(name string, r rows) *LookupTable {
	if r == nil {
		return nil
	}
	return &LookupTable{Lookup: r, Name: name}
}

// keyForms are one key in every form that a table may have it in.
func keyForms(t *testing.T) map[string]string {
	t.Helper()
	der := pkcs8(t, testEd25519())
	text := string(der)
	block, _ := pem.Decode(der)
	dir := tree(t, map[string][]byte{"s.private": der})
	rsaText := string(pkcs1(t, testRSA()))
	return map[string]string{
		"PEM":                     "s " + text,
		"PEM on one line":         "s " + strings.Join(strings.Fields(text), " "),
		"PEM with \\n":            "s " + strings.ReplaceAll(text, "\n", `\n`),
		"PEM with CR LF":          "s " + strings.ReplaceAll(text, "\n", "\r\n"),
		"base64":                  "s " + base64.StdEncoding.EncodeToString(block.Bytes),
		"OpenDKIM's, with base64": "example.com:s:" + base64.StdEncoding.EncodeToString(block.Bytes),
		"OpenDKIM's, with PEM":    "example.com:s:" + text,
		"OpenDKIM's, with %":      "%:s:" + text,
		"path":                    "s " + filepath.Join(dir, "s.private"),
		"path alone":              filepath.Join(dir, "s.private"),
		"OpenDKIM's, with a path": "example.com:s:" + filepath.Join(dir, "s.private"),
		"PKCS#1":                  "s " + strings.Join(strings.Fields(rsaText), " "),
	}
}

func TestKeyForms(t *testing.T) {
	for name, value := range keyForms(t) {
		tables := &Tables{Keys: tableOf("hash:keys", rows{"example.com": {value}}), Group: -1}
		keys, err := tables.choose(t.Context(), author.Mailbox{Local: "u", Domain: "example.com"}, false)
		if got := names(keys); got != "s/example.com" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// Which entry is asked for: exact ones first, wildcards only for what they match.
func TestTableChoice(t *testing.T) {
	path := filepath.Join(tree(t, map[string][]byte{"k": pkcs8(t, testEd25519())}), "k")
	other := filepath.Join(tree(t, map[string][]byte{"k": pkcs8(t, testRSA())}), "k")
	for _, test := range []struct {
		name          string
		keys, senders rows
		local, domain string
		subdomains    bool
		want, err     string
	}{
		{"a domain", rows{"example.com": {"s " + path}}, nil, "u", "example.com", false, "s/example.com", ""},
		{"another", rows{"example.com": {"s " + path}}, nil, "u", "example.net", false, "", ""},
		{"not below", rows{"example.com": {"s " + path}}, nil, "u", "sub.example.com", false, "", ""},
		{"below, by the flag", rows{"example.com": {"s " + path}}, nil, "u", "a.sub.example.com", true, "s/example.com", ""},
		{"below, by a wildcard", rows{".example.com": {"s " + path}}, nil, "u", "a.sub.example.com", false, "s/example.com", ""},
		{"a wildcard is not for its own domain", rows{".example.com": {"s " + path}}, nil, "u", "example.com", false, "", ""},
		{"the nearest wildcard", rows{".example.com": {"far " + path}, ".sub.example.com": {"near " + path}}, nil, "u", "a.sub.example.com", false, "near/sub.example.com", ""},
		{"all", rows{"*": {"s " + path}}, nil, "u", "sub.example.com", false, "s/sub.example.com", ""},
		{"no label is cut", rows{".ample.com": {"s " + path}}, nil, "u", "example.com", false, "", ""},
		{"two keys", rows{"example.com": {"s " + path, "t " + other}}, nil, "u", "example.com", false, "s/example.com t/example.com", ""},
		{"two keys in one value", rows{"example.com": {"s " + path + ", t " + other}}, nil, "u", "example.com", false, "s/example.com t/example.com", ""},
		{"the same key twice", rows{"example.com": {"s " + path, "s " + path}}, nil, "u", "example.com", false, "s/example.com", ""},
		{"two keys of one name", rows{"example.com": {"s " + path, "s " + other}}, nil, "u", "example.com", false, "", "ambiguous: two different keys for s._domainkey.example.com"},
		{"three keys of one name", rows{"example.com": {"s " + path, "s " + other, "s " + path}}, nil, "u", "example.com", false, "", "ambiguous: two different keys for s._domainkey.example.com"},
		{"a key of another domain", rows{"example.com": {"example.net:s:" + path}}, nil, "u", "example.com", false, "", "does not align with example.com"},
		{"a key of a parent", rows{"sub.example.com": {"example.com:s:" + path}}, nil, "u", "sub.example.com", false, "s/example.com", ""},
		{"no selector", rows{"example.com": {path}}, nil, "u", "example.com", false, "", "must end in /SELECTOR.private"},
		{"a server that is down", rows{"example.com": {"ERROR"}}, nil, "u", "example.com", false, "", "the server is down"},

		{"a sender", rows{"k": {"example.com:s:" + path}}, rows{"u@example.com": {"k"}}, "U", "example.com", false, "s/example.com", ""},
		{"another sender", rows{"k": {"example.com:s:" + path}}, rows{"u@example.com": {"k"}}, "v", "example.com", false, "", ""},
		{"a sender before his domain", rows{"k": {"example.com:s:" + path}, "l": {"example.com:t:" + path}}, rows{"u@example.com": {"l"}, "@example.com": {"k"}}, "u", "example.com", false, "t/example.com", ""},
		{"a domain with @", rows{"k": {"example.com:s:" + path}}, rows{"@example.com": {"k"}}, "u", "example.com", false, "s/example.com", ""},
		{"a domain without", rows{"k": {"example.com:s:" + path}}, rows{"example.com": {"k"}}, "u", "example.com", false, "s/example.com", ""},
		{"both, alike", rows{"k": {"example.com:s:" + path}}, rows{"example.com": {"k"}, "@example.com": {"k"}}, "u", "example.com", false, "s/example.com", ""},
		{"both, which differ", rows{"k": {"example.com:s:" + path}}, rows{"example.com": {"k"}, "@example.com": {"l"}}, "u", "example.com", false, "", "ambiguous: it has both example.com and @example.com"},
		{"a name that is its domain", rows{"example.com": {"s " + path}}, rows{".example.com": {"%"}, "example.com": {"%"}}, "u", "example.com", false, "s/example.com", ""},
		{"a provider beside us", rows{"k": {"example.com:s:" + path}, "esp": {"esp.example:e:" + other}}, rows{"example.com": {"esp, k"}}, "u", "example.com", false, "s/example.com e/esp.example", ""},
		{"a provider alone", rows{"esp": {"esp.example:e:" + other}}, rows{"example.com": {"esp"}}, "u", "example.com", false, "", "does not align"},
		{"a name that no key has", rows{"k": {"example.com:s:" + path}}, rows{"example.com": {"k l"}}, "u", "example.com", false, "s/example.com", `no key is named "l"`},
		{"a name without a domain", rows{"k": {"s " + path}}, rows{"example.com": {"k"}}, "u", "example.com", false, "", "does not align"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tables := &Tables{Keys: tableOf("hash:keys", test.keys), Senders: tableOf("hash:senders", test.senders), Group: -1}
			keys, err := tables.choose(t.Context(), author.Mailbox{Local: test.local, Domain: test.domain}, test.subdomains)
			if got := names(keys); got != test.want {
				t.Errorf("keys %q, want %q (%v)", got, test.want, err)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

// Errors never show text that may be a key.
func TestTableSecrets(t *testing.T) {
	der := pkcs8(t, testEd25519())
	text := strings.Join(strings.Fields(string(der)), " ")
	body := strings.Fields(string(der))[3]
	world := tree(t, map[string][]byte{"keys": nil})
	if err := os.Chmod(filepath.Join(world, "keys"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, table, value, file, want string }{
		{"no selector", "hash:keys", text, "", ""},
		{"no key", "hash:keys", body, "", "want the selector and the key"},
		{"cut off", "hash:keys", "s " + strings.TrimSuffix(text, "-----END PRIVATE KEY-----"), "", "from its BEGIN line to its END line"},
		{"a broken key", "hash:keys", "s " + body[:20], "", ""},
		{"a broken base64", "hash:keys", "s " + body + "!", "", "no base64"},
		{"no domain", "hash:keys", ":s:" + body, "", "no domain"},
		{"two keys", "hash:keys", "s " + text + " " + text, "", ""},
		{"encrypted", "hash:keys", "s -----BEGIN RSA PRIVATE KEY----- Proc-Type: 4 ENCRYPTED " + body + " -----END RSA PRIVATE KEY-----", "", "encrypted"},
		{"a table that all can read", "hash:keys", "s " + text, filepath.Join(world, "keys"), "lets everybody access the private keys in it"},
		{"the setting itself", "inline:{example.com={s}}", "s " + text, "", "where everyone sees it"},
		{"too long", "hash:keys", "s " + strings.Repeat("A", maxTableValue), "", "which is no key"},
	} {
		table := tableOf(test.table, rows{"example.com": {test.value}})
		if test.file != "" {
			table.Files = []string{test.file}
		}
		tables := &Tables{Keys: table, Group: -1}
		keys, err := tables.choose(t.Context(), author.Mailbox{Local: "u", Domain: "example.com"}, false)
		if len(keys) != 0 || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: keys %q, error %v, want %q", test.name, names(keys), err, test.want)
		}
		if err != nil && (strings.Contains(err.Error(), body[:16]) || strings.Contains(err.Error(), "AAAAAAAA")) {
			t.Errorf("%s: the error shows a key: %v", test.name, err)
		}
	}
}

// A key file that a table names is read again when it has changed; while it cannot be
// read, the key that it held signs on, and the error says so.
func TestTableKeyFileChanges(t *testing.T) {
	dir := tree(t, map[string][]byte{"k": pkcs8(t, testEd25519())})
	path := filepath.Join(dir, "k")
	tables := &Tables{Keys: tableOf("hash:keys", rows{"example.com": {"s " + path}}), Group: -1}
	find := func() (string, error) {
		keys, err := tables.Find(t.Context(), "example.com", false)
		if len(keys) != 1 {
			t.Fatalf("keys %q, %v", names(keys), err)
		}
		return keys[0].Algorithm, err
	}
	if got, err := find(); got != ed25519SHA256 || err != nil {
		t.Fatalf("%s, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("nothing of use"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := find(); got != ed25519SHA256 || err == nil || !strings.Contains(err.Error(), "no private key in PEM") {
		t.Errorf("while it is broken: %s, %v", got, err)
	}
	if err := os.WriteFile(path, pkcs8(t, testRSA()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := find(); got != rsaSHA256 || err != nil {
		t.Errorf("replaced: %s, %v", got, err)
	}
	if got := names(tables.Seen()); got != "s/example.com" {
		t.Errorf("seen %q", got)
	}
}

func TestDomainOptions(t *testing.T) {
	path := filepath.Join(tree(t, map[string][]byte{"k": pkcs8(t, testEd25519())}), "k")
	now := time.Now()
	for _, test := range []struct {
		name    string
		options rows
		reason  record.Reason
		tag     string // in the signature
		err     string
	}{
		{"none", rows{"example.net": {"sign=no"}}, record.Signed, "x=" + epoch(now.Add(DefaultExpire)) + ";", ""},
		{"no signing", rows{"example.com": {"sign=no"}}, record.SignOff, "", ""},
		{"signing", rows{"example.com": {"sign=yes"}, "*": {"sign=no"}}, record.Signed, "d=example.com;", ""},
		{"all others", rows{"*": {"sign=no"}}, record.SignOff, "", ""},
		{"expire", rows{"example.com": {"expire=14d"}}, record.Signed, "x=" + epoch(now.Add(14*24*time.Hour)) + ";", ""},
		{"hours", rows{"example.com": {"expire=36h"}}, record.Signed, "x=" + epoch(now.Add(36*time.Hour)) + ";", ""},
		{"headers", rows{"example.com": {"headers=From:+Subject expire=1d"}}, record.Signed, "h=From:From:Subject:Subject;", ""},
		{"a life that is none", rows{"example.com": {"expire=long"}}, record.Signed, "x=" + epoch(now.Add(DefaultExpire)) + ";", "write for example 14d"},
		{"too long a life", rows{"example.com": {"expire=9999999999d"}}, record.Signed, "d=example.com;", "365d"},
		{"a field that cannot be signed", rows{"example.com": {"headers=Received"}}, record.Signed, "d=example.com;", "cannot be signed"},
		{"an unknown option", rows{"example.com": {"canon=simple"}}, record.Signed, "d=example.com;", "no option has this name"},
		{"twice", rows{"example.com": {"sign=no sign=yes"}}, record.Signed, "d=example.com;", "once"},
		{"two entries", rows{"example.com": {"sign=no", "sign=yes"}}, record.Signed, "d=example.com;", "ambiguous"},
		{"a server that is down", rows{"example.com": {"ERROR"}}, record.Signed, "d=example.com;", "is down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := New(Options{Now: func() time.Time { return now }, Tables: &Tables{
				Keys: tableOf("hash:keys", rows{"example.com": {"s " + path}}), Options: tableOf("hash:options", test.options), Group: -1,
			}}, nil)
			r := sign(t, s, fields("From: u@example.com|Subject: x"), "body\r\n")
			if r.Reason != test.reason {
				t.Errorf("reason %s, want %s", r.Reason, test.reason)
			}
			if test.tag != "" && (len(r.Fields) != 1 || !strings.Contains(r.Fields[0].Value, test.tag)) {
				t.Errorf("%s is not in %q", test.tag, r.Fields)
			}
			if (r.Err != nil) != (test.err != "") || r.Err != nil && !strings.Contains(r.Err.Error(), test.err) {
				t.Errorf("error %v, want %q", r.Err, test.err)
			}
		})
	}
}

func epoch(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// A table that cannot be asked is reported differently from a missing key.
func TestTableUnavailable(t *testing.T) {
	down := &Tables{Keys: tableOf("mysql:keys", rows{"example.com": {"ERROR"}}), Group: -1}
	s := New(Options{Tables: down}, nil)
	r := sign(t, s, fields("From: u@example.com"), "")
	if r.Reason != record.SignFailed || !r.Unavailable || !errors.Is(r.Err, errDown) {
		t.Errorf("result %+v", r)
	}
	// A key of the folder still signs, and the error is returned.
	s.SetKeys(someKeysOf(t, "example.com/f.private"))
	r = sign(t, s, fields("From: u@example.com"), "")
	if r.Reason != record.Signed || r.Unavailable || !errors.Is(r.Err, errDown) {
		t.Errorf("with a key of the folder: %+v", r)
	}
}

// Names between commas on one line of OpenDKIM's table may be of several domains, if
// one of them aligns; that one comes first.
func TestProviderInSigningTable(t *testing.T) {
	keys, err := tables(t, someKeys, "example.com c,a\n", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := names(keys.choose(author.Mailbox{Local: "u", Domain: "example.com"}, false)); got != "a/example.com c/example.org" {
		t.Errorf("keys %q", got)
	}
}

// FuzzKeyText checks that no text causes a panic or appears in an error.
func FuzzKeyText(f *testing.F) {
	f.Add("s -----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
	f.Add("example.com:s:/path")
	f.Add("/etc/x/s.private")
	f.Fuzz(func(t *testing.T, value string) {
		_, _, text, err := cutValue(value, "example.com")
		if err != nil || strings.HasPrefix(text, "/") {
			return
		}
		if _, err := readKeyText(text); err != nil && len(text) > 30 && strings.Contains(err.Error(), text) {
			t.Errorf("%v shows the text", err)
		}
	})
}

// FuzzOptions checks that all parsed values are within the bounds.
func FuzzOptions(f *testing.F) {
	f.Add("sign=no expire=14d headers=From:+Subject")
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := parseOptions(text); err == nil && o.expire > MaxExpire {
			t.Errorf("a life of %s", o.expire)
		}
	})
}
