#!/usr/bin/python3
"""Write the golden cases, NAME.txt each: envelope, zone, what must come out,
message. Run it in its folder.

Signatures are made by the functions of internal/dkim's generator, that is by
OpenSSL. What must come out is written down by hand; only the beginnings of b=
are copied from the signatures.
"""
import glob, os, re

SOURCE = "../../../../internal/dkim/testdata/golden/"
signer = {}
exec(open(SOURCE + "generate.py").read().split("\nfor old in glob")[0].replace('"keys/', '"%skeys/' % SOURCE), signer)
signature, record, public = signer["signature"], signer["record"], signer["public"]

HEADER = ["From: Alice <alice@example.com>\r\n", "To: bob@home.example\r\n", "Subject: Dinner\r\n  tonight \r\n", "Date: Fri, 11 Jul 2003 21:00:37 -0700\r\n"]
BODY = "Hi.\r\n\r\nWe  lost the game. \t\r\n\r\nJoe\r\n\r\n\r\n"
TAGS = " v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\r\n h=from:to:subject:date; bh=@BH@;\r\n b=@B@"
KEY = {"s1._domainkey.example.com": "TXT " + record("rsa2048")}
CLIENT = {"10.2.0.192.in-addr.arpa": "PTR mx.example.com.", "mx.example.com": "A 192.0.2.10"}
SPF = {"example.com": "TXT v=spf1 ip4:192.0.2.0/28 -all"}

PASS = "spf=pass (ip4:192.0.2.0/28) smtp.mailfrom=example.com"
IPREV = "iprev=pass (mx.example.com) policy.iprev=192.0.2.10"
NODKIM = "dkim=none"


def quote(v):
    return v if re.fullmatch(r"([\w.+-]*@)?[\w.+-]+", v, re.A) else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"'


def txt(data):
    """A TXT record in a master file: strings of at most 255 bytes."""
    data = data.encode("latin-1")
    parts = [data[i:i + 255] for i in range(0, len(data), 255)] or [b""]
    esc = lambda b: "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else "\\%03d" % c for c in b)
    return "TXT " + " ".join('"%s"' % esc(p) for p in parts)


def zone_lines(zone):
    for name, values in zone.items():
        for v in values if isinstance(values, list) else [values]:
            kind, data = v.split(" ", 1)
            yield "%s. IN %s" % (name, txt(data) if kind == "TXT" else v)


count = 0


def case(name, why, want, zone={}, header=HEADER, body=BODY, top=[], ip="192.0.2.10", helo="mx.example.com", sender="alice@example.com",
         faults={}, options=[], remove=None, refuse=None, more=[], client=CLIENT, spf=SPF):
    global count
    count += 1
    z = dict(client, **spf)
    z.update(zone)
    lines = ["why " + why, "ip " + ip, "helo " + helo, "from <%s>" % sender]
    lines += ["option " + o for o in options] + ["fault %s %s" % f for f in faults.items()]
    lines += ["== zone"] + list(zone_lines(z)) + ["== want"]
    if remove:
        lines.append("remove " + remove)
    if refuse:
        lines.append("refuse " + refuse)
    lines.append("Authentication-Results: mail.home.example; " + "; ".join(want))
    lines += more + ["== message"]
    text = "\n".join(lines) + "\n" + ("".join(top) + "".join(header) + "\r\n" + body).replace("\r\n", "\n")
    assert not os.path.exists(name + ".txt"), name
    open(name + ".txt", "wb").write(text.encode("latin-1"))


def sign(change=lambda t: t, **kw):
    kw.setdefault("header", HEADER)
    kw.setdefault("body", BODY)
    return signature(change(TAGS), **kw)


def sub(old, new):
    assert old in TAGS, old
    return lambda t: t.replace(old, new)


def dkim(status, sig, comment="2048-bit key", d="example.com", i="@example.com", s="s1", a="rsa-sha256"):
    text = "dkim=" + status + (" (%s)" % comment if comment else "")
    b = re.sub(r"\s", "", re.search(r"[; ]b\s*=([^;]*)", sig.split(":", 1)[1]).group(1))[:8]
    for prop, v in (("d", d), ("i", i), ("s", s), ("a", a), ("b", b)):
        if v:
            text += " header.%s=%s" % (prop, quote(v))
    return text


for old in glob.glob("*.txt"):
    os.remove(old)

# --- SPF for MAIL FROM: every result, every mechanism
def spf(name, why, result, zone=None, mailfrom="example.com", domain="example.com", iprev=IPREV, **kw):
    z = dict(kw.pop("zones", {}))
    if zone is not None:
        z[domain] = zone
    case("spf-" + name, why, ["spf=%s smtp.mailfrom=%s" % (result, mailfrom), NODKIM] + ([iprev] if iprev else []), z, **kw)


