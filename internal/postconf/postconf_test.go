package postconf

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
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
	ctx, interrupt := context.WithCancelCause(t.Context())
	time.AfterFunc(0, func() { interrupt(errSignal) })
	if _, _, err = Run(ctx, "sleep", "1000"); !errors.Is(err, errSignal) {
		t.Errorf("interrupted: %v", err)
	}
}

var errSignal = errors.New("interrupt signal received")

func TestInline(t *testing.T) {
	params := map[string]string{
		"smtpd_restriction_classes": "users, Users loop outer",
		"users":                     "permit_sasl_authenticated reject",
		"loop":                      "warn_if_reject, loop",
		"outer":                     "check_policy_service { inet:127.0.0.1:1, timeout=1s } users",
	}
	for list, want := range map[string]string{
		"users":                    "permit_sasl_authenticated, reject",
		"permit_mynetworks, users": "permit_mynetworks, permit_sasl_authenticated, reject",
		"USERS":                    "USERS", // Postfix heeds the case of these names
		"outer":                    "check_policy_service, { inet:127.0.0.1:1, timeout=1s }, permit_sasl_authenticated, reject",
		"loop":                     "warn_if_reject, loop",
		"Users, reject":            "reject",
		"":                         "",
	} {
		if got := Inline(list, func(name string) string { return params[name] }); got != want {
			t.Errorf("%q: %q", list, got)
		}
	}
	names := make([]string, 40)
	for i := range names {
		names[i] = "c" + strconv.Itoa(i)
	}
	all := strings.Join(names, " ") // each names all others
	if got := Inline(all, func(string) string { return all }); len(got) > 100_000 {
		t.Errorf("%d octets", len(got))
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

func TestOnlyOwn(t *testing.T) {
	for list, want := range map[string]bool{
		"permit_mynetworks, reject":                                   true,
		"Permit_Mynetworks permit_sasl_authenticated REJECT":          true,
		"permit_mynetworks, permit_dnswl_client list.example, reject": false,
		"permit_mynetworks, reject_unauth_destination":                false,
		"reject": false,
	} {
		if got := OnlyOwn(list); got != want {
			t.Errorf("%q: %t", list, got)
		}
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, test := range []struct {
		service, interfaces string
		want                bool
	}{
		{"127.0.0.1:10025", "all", true},
		{"[127.0.0.1]:10025", "all", true}, // as Zimbra has it
		{"[::1]:10025", "all", true},
		{"localhost:10025", "all", true},
		{"192.0.2.1:25", "loopback-only", false},
		{"smtp", "all", false},
		{"smtp", "", false},
		{"smtp", "loopback-only", true},
		{"10025", "127.0.0.1, [::1]", true},
		{"smtp", "127.0.0.1, mail.example.org", false},
		{":smtp", "Loopback-Only", true},
	} {
		if got := OnlyLoopback(test.service, test.interfaces); got != test.want {
			t.Errorf("%s with inet_interfaces = %s: %t", test.service, test.interfaces, got)
		}
	}
}

func TestIsDisabled(t *testing.T) {
	for patterns, want := range map[string]bool{
		"":                      false,
		"inet":                  true,
		"unix fifo":             false,
		"INET":                  true,
		"smtp/inet":             true,
		"smtp.inet":             true,
		"!smtp/inet, inet":      false,
		"!!smtp/inet":           true,
		"submission/inet":       false,
		"10.0.0.1:smtp/inet":    false,
		"!submission/inet inet": true,
	} {
		if got := IsDisabled(patterns, "smtp", "inet"); got != want {
			t.Errorf("master_service_disable = %s: %t", patterns, got)
		}
	}
	if !IsDisabled("127.0.0.1:10025/inet", "127.0.0.1:10025", "inet") {
		t.Error("a service with an address is not found")
	}
}

func TestSpeaks(t *testing.T) {
	for _, test := range []struct {
		protocols, host string
		want            bool
	}{
		{"all", "127.0.0.1", true}, {"", "::1", true}, {"ipv4", "127.0.0.1", true}, {"ipv6, ipv4", "[::1]", true},
		{"ipv6", "127.0.0.1", false}, {"IPv4", "::1", false}, {"ipv6", "localhost", true},
	} {
		if got := Speaks(test.protocols, test.host); got != test.want {
			t.Errorf("%s with inet_protocols = %s: %t", test.host, test.protocols, got)
		}
	}
}
