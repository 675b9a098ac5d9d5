#!/usr/bin/python3
"""Write the golden cases: NAME.eml, NAME.zone, NAME.want, NAME.why.

The signatures are made here, by OpenSSL and a canonicalization written for
this purpose, so that they owe nothing to the Go code they test. RSA and Ed25519
signatures are deterministic: running this again changes nothing unless a case
changed. The expected results are written down by hand. Run it in its folder.
"""
import base64, glob, hashlib, os, re, subprocess, tempfile

KEYS = "keys/%s.pem"
FROM = "From: Alice <alice@example.com>\r\n"
HEADER = [FROM, "To: bob@example.org\r\n", "Subject: Dinner\r\n  tonight \r\n", "Date: Fri, 11 Jul 2003 21:00:37 -0700\r\n"]
BODY = "Hi.\r\n\r\nWe  lost the game. \t\r\n\r\nJoe\r\n\r\n\r\n"


def relaxed_header(field):
    name, value = field.split(":", 1)
    value = re.sub(r"[ \t]+", " ", value.replace("\r\n", "")).strip(" ")
    return name.rstrip(" \t").lower() + ":" + value + "\r\n"


def canonical_body(kind, body):
    if kind == "relaxed":
        body = "".join(re.sub(r"[ \t]+", " ", line).rstrip(" ") + "\r\n" for line in body.split("\r\n"))
    body = re.sub(r"(\r\n)*\Z", "", body)
    return body + "\r\n" if body or kind == "simple" else ""


def raw_sign(key, data):
    with tempfile.NamedTemporaryFile() as f:
        if key.startswith("ed25519"):
            f.write(hashlib.sha256(data).digest())
            f.flush()
            args = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", KEYS % key, "-in", f.name]
        else:
            f.write(data)
            f.flush()
            args = ["openssl", "dgst", "-sha256", "-sign", KEYS % key, f.name]
        return subprocess.run(args, check=True, capture_output=True).stdout


