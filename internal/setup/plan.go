package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
)

// The daemons, as --only names them.
const (
	Policyd = "policyd"
	Milterd = "milterd"
)

// Daemon is what setup needs to know about one of our daemons.
type Daemon struct {
	Program config.Program
	Config  string // the path of its settings file
}

// Options are the choices of the administrator.
type Options struct {
	ConfigDirectory string // of Postfix; "" for postconf(1)'s own
	Root            string // folder above the files of other programs and of systemd; "" for /
	Only            string // Policyd, Milterd or "" for both
	Journal         string // folder of the journals of all Postfixes; "" for none
	Shadow          *bool  // nil keeps the setting in our files
	Policyd         Daemon
	Milterd         Daemon
	Policy          string   // where policyd listens, as Postfix spells it
	Verify, Sign    string   // where milterd listens
	Internet, Users []string // services of master.cf that setup does not recognise
	LoginDomain     string   // domain of logins without one; "" to find out
	Signer          string   // ours, or the name of a peer; "" to find out
	Greylister      string   // likewise
	User            string   // of the daemons

	// Import imports the greylist of another program. It is called when the daemons
	// run.
	Import func(ctx context.Context, source Import) (string, error)
	// CanImport returns what an import lacks on this machine; nil, or without it, nothing.
	CanImport func() error
	// Hide masks secrets in what is printed.
	Hide func(string) string
}

// ours is the value of Signer and Greylister for Postern.
const ours = "postern"

// Change is a new value for a parameter of Postfix.
type Change struct {
	Service string `json:"service,omitempty"` // "submission/inet"; "" in main.cf
	Name    string `json:"name"`
	Old     string `json:"old"`
	WasSet  bool   `json:"was_set"`
	New     string `json:"new"`
	Unset   bool   `json:"unset,omitempty"` // the parameter is removed
}

// where names the parameter for the administrator: the file, the service and the name.
func (c Change) where() string {
	if c.Service == "" {
		return "main.cf: " + c.Name
	}
	return "master.cf, " + c.Service + ": -o " + c.Name
}

// File is a file of ours with a new text.
type File struct {
	Path  string      `json:"path"`
	Text  []byte      `json:"text"`
	Mode  fs.FileMode `json:"mode"`
	Owner string      `json:"owner,omitempty"` // "" for root
	// Secret is set if the text must not be printed, only the name.
	Secret bool `json:"secret,omitempty"`
	// Settings is the daemon that reads the file as its settings, or "".
	Settings string `json:"settings,omitempty"`
	// Set are the settings that we add, if it is a file of settings.
	Set []config.Line `json:"set,omitempty"`
	// Unset are the settings that we remove.
	Unset []string `json:"unset,omitempty"`

	before content // when the plan was made
}

// Import is the data of another greylist.
type Import struct {
	Program string // "postgrey"
	Folder  string // folder of its database
	Lacks   string // why it cannot be read now, and the fix; "" if it can
}

// Plan is what setup has found and what it would change.
type Plan struct {
	Postfix  *Postfix
	Peers    []*Peer
	Changes  []Change
	Files    []File
	Imports  []Import
	Cannot   []string // settings of others that are not carried over
	Warnings []string
	Asks     []Question
	Next     []string // what is left to do by hand
	Manual   []string // lines for an appliance that rewrites main.cf
	Reload   []string // units of other programs that must reload their settings
	Shadow   bool
	Daemons  []string // the daemons that are attached

	Appliance   string // "" for none
	MilterdUser string // the user of milterd, if it differs from policyd's
}

// Question is a choice for the administrator, with its default.
type Question struct {
	Flag, Text, Otherwise string
	Choices               []string // nil for any text
}

// Nothing reports whether there is nothing to do.
func (p *Plan) Nothing() bool { return len(p.Changes) == 0 && len(p.Files) == 0 }

