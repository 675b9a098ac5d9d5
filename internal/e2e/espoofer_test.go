package e2e

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// The domains of the attack shapes. The legitimate one asks receivers to reject
// what it did not send, and sends nothing from where the attacker is. That of the
// attacker answers for every name below it, as his SPF record and as his key.
const (
	legit    = "legit.example"
	attacker = "attack.example"
	admin    = "admin@" + legit

	attackerAddr = "192.0.2.66"
)

// attackerKey is what the attacker signs with.
func attackerKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("the attacker's"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// spoofZone is what both publish.
func spoofZone() string {
	record := func(key ed25519.PrivateKey) string {
		return `"v=DKIM1; k=ed25519; p=` + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)) + `"`
	}
	seed := sha256.Sum256([]byte("the legitimate"))
	return legit + `. TXT "v=spf1 -all"
_dmarc.` + legit + `. TXT "v=DMARC1; p=reject"
selector._domainkey.` + legit + `. TXT ` + record(ed25519.NewKeyFromSeed(seed[:])) + `
` + attacker + `. TXT "v=spf1 ip4:` + attackerAddr + ` -all"
_dmarc.` + attacker + `. TXT "v=DMARC1; p=none"
*.` + attacker + `. TXT "v=spf1 ip4:` + attackerAddr + ` -all"
*.` + attacker + `. TXT ` + record(attackerKey()) + `
mx.` + attacker + `. A ` + attackerAddr + `
mx.` + attacker + `. TXT "v=spf1 ip4:` + attackerAddr + ` -all"
66.2.0.192.in-addr.arpa. PTR mx.` + attacker + `.
`
}

// spoof is one way to make a mail look as if the legitimate domain had sent it.
type spoof struct {
	name string // begins with the number
	why  string // the outcome is what it is

	helo, sender string // "" are those of the attacker
	from         string // the fields in the place of From
	more         string // further fields
	d, s         string // of a second signature by the attacker, "" for none

	results  []string // what ours must say of it
	noAuthor bool     // there is no From that readers could see: nothing asks for a refusal
	passes   bool     // the attacker is the author, for every reader: not marked
}

// token is the name in an address.
func (c spoof) token() string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ,", r) {
			return '-'
		}
		return r
	}, c.name)
}

// mail is the SMTP transaction, signed by the attacker for his own domain too.
func (c spoof) mail() postfixtest.Mail {
	m := postfixtest.Mail{
		Client: attackerAddr, Name: "mx." + attacker, Helo: "mx." + attacker, From: "any@" + attacker,
		To: []string{"dora+" + c.token() + "@home.example"},
	}
	if c.helo != "" {
		m.Helo = c.helo
	}
	if c.sender != "" {
		m.From = strings.Trim(c.sender, "<>")
	}
	header := "To: <" + m.To[0] + ">\n" + c.more + "Subject: about your invoice\nDate: Mon, 6 Jan 2025 10:00:00 +0000\n" +
		"Message-ID: <" + c.token() + "@" + attacker + ">\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
	signatures := signAs(attacker, "mail", c.from+header)
	if c.d != "" {
		signatures += signAs(c.d, c.s, c.from+header)
	}
	m.Message = c.from + signatures + header + "\n" + spoofBody
	return m
}

const spoofBody = "Please pay to the new account.\n"

// signAs is a signature that verifies with the key of the attacker, whatever it
// says about whose it is. It covers From and Subject as they are delivered.
func signAs(d, s, header string) string {
	body := dkim.NewBodyHash(dkim.Relaxed)
	_, _ = body.Write([]byte(strings.ReplaceAll(spoofBody, "\n", "\r\n"))) // never fails
	sum := body.Sum()
	value := fmt.Sprintf(" v=1; a=ed25519-sha256; c=relaxed/relaxed; d=%s; s=%s; h=from:subject; bh=%s; b=", d, s,
		base64.StdEncoding.EncodeToString(sum[:]))
	var text []byte
	for _, name := range []string{"from", "subject"} {
		text = dkim.AppendField(text, dkim.Relaxed, dkim.Field{Name: name, Value: lastField(header, name)})
	}
	text = append(text, strings.TrimSuffix(string(dkim.AppendField(nil, dkim.Relaxed, dkim.Field{Name: dkim.FieldName, Value: value})), "\r\n")...)
	digest := sha256.Sum256(text)
	return dkim.FieldName + ":" + value + base64.StdEncoding.EncodeToString(ed25519.Sign(attackerKey(), digest[:])) + "\n"
}

