package ldap

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// searchURL is an LDAP URL (RFC 4516) as a value of a special attribute. Its host is
// ignored: as in Postfix, the search goes to the server that returned the URL.
type searchURL struct {
	dn         string
	attributes []string // empty means all
	scope      int
	filter     string
}

// isURL distinguishes a URL from a DN.
func isURL(text string) bool {
	scheme, _, ok := strings.Cut(text, "://")
	if !ok {
		return false
	}
	switch strings.ToLower(scheme) {
	case "ldap", "ldaps", "ldapi":
		return true
	}
	return false
}

// parseURL reads scheme://host/dn?attributes?scope?filter?extensions.
func parseURL(text string) (searchURL, error) {
	_, rest, _ := strings.Cut(text, "://")
	_, rest, _ = strings.Cut(rest, "/")
	fields := strings.Split(rest, "?")
	if len(fields) > 5 {
		return searchURL{}, errors.New("more than four question marks")
	}
	for len(fields) < 5 {
		fields = append(fields, "")
	}
	if hasCritical(fields[4]) {
		return searchURL{}, errors.New("a critical extension")
	}
	u := searchURL{}
	var err error
	if u.dn, err = url.PathUnescape(fields[0]); err != nil {
		return searchURL{}, err
	}
	for _, name := range strings.FieldsFunc(fields[1], func(r rune) bool { return r == ',' }) {
		if name, err = url.PathUnescape(name); err != nil {
			return searchURL{}, err
		}
		u.attributes = append(u.attributes, name)
	}
	if u.scope, err = urlScope(fields[2]); err != nil {
		return searchURL{}, err
	}
	return u, u.setFilter(fields[3])
}

func hasCritical(extensions string) bool {
	for name := range strings.SplitSeq(extensions, ",") {
		if strings.HasPrefix(name, "!") {
			return true
		}
	}
	return false
}

func urlScope(name string) (int, error) {
	switch strings.ToLower(name) {
	case "", "base":
		return ldap.ScopeBaseObject, nil
	case "one":
		return ldap.ScopeSingleLevel, nil
	case "sub":
		return ldap.ScopeWholeSubtree, nil
	}
	return 0, fmt.Errorf("unknown scope %q", name)
}

func (u *searchURL) setFilter(text string) error {
	filter, err := url.PathUnescape(text)
	if err != nil {
		return err
	}
	if filter == "" {
		filter = "(objectClass=*)"
	}
	u.filter = tidy(filter)
	_, err = ldap.CompileFilter(u.filter)
	return err
}

// wanted returns the attributes that both the URL and the table name; of a name and its
// option, the longer one.
func (u searchURL) wanted(table []string) []string {
	if len(u.attributes) == 0 {
		return table
	}
	var both []string
	for _, a := range u.attributes {
		for _, b := range table {
			switch {
			case has([]string{a}, b):
				both = append(both, b)
			case has([]string{b}, a):
				both = append(both, a)
			}
		}
	}
	return both
}
