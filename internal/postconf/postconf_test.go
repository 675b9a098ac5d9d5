package postconf

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"a, b  c,,d\r\n e":                 {"a", "b", "c", "d", "e"},
		"check { x, { y = 1, 2 }, z } end": {"check", "{ x, { y = 1, 2 }, z }", "end"},
		"{ never closed, a":                {"{ never closed, a"},
		"} a":                              {"}", "a"},
		" , ":                              nil,
		"":                                 nil,
	} {
		if got := Split(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestPairs(t *testing.T) {
	got := Pairs("a = 1\nb=x = y\nnone\n c  =\n")
	if want := map[string]string{"a": "1", "b": "x = y", "c": ""}; !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRun(t *testing.T) {
	out, said, err := Run(t.Context(), "sh", "-c", "echo out; echo said >&2; exit 3")
	if out != "out\n" || said != "said\n" || err == nil || !strings.Contains(err.Error(), "exit status 3: said") {
		t.Errorf("%q, %q, %v", out, said, err)
	}
	if _, _, err := Run(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "is not installed here") {
		t.Errorf("%v", err)
	}
	out, _, err = Run(t.Context(), "sh", "-c", "head -c 20000000 /dev/zero")
	if err != nil || len(out) != maxOutput {
		t.Errorf("%d octets are kept, %v", len(out), err)
	}
}

func TestOnlyLogins(t *testing.T) {
	for list, want := range map[string]bool{
		"permit_sasl_authenticated, reject":                                                 true,
		"reject_non_fqdn_recipient Permit_mynetworks permit_SASL_authenticated,reject":      true,
		"permit_sasl_authenticated, check_recipient_access hash:/etc/postfix/valid, reject": false,
		"permit_sasl_authenticated, permit_auth_destination, reject":                        false,
		"permit_sasl_authenticated, reject_unauth_destination":                              false,
		"permit_mynetworks, reject":                                                         false,
		"reject":                                                                            false,
		"":                                                                                  false,
	} {
		if got := OnlyLogins(list); got != want {
			t.Errorf("%q: %t", list, got)
		}
	}
}