// lastField is the value of the last field of a name: the one that is signed.
func lastField(header, name string) (value string) {
	for line := range strings.Lines(header) {
		if field, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimRight(field, " "), name) {
			value = v
		}
	}
	return value
}

// spoofs are the shapes of "Composition Kills" (Chen, Paxson and Jiang, USENIX
// Security 2020) against a server, by the numbers that the tool espoofer gives
// them, and some more of each kind.
func spoofs() []spoof {
	plain := "From: <" + admin + ">\n"
	const missing = "dmarc=permerror (from_missing dis=quarantine)"
	const fails = "dmarc=fail (p=reject dis=quarantine) header.from=legit.example policy.dmarc=reject"
	return []spoof{
		{
			name: "a1 sender in a name that does not exist", helo: "helo." + attacker, sender: "any@mailfrom.notexist." + legit, from: plain,
			why:     "SPF is none for a name without a record; none is no pass, though the HELO name passes",
			results: []string{"spf=none smtp.mailfrom=mailfrom.notexist.legit.example", fails},
		},
		{
			name: "a2 sender that is empty to some", helo: attacker, sender: "(any@" + legit, from: plain,
			why:     "an unclosed comment does not make the sender the null one, whose identity would be the HELO name, which passes",
			results: []string{"spf=fail (-all) smtp.mailfrom=legit.example", "spf=pass (ip4:192.0.2.66) smtp.helo=attack.example", fails},
		},
		{
			name: "a2 null sender", helo: attacker, sender: "<>", from: plain,
			why:     "then the HELO name is the identity of SPF, and passes as what it is",
			results: []string{"spf=pass (ip4:192.0.2.66) smtp.helo=attack.example", fails},
		},
		{
			name: "a3 NUL in the selector", sender: "any@33." + attacker, d: legit, s: "selector._domainkey." + attacker + ".\x00.any", from: plain,
			why:     "what Postfix passes on ends at the NUL, and the rest is no signature; the attacker's key is never asked for under another's name",
			results: []string{"dkim=permerror (signature has no b=) header.d=legit.example", fails},
		},
		{
			name: "a4 quote in d", d: legit + "'a." + attacker, s: "selector", from: plain,
			why:     "d= is no domain name, so that no key is asked for though DNS has one",
			results: []string{"dkim=permerror (d= is not a domain)", fails},
		},
		{
			name: "a4 bracket in d", d: legit + "(." + attacker, s: "selector", from: plain,
			why:     "the same, with what begins a comment in our results",
			results: []string{"dkim=permerror (d= is not a domain)", fails},
		},
		{
			name: "a4 bracket and double quote in d", d: legit + `"=(.` + attacker, s: "selector", from: plain,
			why:     "the same, with what ends a quoted string there",
			results: []string{"dkim=permerror (d= is not a domain)", fails},
		},
		{
			name: "a5 bracket in the sender", sender: "any@" + legit + "(a." + attacker, from: plain,
			why:     "a domain with a bracket is no name, and none is asked for",
			results: []string{`spf=none smtp.mailfrom="legit.example(a.attack.example"`, fails},
		},
		{
			name: "a6 quote in the sender", sender: "any@" + legit + "'@any." + attacker, from: plain,
			why:     "the domain is behind the last @, and passes as what it is: the attacker's",
			results: []string{"spf=pass (ip4:192.0.2.66) smtp.mailfrom=any.attack.example", fails},
		},
		{
			name: "a7 route in the sender", sender: "@" + legit + ",@any.example:'any@" + attacker, from: plain,
			why:     "a route is no part of the address: the attacker's domain passes",
			results: []string{"smtp.mailfrom=attack.example", fails},
		},
		{
			name: "a8 two From fields", from: "From: <first@" + attacker + ">\n" + plain,
			why:     "each field counts, and the strictest verdict",
			results: []string{"spf=pass (ip4:192.0.2.66) smtp.mailfrom=attack.example", fails},
		},
		{
			name: "a8 two From fields, the other way round", from: plain + "From: <first@" + attacker + ">\n",
			why:     "likewise: the last one is signed, and its signature passes for the attacker's domain alone",
			results: []string{"dkim=pass header.d=attack.example", fails},
		},
		{
			name: "a9 space before From", from: " From: <first@" + attacker + ">\n" + plain,
			why:     "a header cannot begin with a folded line: for Postfix it has ended there, and all of it is the body, which readers see as such",
			results: []string{missing}, noAuthor: true,
		},
		{
			name: "a10 space behind From", from: "From: <first@" + attacker + ">\nFrom : <" + admin + ">\n",
			why:     "the name counts without its space",
			results: []string{fails},
		},
		{
			name: "a11 folded name", from: "From\n : <first@" + attacker + ">\n" + plain,
			why:     "a line without a colon ends the header for Postfix, and all of it becomes the body",
			results: []string{missing}, noAuthor: true,
		},
		{
			name: "a12 Sender", from: "From\n : <first@" + attacker + ">\n", more: "Sender: <" + admin + ">\n",
			why:     "as a11",
			results: []string{missing}, noAuthor: true,
		},
		{
			name: "a12 Sender beside a proper From", from: "From: <first@" + attacker + ">\n", more: "Sender: <" + admin + ">\n", passes: true,
			why:     "Sender is no author: DMARC protects what is in From, and says so",
			results: []string{"dmarc=pass (p=none dis=none) header.from=attack.example"},
		},
		{
			name: "a12 Sender without From", from: "", more: "Sender: <" + admin + ">\n",
			why:     "some readers then show the sender; a mail without an author is quarantined",
			results: []string{missing}, noAuthor: true,
		},
		{
			name: "a13 Resent-From", from: "From\n : <first@" + attacker + ">\n", more: "Resent-From: <" + admin + ">\n",
			why:     "as a11",
			results: []string{missing}, noAuthor: true,
		},
		{
			name: "a13 Resent-From beside a proper From", from: "From: <first@" + attacker + ">\n", more: "Resent-From: <" + admin + ">\n", passes: true,
			why:     "as a12: nor is Resent-From the author",
			results: []string{"dmarc=pass (p=none dis=none) header.from=attack.example"},
		},
		{
			name: "a14 two addresses", from: "From: <first@" + attacker + ">, <" + admin + ">\n", more: "Sender: <s@sender." + legit + ">\n",
			why:     "each address counts",
			results: []string{fails},
		},
		{
			name: "a15 encoded address", from: "From: " + encoded("<"+admin+">") + ",<second@" + attacker + ">\n", more: "Sender: <s@sender." + legit + ">\n",
			why:     "a word that decodes to an address is one for some readers",
			results: []string{fails},
		},
		{
			name: "a16 route", from: "From: <@" + attacker + ",@any.example:" + admin + ">\n", more: "Sender: <s@sender." + legit + ">\n",
			why:     "some readers take the first domain of a route, others the address behind it",
			results: []string{fails},
		},
		{
			name: "a17 quoted pair", from: "From: <" + admin + `>\,<second@` + attacker + ">\n", more: "Sender: <s@sender." + legit + ">\n",
			why:     "a backslash outside of quotes escapes nothing",
			results: []string{fails},
		},
		{
			name: "a18 precedence", from: "From: " + admin + ",<second@" + attacker + ">\n", more: "Sender: <s@sender." + legit + ">\n",
			why:     "brackets do not outrank the comma",
			results: []string{fails},
		},
		{
			name: "a19 address behind the brackets", from: "From: <any@" + attacker + ">" + admin + "\n", more: "Sender: <s@sender." + legit + ">\n",
			why:     "what is behind the brackets counts too",
			results: []string{fails},
		},
		{
			name: "a19 the other way round", from: "From: " + admin + " <any@" + attacker + ">\n",
			why:     "so does an address in the place of a display name",
			results: []string{fails},
		},
		{
			name: "the attacker as himself", from: "From: \"" + admin + "\" <any@" + attacker + ">\n", passes: true,
			why: "a quoted display name is nobody's address: all three pass, so that the attacker's records and his signature are shown to work",
			results: []string{"spf=pass (ip4:192.0.2.66) smtp.mailfrom=attack.example", "dkim=pass header.d=attack.example",
				"dmarc=pass (p=none dis=none) header.from=attack.example"},
		},
	}
}

