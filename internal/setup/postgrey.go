package setup

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// postgreyFiles are where Debian, Fedora and Arch have the flags with which they start postgrey.
var postgreyFiles = []string{"/etc/default/postgrey", "/etc/sysconfig/postgrey", "/etc/conf.d/postgrey"}

// postgreyDefaults returns the first of these files that is there.
func (o *Options) postgreyDefaults() string {
	if i := slices.IndexFunc(postgreyFiles, o.exists); i > 0 {
		return postgreyFiles[i]
	}
	return postgreyFiles[0]
}

// postgreyOptions returns the flags with which the system starts postgrey.
func (o *Options) postgreyOptions(text string) options {
	all := make(options)
	var words []string
	for _, name := range []string{"POSTGREY_TYPE", "POSTGREY_OPTS", "POSTGREY_DELAY"} {
		words = append(words, strings.Fields(shellVariable(text, name))...)
	}
	for i := 0; i < len(words); i++ {
		name, ok := strings.CutPrefix(words[i], "--")
		if !ok {
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if !given && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
			i++
			value = words[i]
		}
		if before, repeated := all[name]; repeated {
			value = before + " " + value
		}
		all[name] = value
	}
	return all
}

func isPostgrey(o *Options, socket string) bool {
	if socketIs("inet:127.0.0.1:10023", "postgrey")(o, socket) {
		return true
	}
	own := o.postgreyOptions(o.text(o.postgreyDefaults()))
	return sameSocket("inet:"+own.get("inet"), socket) || sameSocket("unix:"+own.get("unix"), socket)
}

// postgrey's defaults, for what its flags do not set.
const (
	postgreyDelay  = 300 // seconds
	postgreyAge    = 35  // days
	postgreyWindow = 2   // days
	postgreyAWL    = 5
)

// carryPostgrey carries over postgrey's times, allow lists and memory.
func carryPostgrey(p *planner) {
	if p.Greylister != ours {
		return
	}
	own := p.postgreyOptions(p.read(p.postgreyDefaults()))
	number := func(name string, otherwise int) int {
		n, err := strconv.Atoi(own.get(name))
		if err == nil && n >= 0 {
			return n
		}
		if own.get(name) != "" {
			p.cannot("postgrey: --%s=%s", name, own.get(name))
		}
		return otherwise
	}
	s := &p.policyd
	s.set("greylist-delay", strconv.Itoa(max(number("delay", postgreyDelay), 1))+"s")
	window := own.get("retry-window")
	switch {
	case strings.HasSuffix(window, "h"):
		s.set("greylist-retry-window", window)
	default:
		s.set("greylist-retry-window", strconv.Itoa(max(number("retry-window", postgreyWindow), 1))+"d")
	}
	age := strconv.Itoa(max(number("max-age", postgreyAge), 1)) + "d"
	s.set("greylist-pass-ttl", age)
	s.set("greylist-awl-ttl", age)
	s.set("greylist-awl-after", strconv.Itoa(number("auto-whitelist-clients", postgreyAWL)))
	if _, ok := own["lookup-by-host"]; ok {
		s.set("greylist-ipv4-prefix", "32")
		s.set("greylist-ipv6-prefix", "128")
	} else if own.get("ipv4cidr") != "" || own.get("ipv6cidr") != "" {
		s.set("greylist-ipv4-prefix", strconv.Itoa(number("ipv4cidr", 24)))
		s.set("greylist-ipv6-prefix", strconv.Itoa(number("ipv6cidr", 64)))
	}
	p.carryPostgreyLists(own)
	for _, name := range []string{"greylist-text", "greylist-action", "x-greylist-header", "hostname", "user", "group", "exim", "syslog-facility"} {
		if value := own.get(name); value != "" {
			p.cannot("postgrey: --%s=%s", name, value)
		}
	}
	if text := shellVariable(p.read(p.postgreyDefaults()), "POSTGREY_TEXT"); text != "" {
		p.cannot("postgrey: POSTGREY_TEXT %q; greylist-url names a page in the reply", text)
	}
	_, hashed := own["privacy"]
	if hashed {
		p.cannot("postgrey: --privacy: its memory has hashed keys and cannot be imported, so known senders wait once more")
	}
	folder := own.get("dbdir")
	if folder == "" {
		folder = "/var/lib/postgrey"
		if upstream := "/var/spool/postfix/postgrey"; !p.exists(folder+"/postgrey.db") && p.exists(upstream+"/postgrey.db") {
			folder = upstream
		}
	}
	if !hashed && p.exists(filepath.Join(folder, "postgrey.db")) {
		p.plan.Imports = append(p.plan.Imports, Import{Program: "postgrey", Folder: p.path(folder), Lacks: p.lacksForImport()})
	}
	p.retire("postgrey")
}

func (p *planner) lacksForImport() string {
	if p.CanImport == nil {
		return ""
	}
	if err := p.CanImport(); err != nil {
		return err.Error()
	}
	return ""
}

// carryPostgreyLists carries over postgrey's allow lists. The files stay where they
// are.
func (p *planner) carryPostgreyLists(own options) {
	clients, recipients := strings.Fields(own.get("whitelist-clients")), strings.Fields(own.get("whitelist-recipients"))
	if len(clients) == 0 {
		clients = postgreyLists("clients")
	}
	if len(recipients) == 0 {
		recipients = postgreyLists("recipients")
	}
	for _, list := range []struct {
		setting string
		files   []string
		always  []string
	}{{"greylist-allow-clients", clients, []string{"default"}}, {"greylist-allow-recipients", recipients, nil}} {
		var there []string
		for _, file := range list.files {
			if p.exists(file) {
				there = append(there, p.path(file))
			}
		}
		if len(there) > 0 {
			p.policyd.set(list.setting, append(list.always, there...)...)
			p.paths = append(p.paths, there...)
		}
	}
}

// postgreyLists returns the files with an allow list of postgrey that Debian and upstream have.
func postgreyLists(of string) (all []string) {
	for _, name := range []string{"/etc/postgrey/whitelist_", "/etc/postfix/postgrey_whitelist_"} {
		all = append(all, name+of, name+of+".local")
	}
	return all
}

// text returns the text of a file of the system, or "" if it cannot be read.
func (o *Options) text(name string) string {
	return (&planner{Options: *o, plan: new(Plan)}).read(name)
}
