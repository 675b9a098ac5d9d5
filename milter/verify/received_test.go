package verify

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/allowlist"
)

// Received fields of different programs, for a client at 203.0.113.9 with HELO
// evil.example.
var receivedForms = map[string]struct{ value, client, helo string }{
	"Postfix":               {" from evil.example (mail.evil.example [203.0.113.9])\r\n\tby mx2.example.org (Postfix) with ESMTP id 4F\r\n\tfor <bob@example.org>; Thu, 26 Nov 2026 12:00:00 +0000 (UTC)", "203.0.113.9", "evil.example"},
	"Postfix, no name":      {" from evil.example (unknown [203.0.113.9]) by mx2 (Postfix) with SMTP id 4F; date", "203.0.113.9", "evil.example"},
	"Postfix, IPv6":         {" from evil.example (unknown [IPv6:2001:db8::9]) by mx2 (Postfix) with SMTP id 4F; date", "2001:db8::9", "evil.example"},
	"Postfix, TLS":          {" from evil.example (unknown [203.0.113.9])\r\n\t(using TLSv1.3 with cipher X (256/256 bits)\r\n\t key-exchange X25519 server-digest SHA256)\r\n\t(No client certificate requested)\r\n\tby mx2", "203.0.113.9", "evil.example"},
	"Postfix, a literal":    {" from [127.0.0.1] (unknown [203.0.113.9]) by mx2 (Postfix) with SMTP id 4F; date", "203.0.113.9", "[127.0.0.1]"},
	"Sendmail":              {" from evil.example (mail.evil.example [203.0.113.9] (may be forged)) by mx2 (8.17/8.17) with ESMTP id x; date", "203.0.113.9", "evil.example"},
	"Sendmail, ident":       {" from evil.example (IDENT:root@mail.evil.example [203.0.113.9]) by mx2 (8.17/8.17) with ESMTP id x; date", "203.0.113.9", "evil.example"},
	"Exim":                  {" from mail.evil.example ([203.0.113.9] helo=evil.example) by mx2 with esmtp (Exim 4.96) id x; date", "203.0.113.9", "evil.example"},
	"Exim, the same name":   {" from evil.example ([203.0.113.9]) by mx2 with esmtps (TLS1.3) (Exim 4.96) id x; date", "203.0.113.9", "evil.example"},
	"Exim, no name":         {" from [203.0.113.9] (helo=evil.example) by mx2 with esmtp (Exim 4.96) id x; date", "203.0.113.9", "evil.example"},
	"Exim, an evil literal": {" from [203.0.113.9] (helo=[192.0.2.1]) by mx2 with esmtp (Exim 4.96) id x; date", "203.0.113.9", "[192.0.2.1]"},
	"Exim, a named literal": {" from mail.evil.example ([203.0.113.9] helo=[192.0.2.1]) by mx2 with esmtp id x; date", "203.0.113.9", "[192.0.2.1]"},
	"qmail":                 {" from unknown (HELO evil.example) (203.0.113.9) by mx2 with SMTP; date", "203.0.113.9", "evil.example"},
	"qmail, a literal":      {" from unknown (HELO [192.0.2.1]) (203.0.113.9) by mx2 with SMTP; date", "203.0.113.9", "[192.0.2.1]"},
	"Exchange":              {" from evil.example (203.0.113.9) by mx2 (10.0.0.1) with Microsoft SMTP Server id 15; date", "203.0.113.9", "evil.example"},
	"amavis":                {" from mx2.example.org ([127.0.0.1]) by localhost (mx2.example.org [127.0.0.1]) (amavisd-new, port 10024) with ESMTP id x; date", "127.0.0.1", "mx2.example.org"},
	"mapped":                {" from evil.example (unknown [::ffff:203.0.113.9]) by mx2; date", "203.0.113.9", "evil.example"},
	"local":                 {" by mx2.example.org (Postfix, from userid 0) id 4F; date", "", ""},
	"only the host":         {" from evil.example by mx2.example.org ([192.0.2.1]); date", "", ""},
	"no comment's end":      {" from evil.example (unknown [203.0.113.9] by mx2", "", ""},
	"no address":            {" from evil.example (unknown) by mx2; date", "", ""},
	"a word more":           {" from evil.example x (unknown [203.0.113.9]) by mx2; date", "", ""},
	"nothing":               {"", "", ""},
	"from":                  {" from", "", ""},
}

func TestParseReceived(t *testing.T) {
	for name, test := range receivedForms {
		h, ok := parseReceived(test.value)
		if ok != (test.client != "") || ok && (h.Client != netip.MustParseAddr(test.client) || h.Helo != test.helo) {
			t.Errorf("%s: %+v, %t", name, h, ok)
		}
	}
}

func FuzzParseReceived(f *testing.F) {
	for _, test := range receivedForms {
		f.Add(test.value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		h, ok := parseReceived(value)
		if ok != h.Client.IsValid() || h.Client.Zone() != "" || h.Client.Is4In6() {
			t.Fatalf("%q: %+v, %t", value, h, ok)
		}
		if ok && !strings.Contains(value, h.Helo) {
			t.Fatalf("%q: HELO %q", value, h.Helo)
		}
	})
}

func TestFollow(t *testing.T) {
	const (
		stranger = "Received: from evil.example (unknown [203.0.113.9]) by mx2 (Postfix) with ESMTP id 1; date"
		relay    = "Received: from mx3 (mx3 [198.51.100.8]) by mx2 (Postfix) with ESMTP id 2; date"
		filter   = "Received: from mx2 ([127.0.0.1]) by localhost (mx2 [127.0.0.1]) (amavisd-new) with ESMTP id 3; date"
		back     = "Received: from localhost (localhost [127.0.0.1]) by mx2 (Postfix) with ESMTP id 4; date"
		local    = "Received: by mx2 (Postfix, from userid 0) id 5; date"
		forged   = "Received: from bank.example (mail.bank.example [192.0.2.1]) by mx.bank.example; date"
	)
	for name, test := range map[string]struct {
		header []string
		client string
		inside int
	}{
		"one hop":             {[]string{stranger, forged}, "203.0.113.9", 0},
		"results above":       {[]string{"Authentication-Results: x", stranger, forged}, "203.0.113.9", 1},
		"two relays":          {[]string{relay, stranger, forged}, "203.0.113.9", 1},
		"a content filter":    {[]string{back, filter, "X-Virus-Scanned: x", stranger, forged}, "203.0.113.9", 3},
		"begun on the relay":  {[]string{local, forged}, "", 0},
		"nothing of a relay":  {[]string{"Authentication-Results: x", "From: x"}, "", 0},
		"only our hosts":      {[]string{"Authentication-Results: x", back, filter, "Authentication-Results: x"}, "", 2},
		"an unknown form":     {[]string{"X: y", "Received: somehow", stranger}, "", 1},
		"a loop of our hosts": {append(strings.Split(strings.Repeat(relay+"|", maxHops), "|")[:maxHops], relay, stranger), "198.51.100.8", maxHops},
	} {
		o := Options{Relays: allowlist.Networks{netip.MustParsePrefix("198.51.100.0/24")}}
		var fields []Field
		for _, line := range test.header {
			key, value, _ := strings.Cut(line, ":")
			fields = append(fields, Field{Name: key, Value: value})
		}
		way := o.follow(fields)
		if got := addrText(way.origin.Client); got != test.client || way.inside != test.inside {
			t.Errorf("%s: client %q, %d fields inside", name, got, way.inside)
		}
	}
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