func encoded(text string) string {
	return "=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
}

// hostileZone has records that are large, and many.
func hostileZone() string {
	var b strings.Builder
	b.WriteString(`_dmarc.large.example. TXT "v=DMARC1; p=reject; rua=mailto:"`)
	for range 50 {
		b.WriteString(` "` + strings.Repeat("x", 200) + `"`)
	}
	b.WriteString("\n")
	for i := range 200 {
		fmt.Fprintf(&b, "_dmarc.storm.example. TXT \"v=spf1 include:%d.example -all\"\n", i)
	}
	b.WriteString(`_dmarc.storm.example. TXT "v=DMARC1; p=reject"` + "\n")
	return b.String()
}

// hostileMails are mails whose author is hard to read or to look up.
func hostileMails() []spoof {
	const (
		own   = "any@" + attacker
		fails = "dmarc=fail (p=reject dis=quarantine) header.from=" + legit
	)
	from := func(value string) string { return "From: " + value + "\n" }
	mail := func(name, value, result string) spoof {
		return spoof{name: name, from: from(value), results: []string{result}, passes: !strings.Contains(result, "dis=quarantine")}
	}
	unnamed := mail("NUL in the name", "", "dmarc=permerror (from_missing dis=quarantine)")
	unnamed.from, unnamed.noAuthor = "Fr\x00om: "+admin+"\nFrom: "+own+"\n", true
	return []spoof{
		unnamed, // which ends the header for Postfix
		// Postfix cuts a field at a NUL, for us as for the reader.
		mail("NUL behind another address", own+"\x00 <"+admin+">", "dmarc=pass (p=none dis=none) header.from="+attacker),
		mail("NUL in the address", "adm\x00in@"+legit, "dmarc=none"),
		// So it does with a line that is too long.
		mail("address behind 64 KiB", strings.Repeat("x", 64<<10)+" <"+admin+">", "dmarc=none"),
		mail("address behind 120 KB in lines", own+","+strings.Repeat(" x\n", 40_000)+" <"+admin+">", "dmarc=permerror (too_many_domains dis=quarantine)"),
		mail("carriage return", own+"\r<"+admin+">", fails),
		mail("1000 addresses", strings.Repeat(own+",\n ", 999)+admin, fails),
		mail("1000 addresses in a line", strings.Repeat(own+", ", 999)+admin, fails),
		mail("1001 addresses", strings.Repeat(own+",\n ", 1000)+admin, "dmarc=permerror (too_many_domains dis=quarantine)"),
		mail("comments in comments", strings.Repeat("(", 10_000)+strings.Repeat(")", 10_000)+"<"+admin+">", fails),
		mail("comments without an end", strings.Repeat("(", 10_000)+admin, fails),
		mail("comment in the domain", "admin@le(x)git.example", fails),
		mail("escape in the domain", "<admin@legit\\.example>", fails),
		mail("group in a group", "a:b:"+admin+";;", fails),
		mail("300 labels", "a@"+strings.Repeat("x.", 298)+legit, "dmarc=permerror (from_unusable dis=quarantine)"),
		mail("large record", "a@large.example", "dmarc=fail (p=reject dis=quarantine) header.from=large.example"),
		mail("many records", "a@storm.example", "dmarc=fail (p=reject dis=quarantine) header.from=storm.example"),
		mail("aliases in a circle", "a@circle.example", "dmarc=temperror (DNS lookup failed) header.from=circle.example"),
		mail("aliases in a circle beside it", "a@circle.example, "+admin, fails),
		mail("DNS that never answers beside it", "a@dead.example, b@more.dead.example, "+admin, fails),
	}
}

