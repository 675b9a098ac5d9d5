package doctor

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// macroLists are the parameters that set which macros a milter gets, with the macros
// that milterd needs.
var macroLists = []struct {
	name  string
	needs []string
}{
	{"milter_connect_macros", []string{"j", "{daemon_name}"}},
	{"milter_mail_macros", []string{"{auth_authen}", "{auth_type}"}},
	{"milter_rcpt_macros", []string{"i"}},
	{"milter_data_macros", []string{"i"}},
	{"milter_end_of_header_macros", []string{"i"}},
	{"milter_end_of_data_macros", []string{"i"}},
}

// milterProtocol is Postfix's default protocol version.
const milterProtocol = 6

// checkMacros looks at the macros that Postfix sends to milters.
func checkMacros(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || !f.usesMilterd() {
		return nil
	}
	var found []Finding
	old := false
	if version, err := strconv.Atoi(f.Postfix.Params["milter_protocol"]); err == nil && version < milterProtocol {
		old = true
		found = append(found, warnf("postconf -X milter_protocol", "milter_protocol is %d, left over from older guides: what needs protocol 6 does not work", version))
	}
	for _, s := range f.Postfix.smtpds() {
		role := f.roleAt(s)
		if role == "" {
			continue
		}
		found = appendNew(found, macroFindings(s, old, role)...)
		if role == roleSession && s.isInbound() && f.isOriginating(s) {
			found = appendNew(found, failf(s.unset("milter_macro_daemon_name")+", and set it in master.cf for submission only",
				"%s: milter_macro_daemon_name is %s: mail from the internet counts as ours and is signed", s, s.Value("milter_macro_daemon_name")))
		}
	}
	return orOK(found, "milter protocol 6 with all macros")
}

// macroFindings judges the macro lists of a service.
func macroFindings(s *Service, old bool, role string) []Finding {
	var found []Finding
	for _, list := range macroLists {
		if !s.postfix.Set[list.name] && !s.overrides(list.name) {
			continue
		}
		has := postconf.Split(s.Value(list.name))
		for i, m := range has {
			if len(m) > 1 && m[0] != '{' {
				has[i] = "{" + m + "}"
			}
		}
		missing := slices.DeleteFunc(slices.Clone(list.needs), func(m string) bool { return slices.Contains(has, m) })
		switch fix := s.unset(list.name); {
		case len(missing) == 0:
		case !old && slices.Equal(missing, []string{"{auth_type}"}): // milterd asks for it, and rspamd's own guide leaves it out
		case old && role == roleSession:
			found = append(found, failf(fix, "%s leaves out %s, by which postern-milterd knows whose mail it is: users' mail is not signed", list.name, strings.Join(missing, ", ")))
		default:
			found = append(found, warnf(fix, "%s leaves out %s: postern-milterd asks for what it needs, other milters go without", list.name, strings.Join(missing, ", ")))
		}
	}
	return found
}