def public(key):
    der = subprocess.run(["openssl", "pkey", "-in", KEYS % key, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    return base64.b64encode(der[-32:] if key.startswith("ed25519") else der).decode()


def record(key, tags="v=DKIM1; "):
    return tags + ("k=ed25519; " if key.startswith("ed25519") else "") + "p=" + public(key)


def signature(tags, key="rsa2048", header=HEADER, body=BODY, c="relaxed/relaxed", name="DKIM-Signature"):
    """Sign with a template: @BH@ is the body hash, @B@ the signature."""
    hc, bc = c.split("/")
    digest = hashlib.sha256(canonical_body(bc, body).encode("latin-1")).digest()
    tags = tags.replace("@BH@", base64.b64encode(digest).decode())
    unsigned = re.sub(r"\s*@B@[^;]*", "", tags)
    canon = relaxed_header if hc == "relaxed" else lambda f: f
    names = re.search(r"(?:^|;)\s*h\s*=([^;]*)", tags).group(1)
    left = list(header)
    data = ""
    for n in names.split(":"):
        n = n.strip().lower()
        for i in range(len(left) - 1, -1, -1):
            if left[i].split(":", 1)[0].strip().lower() == n:
                data += canon(left.pop(i))
                break
    data += canon(name + ":" + unsigned + "\r\n")[:-2]
    return name + ":" + tags.replace("@B@", base64.b64encode(raw_sign(key, data.encode("latin-1"))).decode()) + "\r\n"


PLAIN = " v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\r\n h=from:to:subject:date; bh=@BH@;\r\n b=@B@"
ZONE = {"s1._domainkey.example.com": record("rsa2048")}
WANT = "pass d=example.com i=@example.com s=s1 a=rsa-sha256"


def case(name, why, want, signatures, zone=ZONE, header=HEADER, body=BODY):
    write = lambda ext, text: open(name + ext, "wb").write(text.encode("latin-1"))
    write(".eml", "".join(signatures) + "".join(header) + "\r\n" + body)
    write(".zone", "".join("%s %s\n" % (n, r) for n, v in zone.items() for r in (v if isinstance(v, list) else [v])))
    write(".want", want + "\n")
    write(".why", why + "\n")


def edit(name, why, want, change, zone=ZONE, **kw):
    """A case whose tags differ from PLAIN."""
    case(name, why, want, [signature(change(PLAIN), **kw)], zone)


def sub(old, new):
    assert old in PLAIN, old
    return lambda tags: tags.replace(old, new)


def same(tags):
    return tags


def results(status, reason="", i="@example.com", d="example.com", s="s1", a="rsa-sha256"):
    return ("%s d=%s i=%s s=%s a=%s %s" % (status, d, i, s, a, reason)).rstrip()


def zone(text, name="s1._domainkey.example.com"):
    return {name: text}


for old in glob.glob("*.eml") + glob.glob("*.zone") + glob.glob("*.want") + glob.glob("*.why"):
    os.remove(old)

# --- plain signatures
case("none", "Without a signature there is no result.", "none", [])
edit("pass-relaxed", "The plain case.", WANT, same)
for c in ("simple/simple", "simple/relaxed", "relaxed/simple"):
    edit("pass-" + c.replace("/", "-"), "Each canonicalization on its own (RFC 6376 section 3.4).", WANT, sub("c=relaxed/relaxed", "c=" + c), c=c)
edit("pass-c-default", "c= absent means simple/simple (section 3.5).", WANT, sub(" c=relaxed/relaxed;", ""), c="simple/simple")
edit("pass-c-header-only", "c=relaxed means relaxed/simple (section 3.5).", WANT, sub("c=relaxed/relaxed", "c=relaxed"), c="relaxed/simple")
edit("pass-ed25519", "RFC 8463.", results("pass", a="ed25519-sha256"), sub("a=rsa-sha256", "a=ed25519-sha256"), zone(record("ed25519")), key="ed25519")
edit("pass-rsa-4096", "The largest key that is taken.", WANT, same, zone(record("rsa4096")), key="rsa4096")
edit("pass-rsa-1024", "The smallest key that is taken (RFC 8301 section 3.2).", WANT, same, zone(record("rsa1024")), key="rsa1024")
case("pass-empty-body", "An empty body has a hash in both forms.", WANT, [signature(PLAIN, body="")], body="")
case("pass-blank-body", "Empty lines are an empty body when relaxed.", WANT, [signature(PLAIN, body="\r\n\r\n")], body="\r\n\r\n")
edit("pass-simple-leading-space", "Simple keeps the white space after the colon.", WANT, sub("c=relaxed/relaxed", "c=simple/simple"), c="simple/simple")
odd = ["From:alice@example.com\r\n", "To:\tbob@example.org\r\n", "Subject:   three\r\n", "Date: x\r\n"]
case("pass-simple-odd-spaces", "Simple is exact: no space, a tab, three spaces.", WANT, [signature(PLAIN.replace("relaxed/relaxed", "simple/simple"), header=odd, c="simple/simple")], header=odd)
head = ["FROM : alice@example.com\r\n"] + HEADER[1:]
case("pass-space-before-colon", "White space before the colon is no part of the name when relaxed.", WANT, [signature(PLAIN, header=head)], header=head)
case("pass-relayed", "A relay added fields and white space.", WANT, [signature(PLAIN)], header=["Received: by relay\r\n", FROM.replace(": ", ":\t "), "To: bob@example.org \r\n", "Subject: Dinner tonight\r\n", HEADER[3]], body=BODY.replace("  lost", " lost") + "\r\n")
two = ["Subject: upper\r\n"] + HEADER
case("pass-lowest-field", "Of several fields the lowest is signed first (section 5.4.2).", WANT, [signature(PLAIN)], header=two)
edit("pass-names-missing", "Names in h= without a field add nothing (section 3.5).", WANT, sub("h=from:to", "h=from:from:reply-to:cc:to"))
edit("pass-names-spaced", "White space around the colons of h= is ignored.", WANT, sub("h=from:to:subject", "h=From : To\r\n : SUBJECT"))
edit("pass-unknown-tag", "Unknown tags are ignored (section 3.2).", WANT, sub("v=1;", "v=1; zz=1; y=;"))
edit("pass-copied-fields", "z= is not used.", WANT, sub("v=1;", "v=1; z=From:x|Subject:y;"))
edit("pass-q", "dns/txt among other query methods.", WANT, sub("v=1;", "v=1; q=other : dns/txt;"))
edit("pass-final-semicolon", "The last tag may end in a semicolon.", WANT, sub("b=@B@", "b=@B@;"))
edit("pass-b-first", "b= may stand anywhere.", WANT, lambda t: " b=@B@;" + t.replace("\r\n b=@B@", ""))
edit("pass-b-spaced", "The white space around the value of b= is deleted with it (section 3.7).", WANT, lambda t: " b = @B@ ;" + t.replace("\r\n b=@B@", ""))
case("pass-two", "Two signatures, one body.", WANT + "\n" + results("pass", s="e1", a="ed25519-sha256"),
     [signature(PLAIN), signature(PLAIN.replace("s=s1", "s=e1").replace("rsa-sha256", "ed25519-sha256"), key="ed25519")], dict(ZONE, **zone(record("ed25519"), "e1._domainkey.example.com")))
case("pass-name-case", "The name of the field has no case.", WANT, [signature(PLAIN, name="dkim-SIGNATURE")])
nested = signature(PLAIN.replace("s=s1", "s=e1").replace("rsa-sha256", "ed25519-sha256"), key="ed25519")
case("pass-signed-signature", "A signature may sign the one below it, never itself.", WANT + "\n" + results("pass", s="e1", a="ed25519-sha256"),
     [signature(PLAIN.replace("h=from", "h=dkim-signature:dkim-signature:from"), header=[nested] + HEADER), nested], dict(ZONE, **zone(record("ed25519"), "e1._domainkey.example.com")))

# --- d= and i=
edit("pass-d-case", "d= compares ignoring case.", WANT, sub("d=example.com", "d=Example.COM; i=@example.com"))
edit("pass-i-below", "i= may be below d=.", results("pass", i="joe@mail.example.com"), sub("d=example.com", "d=example.com; i=joe@mail.example.com"))
edit("pass-i-holds-b", "A b= inside i= is no tag.", results("pass", i="bounce+bob=x@example.com"), sub("d=example.com", "i=bounce+bob=x@example.com; d=example.com"))
edit("pass-i-quoted-at", "The last @ of i= counts.", results("pass", i='"a@b"@example.com'), sub("d=example.com", 'd=example.com; i="a@b"@example.com'))
edit("i-other-domain", "i= must be in d= or below.", results("permerror", "i= is not below d=", i="joe@example.org"), sub("d=example.com", "d=example.com; i=joe@example.org"))
edit("i-suffix-only", "notexample.com only ends like example.com.", results("permerror", "i= is not below d=", i="joe@notexample.com"), sub("d=example.com", "d=example.com; i=joe@notexample.com"))
edit("i-above", "The parent of d= is not below it.", results("permerror", "i= is not below d=", i="@com"), sub("d=example.com", "d=example.com; i=@com"))
edit("i-without-at", "i= needs an @.", results("permerror", "i= has no @", i="joe"), sub("d=example.com", "d=example.com; i=joe"))
edit("d-not-a-domain", "d= goes into a DNS question.", results("permerror", "d= is not a domain", d="exam_ple..com", i="@exam_ple..com"), sub("d=example.com", "d=exam_ple..com"))
edit("s-not-a-selector", "s= goes into a DNS question.", results("permerror", "s= is not a selector", s="s/1"), sub("s=s1", "s=s/1"))
edit("key-strict-pass", "t=s and i= in d= itself.", WANT, same, zone(record("rsa2048", "v=DKIM1; t=s; ")))
edit("key-strict-below", "t=s and i= below d= (section 3.6.1).", results("permerror", "key demands that i= be in d= itself", i="@mail.example.com"), sub("d=example.com", "d=example.com; i=@mail.example.com"), zone(record("rsa2048", "v=DKIM1; t=y:s; ")))

# --- what breaks
case("fail-body", "One octet of the body changed.", results("fail", "body hash did not verify"), [signature(PLAIN)], body=BODY.replace("Hi", "Ho"))
case("fail-body-simple-space", "Simple notices white space at the end of a line.", results("fail", "body hash did not verify"), [signature(PLAIN.replace("relaxed/relaxed", "relaxed/simple"), c="relaxed/simple")], body=BODY.replace("Hi.", "Hi. "))
case("fail-header", "A signed field changed.", results("fail", "signature did not verify"), [signature(PLAIN)], header=[FROM.replace("Alice", "Mallory")] + HEADER[1:])
case("fail-header-removed", "A signed field went away.", results("fail", "signature did not verify"), [signature(PLAIN)], header=HEADER[:3])
case("fail-oversigned", "An oversigned field was added.", results("fail", "signature did not verify"), [signature(PLAIN.replace("h=from", "h=from:from"))], header=["From: mallory@example.org\r\n"] + HEADER)
case("fail-simple-leading-space", "Simple notices a space after the colon.", results("fail", "signature did not verify"), [signature(PLAIN.replace("relaxed/relaxed", "simple/simple"), header=odd, c="simple/simple")], header=[h.replace("From:", "From: ") for h in odd])
edit("fail-other-key", "The DNS has another key.", results("fail", "signature did not verify"), same, zone(record("rsa1024")))
edit("fail-tag-changed", "The signature field itself is signed.", results("fail", "signature did not verify"), lambda t: t.replace("v=1;", "v=1; t=1;"))
text = open("fail-tag-changed.eml", "rb").read()
open("fail-tag-changed.eml", "wb").write(text.replace(b" t=1;", b" t=2;"))

# --- policy
edit("policy-l", "l= lets anyone append to the body.", results("policy", "l= leaves part of the body unsigned"), sub("v=1;", "v=1; l=3;"))
edit("policy-sha1", "RFC 8301 section 3.1.", results("policy", "rsa-sha1 is too weak", a="rsa-sha1"), sub("rsa-sha256", "rsa-sha1"))
edit("policy-rsa-512", "RFC 8301 section 3.2.", results("policy", "RSA key under 1024 bit"), same, zone(record("rsa512")), key="rsa512")
edit("policy-rsa-5120", "Larger keys cost too much to check.", results("policy", "RSA key over 4096 bit"), same, zone(record("rsa5120")), key="rsa5120")

# --- neutral
edit("neutral-algorithm", "An algorithm of the future says nothing.", results("neutral", "unknown algorithm", a="rsa-sha512"), sub("rsa-sha256", "rsa-sha512"))
edit("neutral-canonicalization", "So does a canonicalization.", results("neutral", "unknown canonicalization"), sub("c=relaxed/relaxed", "c=relaxed/nowsp"))
edit("neutral-query", "So does a query method.", results("neutral", "unknown query method"), sub("v=1;", "v=1; q=dns/key;"))
case("neutral-testing-body", "A failure under t=y is no worse than no signature.", results("neutral", "body hash did not verify, under a testing key"), [signature(PLAIN)], zone(record("rsa2048", "v=DKIM1; t=y; ")), body="x\r\n")
edit("pass-testing", "A testing key may verify; the reason says that it is one.", results("pass", "testing key"), same, zone(record("rsa2048", "v=DKIM1; t=y; ")))

# --- malformed signatures
for tag in ("v=1;", "a=rsa-sha256;", "d=example.com;", "s=s1;", "bh=@BH@;"):
    name = tag.split("=")[0]
    fields = {"d": "", "s": "s1", "a": "rsa-sha256"}
    edit("missing-" + name, "A tag that must be there (section 3.5).",
         results("permerror", "signature has no %s=" % name, d="" if name == "d" else "example.com", i="" if name == "d" else "@example.com",
                 s="" if name == "s" else "s1", a="" if name == "a" else "rsa-sha256"), sub(" " + tag, ""))
edit("version-2", "Another version means another format.", results("permerror", "signature version is not 1"), sub("v=1;", "v=2;"))
edit("duplicate-tag", "A tag that occurs twice (section 3.2).", results("permerror", "signature syntax: a tag occurs twice", d="", i="", s="", a=""), sub("v=1;", "v=1; s=s2;"))
edit("not-a-tag", "A word without a value.", results("permerror", "signature syntax: not a list of tag=value", d="", i="", s="", a=""), sub("v=1;", "v=1; nonsense;"))
edit("from-not-signed", "From must be signed (section 5.4).", results("permerror", "From is not signed"), sub("h=from:", "h="))
edit("empty-name", "h= is a list of names.", results("permerror", "empty name in h="), sub("h=from:", "h=from::"))
edit("bh-short", "bh= must be a SHA-256 hash.", results("permerror", "bh= is not a SHA-256 hash"), sub("bh=@BH@", "bh=QUJD"))
edit("b-empty", "b= must hold something.", results("permerror", "b= is not base64"), sub("b=@B@", "b="))
edit("b-not-base64", "b= must be base64.", results("permerror", "b= is not base64"), sub("b=@B@", "b=???"))
edit("t-not-a-time", "t= is a number of seconds.", results("permerror", "t= is not a time"), sub("v=1;", "v=1; t=soon;"))
edit("x-not-a-time", "So is x=.", results("permerror", "x= is not a time"), sub("v=1;", "v=1; x=-1;"))
edit("x-before-t", "x= must be after t= (section 3.5).", results("permerror", "x= is not after t="), sub("v=1;", "v=1; t=2000000000; x=2000000000;"))
edit("x-passed", "The signature was good until 2001.", results("permerror", "signature expired"), sub("v=1;", "v=1; x=1000000000;"))
edit("x-future", "The signature is good until 2286.", WANT, sub("v=1;", "v=1; x=9999999999;"))

# --- keys
edit("key-none", "No such name.", results("permerror", "no key"), same, {})
edit("key-revoked", "An empty p= revokes (section 3.6.1).", results("permerror", "key revoked"), same, zone("v=DKIM1; p="))
edit("key-no-p", "A record without p= is no key.", results("permerror", "key record has no p="), same, zone("v=DKIM1; k=rsa"))
edit("key-version", "v= must be DKIM1.", results("permerror", "key record is not of version DKIM1"), same, zone(record("rsa2048", "v=DKIM2; ")))
edit("key-version-late", "v= must come first.", results("permerror", "key record is not of version DKIM1"), same, zone("p=%s; v=DKIM1" % public("rsa2048")))
edit("key-no-version", "v= may be absent.", WANT, same, zone(record("rsa2048", "")))
edit("key-tab", "White space of any kind within p=.", WANT, same, zone(record("rsa2048").replace("MIIB", "M\tI I\tB")))
edit("key-no-padding", "Some publishers lose the padding.", results("pass", a="ed25519-sha256"), sub("rsa-sha256", "ed25519-sha256"), zone(record("ed25519").rstrip("=")), key="ed25519")
edit("key-not-base64", "p= must be base64.", results("permerror", "p= is not base64"), same, zone("v=DKIM1; p=!!!"))
edit("key-not-rsa", "p= must hold a key of k=.", results("permerror", "p= is not an RSA key"), same, zone("v=DKIM1; p=" + public("ed25519")))
edit("key-ed25519-size", "An Ed25519 key has 32 octets.", results("permerror", "p= is not an Ed25519 key"), same, zone("v=DKIM1; k=ed25519; p=QUJD"))
edit("key-algorithm-unknown", "A key of the future.", results("permerror", "unknown key algorithm"), same, zone("v=DKIM1; k=p256; p=QUJD"))
edit("key-algorithm-other", "a= and k= must agree.", results("permerror", "key is for another algorithm"), same, zone(record("ed25519")))
edit("key-hash", "h= of the key must allow the hash.", results("permerror", "key does not allow SHA-256"), same, zone(record("rsa2048", "v=DKIM1; h=sha1; ")))
edit("key-hash-listed", "h= of the key lists the hash.", WANT, same, zone(record("rsa2048", "v=DKIM1; h=sha1:sha256; ")))
edit("key-service", "s= of the key must allow email.", results("permerror", "key is not for email"), same, zone(record("rsa2048", "v=DKIM1; s=tlsrpt; ")))
edit("key-service-any", "s=* is for everything.", WANT, same, zone(record("rsa2048", "v=DKIM1; s=*; ")))
edit("key-duplicate-tag", "A record with a tag twice is no key.", results("permerror", "key record syntax: a tag occurs twice"), same, zone(record("rsa2048") + "; p=QUJD"))
edit("key-beside-other-records", "A wildcard answers beside the key.", WANT, same, zone(["v=spf1 -all", record("rsa2048"), "hello"]))
edit("key-two", "Two keys at one name: either may verify.", WANT, same, zone([record("rsa1024"), record("rsa2048")]))
edit("key-two-other-kind", "The key of the other algorithm does not disturb.", WANT, same, zone([record("ed25519"), record("rsa2048")]))
edit("key-many", "Nobody needs seventeen.", results("permerror", "too many key records"), same, zone([record("rsa2048")] * 17))
edit("key-only-other-records", "Other records are no key.", results("permerror", "key record has no p="), same, zone(["a=b", "c=d"]))
edit("dns-temporary", "The DNS failing now says nothing about the signature.", results("temperror", "the DNS lookup of the key failed"), same, zone("!temporary"))
edit("dns-timeout", "Nor does a time-out.", results("temperror", "the DNS lookup of the key failed"), same, zone("!timeout"))
case("dns-mixed", "Each signature has its own result.", results("temperror", "the DNS lookup of the key failed", s="s2") + "\n" + WANT,
     [signature(PLAIN.replace("s=s1", "s=s2")), signature(PLAIN)], dict(ZONE, **zone("!temporary", "s2._domainkey.example.com")))
edit("d-ulabel", "An internationalized d= is looked up as A-labels (RFC 8616).", results("pass", d="xn--bcher-kva.example", i="@xn--bcher-kva.example"), sub("d=example.com", "d=b\u00c3\u00bccher.example"), zone(record("rsa2048"), "s1._domainkey.xn--bcher-kva.example"))

# --- several signatures
six = [signature(PLAIN.replace("d=example.com", "d=list%d.example" % i)) for i in range(6)]
keys = {"s1._domainkey.list%d.example" % i: record("rsa2048") for i in range(6)}
case("many-aligned-first", "Of seven signatures five are verified, that of From's domain among them.",
     "\n".join([results("pass", d="list%d.example" % i, i="@list%d.example" % i) for i in range(4)] + [WANT, "skipped 2"]),
     six + [signature(PLAIN)], dict(ZONE, **keys))
