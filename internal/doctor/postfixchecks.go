package doctor

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/postconf"
)

// unusedParameter matches a name that Postfix does not know and that has the prefix of
// a parameter that doctor looks at.
var unusedParameter = regexp.MustCompile(`unused parameter: ((?:non_)?smtpd_\w+|milter_\w+|postscreen_\w+)=`)

func checkPostfix(ctx context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		fix := "install Postfix, or name its folder with --config-directory"
		if _, err := os.Stat(filepath.Join(f.Options.ConfigDirectory, "main.cf")); err == nil {
			fix = "correct the file; Postfix does not start with it"
		}
		return []Finding{failf(fix, "%v", f.PostfixErr)}
	}
	p := f.Postfix
	var found []Finding
	for _, text := range p.Warnings {
		if m := unusedParameter.FindStringSubmatch(text); m != nil {
			found = append(found, warnf("correct the name, or remove it (postconf -X NAME)", "%s", text))
		}
	}
	if !p.atLeast(3, 0) {
		found = append(found, warnf("upgrade Postfix, or bind checks to sockets of their own (listen = [\"inet:127.0.0.1:10048=ownership\"]) and leave braces out",
			"Postfix %s knows no { } around a policy service or a milter, and no policy_context", p.Params["mail_version"]))
	} else if !p.atLeast(3, 1) && slices.ContainsFunc(f.Hooks, func(h Hook) bool { return len(h.Context) > 0 }) {
		found = append(found, failf("bind checks to sockets of their own: listen = [\"inet:127.0.0.1:10048=ownership\"]",
			"Postfix %s has no policy_context (3.1 and later have)", p.Params["mail_version"]))
	}
	found = append(found, p.malformed()...)
	if postconf.IsYes(p.Params["soft_bounce"]) {
		found = append(found, warnf("postconf -X soft_bounce", "soft_bounce is yes: every refusal becomes a deferral, ours too"))
	}
	if !p.runs() {
		found = append(found, warnf("systemctl start postfix, or postfix -c "+p.Directory+" start", "Postfix is not running"))
	}
	if others := otherInstances(p); len(others) > 0 {
		found = append(found, okf("Postfix %s in %s; other instances have to be looked at one by one with --config-directory: %s",
			p.Params["mail_version"], p.Directory, strings.Join(others, ", ")))
	}
	return orOK(found, "Postfix %s in %s", p.Params["mail_version"], p.Directory)
}

// malformed finds lists that keep smtpd or cleanup from starting, but that postconf
// accepts. Without cleanup no mail gets in at all.
func (p *Postfix) malformed() []Finding {
	lists := map[string][]string{"smtpd": append([]string{"smtpd_milters"}, restrictionLists...), "cleanup": {"non_smtpd_milters"}}
	var found []Finding
	for _, s := range p.Services {
		for _, list := range lists[s.Command] {
			text, at := s.Value(list), list
			if s.overrides(list) {
				at += " at " + s.String()
			}
			words := postconf.Split(text)
			switch {
			case !isBalanced(text):
				found = appendNew(found, failf("close every brace in "+at, "%s: a brace is not closed: %s does not start", at, s.Command))
			case len(words) > 0 && strings.EqualFold(words[len(words)-1], "check_policy_service"):
				found = appendNew(found, failf("name a socket behind it: inet:HOST:PORT or unix:PATH", "%s: nothing follows check_policy_service: %s does not start", at, s.Command))
			}
		}
	}
	return found
}

// runs reports whether master(8) runs: it then holds a lock on master.pid. If that file
// cannot be opened, runs assumes that it does.
func (p *Postfix) runs() bool {
	file, err := os.Open(filepath.Join(p.queueDirectory(), p.Params["process_id_directory"], "master.pid"))
	if err != nil {
		return true // Postfix was never started, or we may not look
	}
	defer file.Close() // this releases the lock too
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// otherInstances returns the folders of the other instances of Postfix on this machine.
func otherInstances(p *Postfix) []string {
	return slices.DeleteFunc(append(slices.Clone(p.primary), postconf.Split(p.Params["multi_instance_directories"])...), func(dir string) bool {
		return filepath.Clean(dir) == filepath.Clean(p.Directory)
	})
}
