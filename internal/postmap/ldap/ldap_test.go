package ldap

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

func TestTidy(t *testing.T) {
	for in, want := range map[string]string{
		"mail=%s":                              "(mail=%s)",
		"(mail=%s)":                            "(mail=%s)",
		" ( & (a=b c)\n\t( | (d=e) (f=g) ) ) ": "(&(a=b c)(|(d=e)(f=g)))",
		"(!  (a=b))":                           "(!(a=b))",
		"(a=x & y)":                            "(a=x & y)",
	} {
		if got := tidy(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseURL(t *testing.T) {
	u, err := parseURL("ldap:///ou=a%20b,dc=x?mail,uid?sub?(cn=a*)?x-ext")
	if err != nil || u.dn != "ou=a b,dc=x" || !slices.Equal(u.attributes, []string{"mail", "uid"}) || u.scope != ldap.ScopeWholeSubtree || u.filter != "(cn=a*)" {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err = parseURL("ldap://host"); err != nil || u.dn != "" || u.scope != ldap.ScopeBaseObject || u.filter != "(objectClass=*)" {
		t.Errorf("%+v, %v", u, err)
	}
	for _, bad := range []string{"ldap:///a?b?what", "ldap:///%zz", "ldap:///a?%zz", "ldap:///a???%zz", "ldap:///a???(a", "ldap:///a????!ext", "ldap:///a?????"} {
		if u, err := parseURL(bad); err == nil {
			t.Errorf("%s: %+v", bad, u)
		}
	}
	if isURL("cn=a,dc=x") || isURL("http://x/") || !isURL("LDAPS://x/") {
		t.Error("what is a URL")
	}
}

func TestWanted(t *testing.T) {
	table := []string{"mail", "cn;lang-de"}
	for names, want := range map[string]string{"": "mail cn;lang-de", "MAIL": "mail", "mail;x": "mail;x", "cn": "cn;lang-de", "cn;lang-en": "", "sn": ""} {
		u := searchURL{attributes: strings.Fields(names)}
		if got := strings.Join(u.wanted(table), " "); got != want {
			t.Errorf("%q: got %q, want %q", names, got, want)
		}
	}
}

func TestServers(t *testing.T) {
	d := directory{port: "1389"}
	for name, want := range map[string]string{
		"h":                     "tcp h:1389 false",
		"h:99":                  "tcp h:99 false",
		"[::1]:99":              "tcp [::1]:99 false",
		"ldap://h":              "tcp h:389 false",
		"ldap://h:1/":           "tcp h:1 false",
		"LDAPS://h":             "tcp h:636 true",
		"ldapi://%2Frun%2Fx%2F": "unix /run/x/ false",
		"ldapi://":              "unix /run/slapd/ldapi false",
	} {
		s, err := d.server(name)
		got := s.network + " " + s.address + " " + map[bool]string{true: "true", false: "false"}[s.overTLS]
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, want)
		}
	}
	for _, bad := range []string{"ldap://", "h:x", "h:0", "h:70000", "ldapi://%zz", "ldap://[", ":1"} {
		if s, err := d.server(bad); err == nil {
			t.Errorf("%s: %+v", bad, s)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, text := range []string{"ldap:///ou=a?mail?sub?(cn=a)", "ldapi://%2f/?", "ldap://////????", "ldap:///%", "ldap:///?a,b,,?one?((", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseURL(text)
		if err != nil {
			return
		}
		if _, err := ldap.CompileFilter(u.filter); err != nil {
			t.Errorf("%q: the filter %q: %v", text, u.filter, err)
		}
		u.wanted([]string{"mail", "cn;x"})
	})
}