// planner makes a plan.
type planner struct {
	Options
	*Postfix
	plan *Plan

	policyd, milterd settings
	lists            lists             // DNS lists that Postfix asks itself
	bySession        bool              // milterd decides by the session whose mail it is
	userHooks        bool              // a service asks about users
	unlistedPass     bool              // Postfix lets users send what no table of owners lists
	selective        bool              // a restriction class asks the greylist, and no list does
	tableMissing     bool              // a table of owners cannot be used
	limited          bool              // the administrator has set limits in policyd's file
	wantsGreylist    bool              // the administrator has asked for our greylist
	copies           map[*Service]bool // services whose sender restrictions are a copy of main.cf's
	checks           []string          // what the administrator has set in policyd's file; nil for the default
	ownChecks        bool              // an earlier run has set them
	shared           bool              // another Postfix asks the daemons too

	// Files that the daemons must be able to read. paths are policyd's.
	paths, milterdPaths []string
}

// MakePlan finds out what to change.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	if o.Hide == nil {
		o.Hide = func(s string) string { return s }
	}
	postfix, err := ReadPostfix(ctx, o.ConfigDirectory)
	if err == nil {
		err = errors.Join(postfix.give(Internet, o.Internet), postfix.give(Users, o.Users))
	}
	if err != nil {
		return nil, err
	}
	p := &planner{Options: o, Postfix: postfix, plan: &Plan{Postfix: postfix}, wantsGreylist: strings.EqualFold(o.Greylister, ours)}
	if err := errors.Join(p.speaks(), p.readChecks()); err != nil {
		return nil, err
	}
	p.plan.Shadow = p.shadowed()
	p.findPeers()
	if err := p.choose(); err != nil {
		return nil, err
	}
	for _, name := range []string{Policyd, Milterd} {
		if p.attaches(name) {
			p.plan.Daemons = append(p.plan.Daemons, name)
		}
	}
	p.findLists()
	p.attachLists()
	if p.attaches(Policyd) {
		p.attachPolicy()
		if err := p.policydSettings(); err != nil {
			return nil, err
		}
	}
	if p.attaches(Milterd) {
		p.attachMilters()
		p.milterdSettings()
	}
	p.leavePolicy()
	p.leaveMilters()
	for _, k := range p.replaced() {
		if k.carry != nil {
			k.carry(p)
		}
	}
	p.dropNames()
	if err := p.dropUnused(ctx); err != nil {
		return nil, err
	}
	p.appliances()
	p.warnHosts()
	return p.plan, p.files()
}

// speaks returns an error if Postfix would not connect to a daemon, because
// inet_protocols leaves out the family of its address.
func (p *planner) speaks() error {
	for _, at := range []struct{ daemon, flag, endpoint string }{{Policyd, "policy", p.Policy}, {Milterd, "verify", p.Verify}, {Milterd, "sign", p.Sign}} {
		host, port, err := net.SplitHostPort(strings.TrimPrefix(at.endpoint, "inet:"))
		if err != nil || !p.attaches(at.daemon) || postconf.Speaks(p.value("inet_protocols"), host) {
			continue
		}
		other := "[::1]"
		if strings.Contains(host, ":") {
			other = "127.0.0.1"
		}
		return fmt.Errorf("Postfix does not connect to %s, because inet_protocols is %s; give each daemon another address: --%s inet:%s:%s, or a unix socket", at.endpoint, p.value("inet_protocols"), at.flag, other, port)
	}
	return nil
}

// shadowed reports whether the daemons only watch. Without a flag the settings in our
// files decide.
func (p *planner) shadowed() bool {
	if p.Shadow != nil {
		return *p.Shadow
	}
	return p.watches()
}

// watches reports whether a file of settings, as it is now, shadows everything.
func (p *planner) watches() bool {
	for _, d := range []Daemon{p.Policyd, p.Milterd} {
		if f, err := config.ReadDocument(d.Config); err == nil && shadowsAll(f) {
			return true
		}
	}
	return false
}

// shadowsAll reports whether a file of settings shadows everything.
func shadowsAll(f *config.Document) bool { return hasWord(f, "shadow", "all") }

