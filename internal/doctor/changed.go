package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/milter/sign"
)

// changedLater finds settings with which Postfix changes signed fields after mail was
// signed: smtp(8) on the way out, and cleanup(8) when a content filter hands mail back.
func (f *Facts) changedLater(ctx context.Context) []Finding {
	domains := f.signedDomains()
	if len(domains) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.check)
	defer cancel()
	var found []Finding
	asked := make(map[string]bool) // settings whose tables were asked
	for _, s := range f.Postfix.Services {
		switch {
		case s.Command == "smtp":
			if specs := "generic " + s.Value("smtp_generic_maps"); !asked[specs] {
				asked[specs] = true
				found = append(found, f.rewrittenBy(s, domains)...)
			}
			if specs := "checks " + s.Value("smtp_header_checks"); !asked[specs] {
				asked[specs] = true
				found = append(found, f.editedBy(ctx, s, domains[0])...)
			}
		case s.Command == "smtpd" && f.handsBack(s):
			found = appendNew(found, f.rewrittenAgain(s, domains)...)
		}
	}
	return found
}

// signedDomains returns the domains of the keys in files.
func (f *Facts) signedDomains() []string {
	keys, _ := f.keys()
	var domains []string
	for _, key := range keys {
		if !slices.Contains(domains, key.Domain) {
			domains = append(domains, key.Domain)
		}
	}
	return domains
}

// rewrittenBy finds smtp_generic_maps that rewrite addresses of signed domains.
func (f *Facts) rewrittenBy(s *Service, domains []string) []Finding {
	for _, spec := range postconf.Split(s.Value("smtp_generic_maps")) {
		if key := keyOf(spec, domains); key != "" {
			return []Finding{warnf("put such entries into canonical_maps, which Postfix applies before mail is signed",
				"smtp_generic_maps%s (%.80s) rewrites %s in the header of mail that was signed: its signatures do not verify", s.owner("smtp_generic_maps"), spec, key)}
		}
	}
	return nil
}

// owner returns " of" and the service, if it has a value of its own for a parameter.
func (s *Service) owner(name string) string {
	if s.overrides(name) {
		return " of " + s.String()
	}
	return ""
}

// keyOf returns a key of an address table that rewrites addresses of domains, "" if there
// is none or if that cannot be seen.
func keyOf(spec string, domains []string) string {
	table, err := postmap.Open(spec, postmap.Options{})
	if err != nil {
		return ""
	}
	defer table.Source.Close()
	if lister, ok := table.Source.(postmap.Enumerator); ok {
		if keys, complete := lister.Keys(); complete {
			for key := range keys {
				if at := strings.LastIndexByte(key, '@'); at >= 0 && slices.Contains(domains, strings.ToLower(key[at+1:])) {
					return key
				}
			}
		}
		return ""
	}
	if !table.Pattern {
		return "" // a server: which addresses it rewrites cannot be listed
	}
	for _, domain := range domains {
		address := "user@" + domain
		if values, err := table.Source.Lookup(context.Background(), address); err == nil && len(values) > 0 && values[0] != address {
			return address
		}
	}
	return ""
}

// sampleFields are values of signed fields that rules are often about.
var sampleFields = map[string]string{
	"date": "Thu, 26 Nov 2026 12:00:00 +0000", "message-id": "<1@localhost>", "mime-version": "1.0 (Mac OS X Mail 16.0)",
	"content-type": "text/plain; charset=utf-8", "subject": "Hello",
}

// editedBy finds smtp_header_checks that change signed fields. It asks the table about a
// usual value of each.
func (f *Facts) editedBy(ctx context.Context, s *Service, domain string) []Finding {
	specs := postconf.Split(s.Value("smtp_header_checks"))
	if len(specs) == 0 {
		return nil
	}
	names := f.Milterd.list("dkim-headers")
	if len(names) == 0 {
		names = sign.DefaultHeaders()
	}
	for _, name := range names {
		name = strings.TrimLeft(name, "+?")
		value, ok := sampleFields[strings.ToLower(name)]
		if !ok {
			value = "User <user@" + domain + ">"
		}
		line := name + ": " + value
		for _, spec := range specs {
			answer, _, err := postconf.Run(ctx, "postmap", "-c", f.Postfix.Directory, "-q", line, spec)
			if err != nil || strings.TrimSpace(answer) == "" {
				continue
			}
			action, text, _ := strings.Cut(strings.TrimSpace(answer), " ")
			action = strings.ToUpper(action)
			if action == "IGNORE" || action == "STRIP" || action == "REPLACE" && strings.TrimSpace(text) != line {
				return []Finding{warnf(fmt.Sprintf("put this rule into header_checks, which Postfix applies before mail is signed, or take %s out of dkim-headers in milterd.toml", name),
					"smtp_header_checks%s (%.80s) changes %s of mail that was signed (%s): its signatures do not verify", s.owner("smtp_header_checks"), spec, name, action)}
			}
			break // the first table that knows the line decides
		}
	}
	return nil
}

// handsBack reports whether a service gets mail back from a content filter, and does not
// have it signed.
func (f *Facts) handsBack(s *Service) bool {
	role := f.roleAt(s)
	return s.isLoopback() && !s.takesLogins() && f.filtered() && s.Value("content_filter") == "" && role != roleSign && role != roleSession
}

// headerMaps are the tables with which cleanup(8) rewrites addresses in headers, and the
// parameters that say where.
var headerMaps = map[string]string{
	"canonical_maps": "canonical_classes", "sender_canonical_maps": "sender_canonical_classes", "recipient_canonical_maps": "recipient_canonical_classes",
}

// rewrittenAgain finds canonical maps that are applied to headers after a content filter.
// Postfix rewrites the headers of local clients alone: users who log in elsewhere are not
// local, the filter is.
func (f *Facts) rewrittenAgain(s *Service, domains []string) []Finding {
	if s.Value("local_header_rewrite_clients") == "" || hasWord(s, "receive_override_options", "no_address_mappings") {
		return nil
	}
	before := !slices.ContainsFunc(f.Postfix.smtpds(), func(first *Service) bool {
		return first.isSubmission() && f.roleAt(first) != "" &&
			(!hasWord(first, "local_header_rewrite_clients", "permit_sasl_authenticated") || hasWord(first, "receive_override_options", "no_address_mappings"))
	})
	if before {
		return nil // what users send was rewritten before it was signed
	}
	for _, name := range []string{"canonical_maps", "sender_canonical_maps", "recipient_canonical_maps"} {
		if !strings.Contains(f.Postfix.Params[headerMaps[name]], "header_") {
			continue
		}
		for _, spec := range postconf.Split(f.Postfix.Params[name]) {
			if key := keyOf(spec, domains); key != "" {
				return []Finding{warnf(fmt.Sprintf("postconf -P '%s/local_header_rewrite_clients=' && postconf -e 'local_header_rewrite_clients = permit_inet_interfaces, permit_sasl_authenticated' so that they are applied before mail is signed", s),
					"%s: %s (%.80s) rewrites %s in the header of users' mail that the content filter hands back, after it was signed: its signatures do not verify", s, name, spec, key)}
			}
		}
	}
	return nil
}

// hasWord reports whether a list of a service has a word.
func hasWord(s *Service, name, word string) bool {
	return slices.Contains(postconf.Split(s.Value(name)), word)
}
