package dkim

import (
	"errors"
	"strings"
	"testing"
)

func TestParseTags(t *testing.T) {
	tests := []struct {
		text string
		want string // name=value, joined by "|"
		err  error
	}{
		{"a=1", "a=1", nil},
		{"a=1;", "a=1", nil},
		{" a = 1 ;\r\n\tb_2 = x y \r\n ; ", "a=1|b_2=x y", nil},
		{"a=;b=", "a=|b=", nil},
		{"a=b=c", "a=b=c", nil},
		{"a=1;A=2", "a=1|A=2", nil}, // names have case
		{"a=\n \u00fc", "a=\u00fc", nil},
		{"", "", errTagSyntax},
		{";", "", errTagSyntax},
		{"a", "", errTagSyntax},
		{"a=1;;b=2", "", errTagSyntax},
		{"=1", "", errTagSyntax},
		{"1a=1", "", errTagSyntax},
		{"a-b=1", "", errTagSyntax},
		{"a b=1", "", errTagSyntax},
		{"a=1; a=2", "", errTagDuplicate},
		{"a=\x00", "", errTagOctet},
		{"a=\x7f", "", errTagOctet},
		{tagsTo(maxTags + 1), "", errTagMany},
	}
	for _, tt := range tests {
		tags, err := parseTags(tt.text)
		var list []string
		for _, tag := range tags {
			list = append(list, tag.name+"="+tag.value)
			if got := trimFWS(tt.text[tag.start:tag.end]); got != tag.value {
				t.Errorf("%q: %s is at %q", tt.text, tag.name, got)
			}
		}
		if got := strings.Join(list, "|"); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %q, %v; want %q, %v", tt.text, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseTags(f *testing.F) {
	f.Add("v=1; a=rsa-sha256; b = \r\n x ; bh=;")
	f.Add(";;=;a=b=c;\x00")
	f.Add(tagsTo(70))
	f.Fuzz(func(t *testing.T, text string) {
		tags, err := parseTags(text)
		if (err == nil) != (len(tags) > 0) || len(tags) > maxTags {
			t.Fatalf("%q: %d tags, error %v", text, len(tags), err)
		}
		for _, tag := range tags {
			if text[tag.start-1] != '=' || trimFWS(text[tag.start:tag.end]) != tag.value || strings.Contains(tag.value, ";") {
				t.Fatalf("%q: tag %+v", text, tag)
			}
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("v=DKIM1; k=rsa; h=sha256; s=email; t=y:s; n=note; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/")
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Add("p=; v=DKIM1")
	f.Fuzz(func(t *testing.T, record string) {
		key, err := parseKey(record)
		if err != nil {
			return
		}
		if (key.rsa == nil) == (key.ed25519 == nil) {
			t.Fatalf("%q gives no key, or two: %+v", record, key)
		}
		p := &parsed{keyAlgorithm: key.algorithm}
		if refused := key.allows(p); refused == nil && key.rsa != nil && (key.bits < minRSABits || key.bits > maxRSABits) {
			t.Fatalf("%q: %d bit are allowed", record, key.bits)
		}
		key.verify([32]byte{}, []byte("no signature"))
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add(" v=1; a=rsa-sha256; c=relaxed/simple; d=example.com; s=s; i=@example.com; q=dns/txt; t=1; x=2; l=3; h=from:to; bh=YWJj; b=YWJj")
	f.Add(" v=1; a=ed25519-sha256; d=\u00fc.example; s=.; h=:; bh=; b=\n x")
	f.Fuzz(func(t *testing.T, value string) {
		p, refused := parseSignature(Field{FieldName, value}, 3)
		if refused != nil {
			if refused.status == Pass || refused.reason == "" {
				t.Fatalf("%q: refused with %v", value, refused)
			}
			return
		}
		if p.Domain == "" || p.Selector == "" || len(p.Signed) == 0 || len(p.signature) == 0 {
			t.Fatalf("%q: taken without what it needs: %+v", value, p)
		}
		if got := p.unsigned().Value; len(got) >= len(value) {
			t.Fatalf("%q: b= was not removed: %q", value, got)
		}
	})
}