V6 = {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": "PTR mx6.example.com.", "mx6.example.com": "AAAA 2001:db8::1"}
spf("pass-ip4", "RFC 7208 section 5.6.", "pass (ip4:192.0.2.0/28)")
spf("pass-ip6", "The same for IPv6.", "pass (ip6:2001:db8::/64)", "TXT v=spf1 ip6:2001:db8::/64 -all", ip="2001:db8::1", client=V6, iprev='iprev=pass (mx6.example.com) policy.iprev="2001:db8::1"')
spf("pass-a", "Section 5.3: the domain's own addresses.", "pass (a)", ["TXT v=spf1 a -all", "A 192.0.2.10"])
spf("pass-a-network", "A prefix length widens each address.", "pass (a:web.example.com/24)", "TXT v=spf1 a:web.example.com/24 -all", zones={"web.example.com": "A 192.0.2.200"})
spf("pass-mx", "Section 5.4: the addresses of the mail exchangers.", "pass (mx)", ["TXT v=spf1 mx -all", "MX 10 mx.example.com."])
spf("pass-include", "Section 5.2: the mechanism that matched, and whose it is.", "pass (ip4:192.0.2.0/24 of _spf.pool.example)", "TXT v=spf1 include:_spf.pool.example -all", zones={"_spf.pool.example": "TXT v=spf1 ip4:192.0.2.0/24 -all"})
spf("pass-redirect", "Section 6.1.", "pass (ip4:192.0.2.10 of _spf.pool.example)", "TXT v=spf1 redirect=_spf.pool.example", zones={"_spf.pool.example": "TXT v=spf1 ip4:192.0.2.10 -all"})
spf("pass-exists", "Section 5.7.", "pass (exists:%{ir}._allow.example.com)", "TXT v=spf1 exists:%{ir}._allow.example.com -all", zones={"10.2.0.192._allow.example.com": "A 127.0.0.2"})
spf("pass-ptr", "Section 5.5, which nobody should publish.", "pass (ptr)", "TXT v=spf1 ptr -all")
spf("pass-all", "Everybody may: a pass that says little.", "pass (+all)", "TXT v=spf1 +all")
spf("pass-local-part", "Section 7: a macro of the local part.", "pass (exists:%{l}._users.example.com)", "TXT v=spf1 exists:%{l}._users.example.com -all", zones={"alice._users.example.com": "A 127.0.0.2"})
spf("pass-long-record", "Section 3.3: the strings of a record are joined.", "pass (ip4:192.0.2.10)", "TXT v=spf1 " + "ip4:203.0.113.1 " * 20 + "ip4:192.0.2.10 -all")
spf("pass-alias", "A CNAME leads to the record.", "pass (ip4:192.0.2.10)", "CNAME spf.pool.example.", zones={"spf.pool.example": "TXT v=spf1 ip4:192.0.2.10 -all"})
spf("pass-modifier", "Section 6: unknown modifiers are ignored.", "pass (ip4:192.0.2.10)", "TXT v=spf1 moo=cow ip4:192.0.2.10 -all")
spf("pass-case", "Section 4.5 and 4.6.1: neither version nor terms have a case.", "pass (IP4:192.0.2.10)", "TXT V=SPF1 IP4:192.0.2.10 -ALL")
spf("pass-sender-case", "Domains have no case.", "pass (ip4:192.0.2.0/28)", sender="Alice@EXAMPLE.com")
spf("pass-mapped", "An IPv4-mapped address is an IPv4 address (section 5).", "pass (ip4:192.0.2.0/28)", ip="::ffff:192.0.2.10")
spf("pass-other-records", "Other TXT records do not disturb (section 4.5).", "pass (ip4:192.0.2.10)", ["TXT google-site-verification=x", "TXT v=spf10 -all", "TXT v=spf1 ip4:192.0.2.10 -all"])
spf("pass-quoted", "A local part in quotes.", "pass (ip4:192.0.2.0/28)", sender='"a b"@example.com')
spf("pass-route", "A source route is no part of the sender (RFC 5321 appendix C).", "pass (ip4:192.0.2.0/28)", sender="@relay.example:alice@example.com")
spf("pass-eai", "RFC 8616: the domain is looked up as A-labels.", "pass (ip4:192.0.2.10)", "TXT v=spf1 ip4:192.0.2.10 -all", mailfrom="xn--bcher-kva.example", domain="xn--bcher-kva.example", sender="j\u00c3\u00bcrgen@b\u00c3\u00bccher.example")
spf("fail", "Section 8.4: a result, not a reason to keep the mail.", "fail (-all)", "TXT v=spf1 ip4:198.51.100.0/24 -all")
spf("fail-explained", "The explanation is not for the header.", "fail (-all)", "TXT v=spf1 -all exp=exp.example.com", zones={"exp.example.com": "TXT go away"})
spf("fail-include", "A fail inside an include is no match (section 5.2).", "fail (-all)", "TXT v=spf1 include:_spf.pool.example -all", zones={"_spf.pool.example": "TXT v=spf1 ip4:198.51.100.0/24 -all"})
spf("softfail", "Section 8.5.", "softfail (~all)", "TXT v=spf1 ip4:198.51.100.0/24 ~all")
spf("neutral", "Section 8.2.", "neutral (?all)", "TXT v=spf1 ?all")
spf("neutral-default", "Nothing matched and nothing is said about that (section 4.7).", "neutral", "TXT v=spf1 ip4:198.51.100.0/24")
spf("none", "No record (section 4.5).", "none", "TXT hello")
spf("none-nxdomain", "No such domain (section 4.3).", "none", mailfrom="gone.example", sender="a@gone.example")
spf("none-subdomain", "A record does not hold for what lies below.", "none", mailfrom="news.example.com", sender="a@news.example.com")
spf("none-literal", "An address literal is no domain (section 4.3).", "none", mailfrom='"[192.0.2.10]"', sender="a@[192.0.2.10]")
case("spf-none-bare", "A sender without a domain has none to ask.", ["spf=none", NODKIM, IPREV], sender="postmaster")
spf("none-single-label", "A name of one label is not fully qualified (section 4.3).", "none", mailfrom="localhost", sender="a@localhost")
spf("none-loopback", "A content filter hands mail back: its address says nothing.", "none", ip="127.0.0.1", iprev="")
spf("none-loopback6", "The same for IPv6.", "none", ip="::1", iprev="")
spf("temperror-servfail", "Section 2.6.6: DNS failed, the domain did not speak.", "temperror (DNS lookup failed)", faults={"example.com": "servfail"})
spf("temperror-refused", "REFUSED is no answer either (section 4.4).", "temperror (DNS lookup failed)", faults={"example.com": "refused"})
spf("temperror-timeout", "Nor is silence.", "temperror (DNS lookup failed)", faults={"example.com": "unavailable"})
spf("temperror-include", "A part that DNS cannot tell leaves the whole open.", "temperror (DNS lookup failed)", "TXT v=spf1 include:_spf.pool.example -all", faults={"_spf.pool.example": "servfail"})
spf("temperror-mx", "The same for mx.", "temperror (DNS lookup failed)", ["TXT v=spf1 mx -all", "MX 10 mx1.pool.example."], faults={"mx1.pool.example": "servfail"})
spf("pass-before-failure", "What comes after a match is not asked.", "pass (ip4:192.0.2.10)", "TXT v=spf1 ip4:192.0.2.10 include:_spf.pool.example -all", faults={"_spf.pool.example": "servfail"})
spf("permerror-syntax", "Section 4.6.", 'permerror (example.com: term "foo": unknown mechanism)', "TXT v=spf1 foo -all")
spf("permerror-after-match", "Syntax errors anywhere, also behind a match (section 4.6).", 'permerror (example.com: term "ip4:1.2.3": malformed address)', "TXT v=spf1 ip4:192.0.2.10 ip4:1.2.3 -all")
spf("permerror-two", "Two records (section 4.5).", "permerror (example.com: more than one SPF record)", ["TXT v=spf1 -all", "TXT v=spf1 +all"])
eleven = {"_%d.pool.example" % n: "TXT v=spf1 ip4:198.51.100.1 -all" for n in range(11)}
spf("permerror-lookups", "More than ten terms that ask DNS (section 4.6.4).", "permerror (example.com: include:_10.pool.example: more than 10 terms that ask DNS)", "TXT v=spf1 " + " ".join("include:_%d.pool.example" % n for n in range(11)) + " -all", zones=eleven)
spf("permerror-voids", "More than two terms that find nothing.", "permerror (example.com: a:c.example: too many terms that find nothing in DNS)", "TXT v=spf1 a:a.example a:b.example a:c.example -all")
spf("permerror-include-none", "An include without a record (section 5.2).", "permerror (example.com: include:nothing.example: nothing.example: no SPF record)", "TXT v=spf1 include:nothing.example -all")
LOOP = "example.com: include:example.com: " * 11 + "more than 10 terms that ask DNS"
spf("permerror-loop", "A record that includes itself comes to the limit.", "permerror (%s ... %s)" % (LOOP[:90], LOOP[-80:]), "TXT v=spf1 include:example.com -all")
spf("permerror-mx", "More than ten exchangers (section 4.6.4).", "permerror (example.com: mx: more than 10 MX records)", ["TXT v=spf1 mx -all"] + ["MX 10 mx%d.example.com." % n for n in range(11)])
spf("permerror-duplicate", "A modifier twice (section 6).", 'permerror (example.com: term "redirect=b.example": given twice)', "TXT v=spf1 redirect=a.example redirect=b.example")
spf("permerror-redirect-none", "A redirect to nowhere (section 6.1).", "permerror (example.com: redirect=nothing.example: nothing.example: no SPF record)", "TXT v=spf1 redirect=nothing.example")

# --- SPF for HELO, and for the null sender
def helo(name, why, result, record_, text="mx.example.com", **kw):
    z = {"mx.example.com": ["A 192.0.2.10"] + ([record_] if record_ else [])}
    case("helo-" + name, why, [PASS] + (["spf=%s smtp.helo=%s" % (result, text)] if result else []) + [NODKIM, IPREV], z, **kw)


helo("pass", "Both identities, each with its own result (section 2.3).", "pass (a)", "TXT v=spf1 a -all")
helo("fail", "A HELO name that fails beside a MAIL FROM that passes.", "fail (-all)", "TXT v=spf1 -all")
helo("softfail", "Each result of HELO is shown, none excepted.", "softfail (~all)", "TXT v=spf1 ~all")
helo("neutral", "The same.", "neutral (?all)", "TXT v=spf1 ?all")
helo("permerror", "The same.", 'permerror (mx.example.com: term "x": unknown mechanism)', "TXT v=spf1 x")
helo("temperror", "the DNS lookup of HELO failed: MAIL FROM stands.", "temperror (DNS lookup failed)", "TXT v=spf1 include:_spf.pool.example", faults={"_spf.pool.example": "servfail"})
helo("none", "Without a record nothing is said.", "", "")
helo("literal", "An address literal has no record.", "", "", helo="[192.0.2.10]")
helo("single-label", "A HELO name of one label is not fully qualified.", "", "", helo="localhost")


def null(name, why, result, record_=None, shown="mx.example.com", **kw):
    z = {"mx.example.com": ["A 192.0.2.10"] + ([record_] if record_ else [])}
    case("null-" + name, why, ["spf=" + result + " smtp.helo=" + shown, NODKIM, IPREV], z, sender="", **kw)


null("pass", "The null sender is postmaster at the HELO name (section 2.4).", "pass (a)", "TXT v=spf1 a -all")
null("fail", "The same, refused by the record.", "fail (-all)", "TXT v=spf1 -all")
null("none", "No record.", "none")
null("literal", "No domain.", "none", shown='"[192.0.2.10]"', helo="[192.0.2.10]")
case("null-temperror", "DNS lookup failed.", ["spf=temperror (DNS lookup failed) smtp.helo=helo.example", NODKIM, IPREV], sender="", helo="helo.example", faults={"helo.example": "servfail"})

# --- DKIM
def dk(name, why, result, sigs, zone=KEY, **kw):
    case("dkim-" + name, why, [PASS] + result + [IPREV], zone, top=sigs, **kw)


def one(name, why, status, comment="2048-bit key", change=lambda t: t, zone=KEY, d="example.com", i="@example.com", s="s1", a="rsa-sha256", after={}, **kw):
    sig = sign(change, **kw)
    dk(name, why, [dkim(status, sig, comment, d, i, s, a)], [sig], zone, **after)


def key(text, name="s1._domainkey.example.com"):
    return {name: "TXT " + text}


dk("none", "No signature.", [NODKIM], [])
one("pass", "RFC 6376.", "pass")
for c in ("simple/simple", "simple/relaxed", "relaxed/simple"):
    one("pass-" + c.replace("/", "-"), "Section 3.4: each canonicalization.", "pass", change=sub("c=relaxed/relaxed", "c=" + c), c=c)
one("pass-ed25519", "RFC 8463.", "pass", "", sub("rsa-sha256", "ed25519-sha256"), key(record("ed25519")), a="ed25519-sha256", key="ed25519")
one("pass-1024", "The smallest RSA key (RFC 8301 section 3.2).", "pass", "1024-bit key", zone=key(record("rsa1024")), key="rsa1024")
one("pass-4096", "The largest that is taken.", "pass", "4096-bit key", zone=key(record("rsa4096")), key="rsa4096")
one("pass-testing", "t=y says that the domain is testing.", "pass", "testing key, 2048-bit key", zone=key(record("rsa2048", "v=DKIM1; t=y; ")))
one("pass-below", "i= below d=.", "pass", change=sub("d=example.com", "d=example.com; i=joe@mail.example.com"), i="joe@mail.example.com")
one("pass-case", "d= has no case.", "pass", change=sub("d=example.com", "d=Example.COM; i=@example.com"))
one("pass-skew", "Expired four minutes ago: clocks differ.", "pass", change=sub("v=1;", "v=1; x=1699999760;"))
one("pass-empty-body", "No body is a body.", "pass", body="", after={"body": ""})
one("pass-third-party", "A list's signature says nothing about the author.", "pass", change=sub("d=example.com", "d=list.example"), zone=key(record("rsa2048"), "s1._domainkey.list.example"), d="list.example", i="@list.example")
one("pass-alias", "The key is found through a CNAME, as hosters have it.", "pass", zone={"s1._domainkey.example.com": "CNAME s1.keys.pool.example.", "s1.keys.pool.example": "TXT " + record("rsa2048")})
ed = sign(lambda t: t.replace("rsa-sha256", "ed25519-sha256").replace("s=s1", "s=e1"), key="ed25519")
rsa = sign()
dk("pass-both", "Two algorithms, two results.", [dkim("pass", rsa), dkim("pass", ed, "", s="e1", a="ed25519-sha256")], [rsa, ed], dict(KEY, **key(record("ed25519"), "e1._domainkey.example.com")))
one("fail-body", "The body changed.", "fail", "body hash did not verify, 2048-bit key", after={"body": BODY.replace("Hi", "Ho")})
one("fail-header", "A signed field changed.", "fail", "signature did not verify, 2048-bit key", after={"header": [HEADER[0].replace("Alice", "Mallory")] + HEADER[1:]})
one("fail-added", "A field was added that the signer had forbidden.", "fail", "signature did not verify, 2048-bit key", sub("h=from:", "h=from:from:"), after={"header": ["From: mallory@evil.example\r\n"] + HEADER})
one("fail-key", "DNS has another key.", "fail", "signature did not verify, 1024-bit key", zone=key(record("rsa1024")))
one("policy-l", "l=: what was appended is not signed.", "policy", "l= leaves part of the body unsigned", sub("v=1;", "v=1; l=3;"))
one("policy-l-appended", "The same with something appended, where verifiers pass.", "policy", "l= leaves part of the body unsigned", sub("v=1;", "v=1; l=%d;" % len("Hi.\r\n\r\nWe lost the game.\r\n\r\nJoe\r\n")), after={"body": BODY.rstrip("\r\n") + "\r\nBuy now.\r\n"})
one("policy-sha1", "RFC 8301 section 3.1.", "policy", "rsa-sha1 is too weak", sub("rsa-sha256", "rsa-sha1"), a="rsa-sha1")
one("policy-512", "RFC 8301 section 3.2.", "policy", "RSA key under 1024 bit, 512-bit key", zone=key(record("rsa512")), key="rsa512")
one("policy-5120", "What a key may cost us is bounded.", "policy", "RSA key over 4096 bit, 5120-bit key", zone=key(record("rsa5120")), key="rsa5120")
one("neutral-algorithm", "Unknown: not judged.", "neutral", "unknown algorithm", sub("rsa-sha256", "rsa-sha512"), a="rsa-sha512")
one("neutral-canonicalization", "The same.", "neutral", "unknown canonicalization", sub("c=relaxed/relaxed", "c=relaxed/nowsp"))
one("neutral-testing", "A failure under t=y is no worse than no signature (section 3.6.1).", "neutral", "body hash did not verify, under a testing key, 2048-bit key", zone=key(record("rsa2048", "v=DKIM1; t=y; ")), after={"body": "x\r\n"})
one("permerror-no-key", "No such key.", "permerror", "no key", zone={})
one("permerror-revoked", "An empty p= (section 3.6.1).", "permerror", "key revoked", zone=key("v=DKIM1; p="))
one("permerror-service", "A key for something else.", "permerror", "key is not for email, 2048-bit key", zone=key(record("rsa2048", "v=DKIM1; s=tlsrpt; ")))
one("permerror-strict", "t=s: i= must be d= itself.", "permerror", "key demands that i= be in d= itself, 2048-bit key", sub("d=example.com", "d=example.com; i=@mail.example.com"), key(record("rsa2048", "v=DKIM1; t=s; ")), i="@mail.example.com")
one("permerror-expired", "Expired six minutes ago.", "permerror", "signature expired", sub("v=1;", "v=1; x=1699999640;"))
one("permerror-identity", "i= outside of d=.", "permerror", "i= is not below d=", sub("d=example.com", "d=example.com; i=ceo@bank.example"), i="ceo@bank.example")
one("permerror-from", "From must be signed (section 5.4).", "permerror", "From is not signed", sub("h=from:", "h="))
one("permerror-version", "Another format.", "permerror", "signature version is not 1", sub("v=1;", "v=2;"))
one("permerror-algorithm", "a= and k= must agree.", "permerror", "key is for another algorithm", zone=key(record("ed25519")))
sig = sign(sub("d=example.com;", ""))
dk("permerror-no-domain", "No d=.", [dkim("permerror", sig, "signature has no d=", d="", i="")], [sig])
sig = "DKIM-Signature: v=1; v=1; d=example.com; b=QUJDREVGRw==\r\n"
dk("permerror-syntax", "Not a list of tags.", ["dkim=permerror (signature syntax: a tag occurs twice)"], [sig])
one("temperror-servfail", "DNS failed: nothing is known of the signature.", "temperror", "the DNS lookup of the key failed", after={"faults": {"s1._domainkey.example.com": "servfail"}})
one("temperror-timeout", "The same for silence.", "temperror", "the DNS lookup of the key failed", after={"faults": {"s1._domainkey.example.com": "unavailable"}})
other = sign(lambda t: t.replace("s=s1", "s=s2"))
dk("temperror-and-pass", "Each signature stands alone.", [dkim("temperror", other, "the DNS lookup of the key failed", s="s2"), dkim("pass", rsa)], [other, rsa], faults={"s2._domainkey.example.com": "servfail"})
lists = [sign(lambda t: t.replace("d=example.com", "d=list%d.example" % n)) for n in range(6)]
keys = {"s1._domainkey.list%d.example" % n: "TXT " + record("rsa2048") for n in range(6)}
dk("capped", "Of seven signatures five are judged, the author's among them.", [dkim("pass", lists[n], d="list%d.example" % n, i="@list%d.example" % n) for n in range(4)] + [dkim("pass", rsa)], lists + [rsa], dict(KEY, **keys))
one("many-from", "A second From that nobody signed.", "pass", after={"header": ["From: ceo@bank.example\r\n"] + HEADER})

# --- iprev (RFC 8601 section 3)
def iprev(name, why, result, client, ip="192.0.2.10", shown=None, first=PASS, **kw):
    case("iprev-" + name, why, [first, NODKIM, "iprev=%s policy.iprev=%s" % (result, quote(shown or ip))], client=client, ip=ip, **kw)


PTR = "10.2.0.192.in-addr.arpa"
iprev("pass", "There and back.", "pass (mx.example.com)", CLIENT)
iprev("pass-case", "Names have no case.", "pass (mx.example.com)", dict(CLIENT, **{PTR: "PTR MX.Example.COM."}))
iprev("pass-second", "One of several names is enough.", "pass (mx.example.com)", dict(CLIENT, **{PTR: ["PTR other.example.", "PTR mx.example.com."]}))
iprev("pass-ip6", "The same for IPv6.", "pass (mx6.example.com)", V6, "2001:db8::1", first="spf=fail (-all) smtp.mailfrom=example.com")
iprev("fail", "The name belongs to another address.", "fail (mx.example.com)", dict(CLIENT, **{"mx.example.com": "A 192.0.2.99"}))
iprev("fail-nowhere", "The name does not exist.", "fail (bank.example)", dict(CLIENT, **{PTR: "PTR bank.example."}))
iprev("fail-eleventh", "Ten names are looked at, no more.", "fail (n0.example.com)", dict(CLIENT, **{PTR: ["PTR n%d.example.com." % n for n in range(10)] + ["PTR mx.example.com."]}))
iprev("permerror", "The address has no name.", "permerror", {})
iprev("temperror", "the DNS lookup of the name failed.", "temperror", CLIENT, faults={PTR: "servfail"})
iprev("temperror-forward", "the DNS lookup of its addresses failed.", "temperror (mx.example.com)", CLIENT, faults={"mx.example.com": "servfail"}, helo="helo.example")

# --- fields that claim to be ours, and those that do not
def forged(name, why, fields, remove, **kw):
    case("forged-" + name, why, [PASS, NODKIM, IPREV], remove=remove, header=["%s: %s\r\n" % (kw.get("field", "Authentication-Results"), f) for f in fields] + HEADER)


OURS = "mail.home.example; dkim=pass header.d=bank.example"
THEIRS = "mx.other.example; dkim=pass header.d=other.example"
forged("plain", "RFC 8601 section 5.", [OURS], "1")
forged("case", "Host names have no case.", ["MAIL.Home.example; spf=pass"], "1")
forged("quoted", "The name may be quoted.", ['"mail.home.example"; spf=pass'], "1")
forged("quoted-pair", "And escaped.", ['"mail\\.home\\.example"; spf=pass'], "1")
forged("comment", "Comments may stand around it.", ["(hello (there)) mail.home.example (x); spf=pass"], "1")
forged("version", "A version may follow it.", ["mail.home.example 1; spf=pass"], "1")
forged("folded", "It may be folded.", ["\r\n mail.home.example;\r\n\tspf=pass"], "1")
forged("dot", "A final dot changes nothing.", ["mail.home.example.; spf=pass"], "1")
forged("no-result", "Our name alone.", ["mail.home.example"], "1")
forged("empty", "Nobody's name: a reader may take it for ours.", [""], "1")
forged("open-comment", "It cannot be parsed and might be ours.", ["(mail.home.example; spf=pass"], "1")
forged("open-quote", "The same.", ['"mail.home.example; spf=pass'], "1")
forged("encoded", "Encoded words are for readers that should know better.", ["=?us-ascii?q?mail.home.example?=; spf=pass"], "1")
forged("name-case", "Field names have no case.", [OURS], "1", field="AUTHENTICATION-results")
forged("among-others", "The others stay; the highest index goes first.", [OURS, THEIRS, OURS, THEIRS, "MAIL.HOME.EXAMPLE; spf=pass"], "5 3 1")
forged("foreign", "Results of other servers are theirs.", [THEIRS, THEIRS], None)
forged("longer", "Our name as the beginning of another.", ["mail.home.example.evil.example; spf=pass"], None)
forged("subdomain", "A name below ours is not ours.", ["a.mail.home.example; spf=pass"], None)
forged("parent", "Nor is the one above.", ["home.example; spf=pass"], None)
forged("mentioned", "Our name in somebody else's results.", ["mx.other.example; spf=pass smtp.helo=mail.home.example"], None)
forged("many", "A hundred of them.", [OURS] * 100, " ".join(str(n) for n in range(100, 0, -1)))

# --- values that want to be results
def inject(name, why, want, **kw):
    case("inject-" + name, why, want, **kw)


inject("sender-local", "The local part is never written.", ["spf=none smtp.mailfrom=evil.example", NODKIM, IPREV], sender='"a\\"; dkim=pass header.d=bank.example x=\\""@evil.example')
inject("sender-domain", "A sender that is no address, written in quotes.", ['spf=none smtp.mailfrom="evil.example, dkim:pass header.d=bank.example"', NODKIM, IPREV], sender="a@evil.example; dkim=pass header.d=bank.example")
inject("sender-quote", "Quotes in the domain are escaped.", ['spf=none smtp.mailfrom="evil.example\\\\\\", spf:pass"', NODKIM, IPREV], sender='a@evil.example\\"; spf=pass')
inject("helo", "HELO under a null sender.", ['spf=none smtp.helo="x, dkim:pass header.d=bank.example"', NODKIM, IPREV], sender="", helo="x; dkim=pass header.d=bank.example")
inject("helo-comment", "HELO with a comment.", ['spf=none smtp.helo="x (dkim:pass) y"', NODKIM, IPREV], sender="", helo="x (dkim=pass) y")
inject("mechanism", "The record's own text, in a comment.", ["spf=pass (exists:dkim:pass.evil.example) smtp.mailfrom=evil.example", NODKIM, IPREV], sender="a@evil.example", zone={"evil.example": "TXT v=spf1 exists:dkim=pass.evil.example -all", "dkim=pass.evil.example": "A 127.0.0.2"})
inject("record-error", "The text of a broken record.", ['spf=permerror (evil.example: term "\\)": unknown mechanism) smtp.mailfrom=evil.example', NODKIM, IPREV], sender="a@evil.example", zone={"evil.example": "TXT v=spf1 ) dkim=pass ("})
sig = sign(sub("d=example.com", 'd=a"b.example'))
inject("d", "A quote in d=.", [PASS, dkim("permerror", sig, "d= is not a domain", d='a"b.example', i='@a"b.example'), IPREV], top=[sig], zone=KEY)
sig = sign(sub("s=s1", 's=x"\\(dkim=pass'))
inject("s", "A quote, a backslash and a result in s=.", [PASS, dkim("permerror", sig, "s= is not a selector", s='x"\\(dkim:pass'), IPREV], top=[sig], zone=KEY)
sig = sign(sub("d=example.com", 'd=example.com; i="dkim=pass header.d=bank.example"@example.com'))
inject("i", "A result in the local part of i=, under a good signature.", [PASS, dkim("pass", sig, i='"dkim:passheader.d=bank.example"@example.com'), IPREV], top=[sig], zone=KEY)
sig = sign(sub("a=rsa-sha256", "a=(dkim=pass)"))
inject("a", "A result in a=.", [PASS, dkim("neutral", sig, "unknown algorithm", a="(dkim:pass)"), IPREV], top=[sig], zone=KEY)
inject("ptr", "A name that is no host name is left out.", [PASS, NODKIM, "iprev=permerror policy.iprev=192.0.2.10"], client={PTR: "PTR dkim=pass\\;.evil.example."})
inject("from", "From that looks like results.", [PASS, NODKIM, IPREV], header=["From: \"Authentication-Results: mail.home.example; dkim=pass\" <a@example.com>\r\n"] + HEADER[1:])
inject("control", "Controls become question marks.", ['spf=none smtp.helo="x?y"', NODKIM, IPREV], sender="", helo="x\x07y")
inject("long", "A value is cut.", ['spf=none smtp.helo=%s' % ("a" * 320), NODKIM, IPREV], sender="", helo="a" * 1000)

# --- what is refused
def refuse(name, why, result, record_, text, spf_options=["spf-reject"], **kw):
    case("refuse-" + name, why, ["spf=%s smtp.mailfrom=example.com" % result, NODKIM, IPREV], dict({"example.com": record_}, **kw.pop("zones", {})), options=spf_options, refuse=text, **kw)


refuse("fail", "RFC 7372 section 3.1.", "fail (-all)", "TXT v=spf1 -all", "550 5.7.23 SPF: 192.0.2.10 may not send mail of example.com (-all)")
refuse("explained", "RFC 7208 section 6.2: with the words of the domain, and whose they are.", "fail (-all)", "TXT v=spf1 -all exp=exp.example.com",
       "550 5.7.23 SPF: 192.0.2.10 may not send mail of example.com (-all); example.com explains: Not 192.0.2.10, see https://example.com/?s=alice@example.com",
       zones={"exp.example.com": "TXT Not %{i}, see https://example.com/?s=%{s}"})
refuse("explained-long", "They are cut.", "fail (-all)", "TXT v=spf1 -all exp=exp.example.com",
       "550 5.7.23 SPF: 192.0.2.10 may not send mail of example.com (-all); example.com explains: " + "x" * 200, zones={"exp.example.com": "TXT " + "x" * 500})
refuse("explained-in-vain", "An explanation that DNS cannot tell (section 6.2).", "fail (-all)", "TXT v=spf1 -all exp=exp.example.com",
       "550 5.7.23 SPF: 192.0.2.10 may not send mail of example.com (-all)", faults={"exp.example.com": "servfail"})
refuse("mechanism", "Any mechanism may fail.", "fail (-ip4:192.0.2.10)", "TXT v=spf1 -ip4:192.0.2.10 +all", "550 5.7.23 SPF: 192.0.2.10 may not send mail of example.com (-ip4:192.0.2.10)")
for status, text, rec in (("softfail", "softfail (~all)", "TXT v=spf1 ~all"), ("neutral", "neutral (?all)", "TXT v=spf1 ?all"), ("none", "none", "TXT x"), ("permerror", 'permerror (example.com: term "x": unknown mechanism)', "TXT v=spf1 x")):
    refuse("not-" + status, "Only a fail is refused (sections 8.1 to 8.7).", text, rec, None)
refuse("not-temperror", "DNS that cannot tell is no reason to refuse.", "temperror (DNS lookup failed)", "TXT v=spf1 -all", None, faults={"example.com": "servfail"})
case("refuse-not-local", "A content filter's mail is not refused.", ["spf=none smtp.mailfrom=example.com", NODKIM], {"example.com": "TXT v=spf1 -all"}, options=["spf-reject"], ip="127.0.0.1")
case("refuse-null", "The null sender is its HELO name.", ["spf=fail (-all) smtp.helo=mx.example.com", NODKIM, IPREV], {"mx.example.com": ["A 192.0.2.10", "TXT v=spf1 -all"]}, options=["spf-reject"], sender="", refuse="550 5.7.23 SPF: 192.0.2.10 may not send mail of mx.example.com (-all)")
case("refuse-not-helo", "HELO that fails beside MAIL FROM is not refused.", [PASS, "spf=fail (-all) smtp.helo=mx.example.com", NODKIM, IPREV], {"mx.example.com": ["A 192.0.2.10", "TXT v=spf1 -all"]}, options=["spf-reject"])

# --- Received-SPF (RFC 7208 section 9.1)
def received(name, why, result, text, record_, **kw):
    case("received-" + name, why, ["spf=%s smtp.mailfrom=example.com" % result, NODKIM, IPREV], {"example.com": record_}, options=["received-spf"], more=["Received-SPF: " + text], **kw)


TAIL = ' receiver=mail.home.example; identity=mailfrom; client-ip=192.0.2.10; envelope-from="alice@example.com"; helo=mx.example.com;'
received("pass", "The field of section 9.1 beside ours.", "pass (ip4:192.0.2.10)", "pass (mail.home.example: domain of alice@example.com designates 192.0.2.10 as permitted sender)" + TAIL + ' mechanism="ip4:192.0.2.10";', "TXT v=spf1 ip4:192.0.2.10 -all")
received("fail", "The same for a fail.", "fail (-all)", "fail (mail.home.example: domain of alice@example.com does not designate 192.0.2.10 as permitted sender)" + TAIL + " mechanism=-all;", "TXT v=spf1 -all")
received("none", "The same for none.", "none", "none (mail.home.example: domain of alice@example.com does not designate permitted sender hosts)" + TAIL, "TXT x")

print(count, "cases")