// userSpoof is a mail of a user of ours who pretends to be somebody else.
type userSpoof struct {
	name, why  string
	sender     string // "" is Alice, who logs in
	from       string // the fields in the place of From
	code       int
	reason     record.Reason // of the sign role, "" when it is not asked
	signatures int           // of the delivered mail, all valid
}

// userSpoofs are espoofer's shapes for users of a mail service: within its domain,
// as there, and for another one. Who in a domain may write whose name into From
// is no question of the signer's: it vouches for the domain.
func userSpoofs() []userSpoof {
	field := func(address string) string { return "From: <" + address + ">\n" }
	return []userSpoof{
		{"alice as herself", "so that signing is shown to work", "", "From: Alice <" + Alice + ">\n", 250, record.Signed, 2},
		{"a1 two From fields", "DKIM cannot say which one it vouches for", "", field(Alice) + field(Bob), 250, record.SignSeveralFrom, 0},
		{"a1 two From fields, one of another domain", "likewise", "", field(Alice) + field(admin), 250, record.SignSeveralFrom, 0},
		{"a1 two From fields, one with a space", "for Postfix and for us it is a second one", "", field(Alice) + "From : <" + admin + ">\n", 250, record.SignSeveralFrom, 0},
		{"a2 two addresses", "both are of the one domain that signs", "", "From: <" + Alice + ">, <" + Bob + ">\nSender: <s@sender." + legit + ">\n", 250, record.Signed, 2},
		{"a2 two addresses, one of another domain", "a signature would cover both", "", "From: <" + Alice + ">, <" + admin + ">\n", 250, record.SignSeveralDomains, 0},
		{"a2 encoded address", "the word decodes to an address of another domain", "", "From: " + encoded("<"+admin+">") + ",<" + Alice + ">\n", 250, record.SignSeveralDomains, 0},
		{"a2 route", "a route names other domains", "", "From: <@" + legit + ",@any.example:" + Alice + ">\n", 250, record.SignSeveralDomains, 0},
		{"a2 address behind the brackets", "readers differ in whom they see", "", "From: <" + Alice + ">" + admin + "\n", 250, record.SignSeveralDomains, 0},
		{"a2 address before the brackets", "likewise", "", "From: " + admin + " <" + Alice + ">\n", 250, record.SignSeveralDomains, 0},
		{"a3 a colleague's address", "the domain is the one that signs", "", field(Bob), 250, record.Signed, 2},
		{"a3 a stranger's address", "there is no key for it", "", field(admin), 250, record.SignNoKey, 0},
		{"a3 a colleague's address in the envelope", "the sender must be her own", Bob, field(Bob), 553, "", 0},
	}
}

// forgedByUser are results that a user writes into its own mail. Those in our name must
// not reach a reader who trusts them.
const forgedByUser = "Authentication-Results: mail.home.example; dmarc=pass header.from=" + legit + "\n" +
	"authentication-results : (x) \"MAIL.home.example\" 1;\n dmarc=pass header.from=" + legit + "\n" +
	"Authentication-Results: mx.other.example; none\n"

func (c userSpoof) mail() postfixtest.Mail {
	m := As(Alice, cmp.Or(c.sender, Alice), Dora)
	m.Message = forgedByUser + c.from + "To: <" + Dora + ">\nSubject: about your invoice\n\n" + spoofBody
	return m
}
