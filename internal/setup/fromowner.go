// From ownership: what users may write in From.

package setup

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/config"
)

const fromOwnership = "from-ownership"

// fromSettings plans that the milter daemon records who writes a From that is not
// theirs. It judges by the settings that the policy daemon will have, so that both agree
// who owns an address. A decision of the administrator is kept. While everything is only
// watched, and when that ends, nothing is planned: the next run does it.
func (p *planner) fromSettings() error {
	own, err := p.document(p.Milterd.Config)
	if err != nil {
		return err
	}
	policyd, err := p.document(p.Policyd.Config)
	if err != nil {
		return err
	}
	mode := own.Values(fromOwnership)
	switch {
	case slices.Equal(mode, []string{"off"}), mode == nil && !p.mayJudgeFrom(policyd):
		return nil
	case mode == nil && (p.plan.Shadow || p.watches()):
		p.next("after --shadow=false: run postern setup once more; postern-milterd then records who writes a From that is not theirs (from-ownership)")
		return nil
	case mode == nil:
		p.planFrom(policyd)
	}
	p.milterdPaths = slices.Concat(p.milterdPaths, p.paths, ownedFiles(own))
	return nil
}

// document returns a file of settings as the plan leaves it. A file that does not exist
// has no settings.
func (p *planner) document(path string) (*config.Document, error) {
	data, err := os.ReadFile(path)
	if i := slices.IndexFunc(p.plan.Files, func(f File) bool { return f.Path == path }); i >= 0 {
		data = p.plan.Files[i].Text
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return config.ParseDocument(path, data)
}

// mayJudgeFrom reports whether the milter daemon sees the mail of everyone who logs in,
// and whether the policy daemon has all tables of the site.
func (p *planner) mayJudgeFrom(policyd *config.Document) bool {
	return !p.tableMissing && len(policyd.Values("owners"))+len(policyd.Values("owner-aliases")) > 0 &&
		(policyd.Get("checks") == "" || hasWord(policyd, "checks", "ownership")) && p.seesLogins()
}

// seesLogins reports whether users can log in, and Postfix asks the milter daemon
// wherever they can.
func (p *planner) seesLogins() bool {
	logins := slices.DeleteFunc(slices.Concat(p.with(Users), p.with(Internet)), func(s *Service) bool { return !p.logsIn(s) })
	return len(logins) > 0 && !slices.ContainsFunc(logins, func(s *Service) bool {
		return p.noMilters(s) || !slices.ContainsFunc(p.milters(s, milterList), p.isOurMilter)
	})
}

func (p *planner) isOurMilter(element string) bool {
	at := endpointOf(element)
	return at == normal(p.Verify) || at == normal(p.Sign)
}

func (p *planner) planFrom(policyd *config.Document) {
	p.milterd.set(fromOwnership, "shadow")
	for _, name := range policyd.Keys() {
		if isOwnerSetting(name) {
			p.milterd.set(name, policyd.Values(name)...)
		}
	}
	p.warn("users may write any From; postern-milterd records who writes one that is not theirs, and refuses none of this mail (from-ownership = \"shadow\")")
	p.next("when postern log --mode shadow --reason 'from_*' shows no mail that should pass: from-ownership = \"enforce\" in %s", p.Milterd.Config)
}

// isOwnerSetting reports whether both daemons have a setting about who owns an address.
func isOwnerSetting(name string) bool {
	switch name {
	case "owners-unauthenticated": // about envelope senders
		return false
	case "login-domain", "local-domains", "recipient-delimiter", "myorigin", "mydomain",
		"allow-percent-hack", "swap-bangpath", "append-at-myorigin", "append-dot-mydomain":
		return true
	}
	return strings.HasPrefix(name, "owner")
}