// hasWord reports whether a list of words in a file of settings has a word. The list may
// be one value with commas.
func hasWord(f *config.Document, name, word string) bool {
	return slices.Contains(listed(f, name), word)
}

// listed returns the words of a list in a file of settings.
func listed(f *config.Document, name string) []string {
	return postconf.Split(strings.Join(f.Values(name), ","))
}

func (p *planner) attaches(daemon string) bool { return p.Only == "" || p.Only == daemon }

func (p *planner) warn(format string, args ...any) {
	addOnce(&p.plan.Warnings, fmt.Sprintf(format, args...))
}
func (p *planner) cannot(format string, args ...any) {
	addOnce(&p.plan.Cannot, fmt.Sprintf(format, args...))
}
func (p *planner) next(format string, args ...any) {
	addOnce(&p.plan.Next, fmt.Sprintf(format, args...))
}

func addOnce(list *[]string, text string) {
	if !slices.Contains(*list, text) {
		*list = append(*list, text)
	}
}

// setMain plans a value in main.cf.
func (p *planner) setMain(name, value string) {
	p.change(Change{Name: name, Old: p.main[name], WasSet: p.isSet(name), New: value})
	p.main[name], p.explicit[name] = value, true
	p.meant[name] = p.expand(value, nil)
}

// setService plans an -o option in master.cf.
func (p *planner) setService(s *Service, name, value string) {
	p.change(Change{Service: s.Key, Name: name, Old: s.overrides[name], WasSet: s.has(name), New: value})
	s.overrides[name] = value
}

// dropNames plans the removal of our parameters that are no longer used. Postfix would
// warn about each.
func (p *planner) dropNames() {
	var all strings.Builder
	for name := range p.explicit {
		all.WriteString(p.main[name] + "\n")
	}
	for _, s := range p.services {
		for _, value := range s.overrides {
			all.WriteString(value + "\n")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.explicit)) {
		if strings.HasPrefix(name, ourNames) && !regexp.MustCompile(`\b`+name+`\b`).MatchString(all.String()) {
			p.plan.Changes = append(p.plan.Changes, Change{Name: name, Old: p.main[name], WasSet: true, Unset: true})
		}
	}
}

// ourNames is the prefix of all our parameters in main.cf.
const ourNames = "postern_"

// set plans a value of a parameter for a service; nil is main.cf.
func (p *planner) set(s *Service, name, value string) {
	if condition.MatchString(p.rawAt(s, name)) {
		p.warn("%s has conditions (${…}); setup writes what they amount to now", name)
	}
	if s == nil {
		p.setMain(name, value)
	} else {
		p.setService(s, name, value)
	}
}

// change adds a change to the plan. A later change of the same parameter replaces the
// earlier one.
func (p *planner) change(c Change) {
	if c.WasSet && same(c.Old, c.New) {
		return
	}
	for i := range p.plan.Changes {
		if before := &p.plan.Changes[i]; before.Service == c.Service && before.Name == c.Name {
			before.New = c.New
			return
		}
	}
	p.plan.Changes = append(p.plan.Changes, c)
}

// same reports whether two lists are equal to Postfix.
func same(a, b string) bool { return slices.Equal(postconf.Split(a), postconf.Split(b)) }

// places returns where services have a parameter: each service that overrides it, and
// main.cf (nil) if one of them does not.
func (p *planner) places(services []*Service, name string) []*Service {
	var all []*Service
	for _, s := range services {
		if !s.has(name) {
			s = nil
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// rawAt returns a parameter as written at a place.
func (p *planner) rawAt(s *Service, name string) string {
	if s == nil {
		return p.main[name]
	}
	return p.raw(s, name)
}

// meantAt returns a parameter at a place with its $names expanded.
func (p *planner) meantAt(s *Service, name string) string {
	if s == nil {
		return p.value(name)
	}
	return p.get(s, name)
}

// path returns the path of a system file below the root folder.
func (o *Options) path(name string) string { return filepath.Join(o.Root, name) }

// exists reports whether a system file exists.
func (o *Options) exists(name string) bool {
	_, err := os.Stat(o.path(name))
	return err == nil
}
