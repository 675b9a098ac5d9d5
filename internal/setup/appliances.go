// Appliances: programs that rewrite Postfix's configuration at an upgrade or a start.

package setup

import "strings"

func (o *Options) isMailInABox() bool { return o.exists("/etc/mailinabox.conf") }

func (o *Options) isIRedMail() bool { return o.exists("/etc/iredmail-release") }

func (o *Options) isDockerMailserver() bool {
	return o.exists("/etc/dms-settings") || o.exists("/etc/supervisor/conf.d/dms-services.conf") || o.exists("/usr/local/bin/helpers/dms-cleanup.sh") || o.exists("/tmp/docker-mailserver")
}

// appliances plans what is different on an appliance.
func (p *planner) appliances() {
	p.besideRspamd()
	p.besideAmavis()
	p.besideIRedAPD()
	p.besideOthers()
	switch {
	case p.isMailInABox():
		p.plan.Appliance = "Mail-in-a-Box"
		p.warn("Mail-in-a-Box writes main.cf and master.cf anew at each upgrade, which takes Postern's lines out: run postern setup --apply again after one (deploy/examples/mailinabox)")
		p.warn("do not stop postgrey, OpenDKIM and OpenDMARC: the control panel restarts and watches them; no one asks them any more")
		p.plan.Next = nil
		p.mailInABoxMilter()
		p.next("SpamAssassin's rules on SPF and DMARC: see deploy/examples/mailinabox, step 4")
	case p.isIRedMail():
		p.plan.Appliance = "iRedMail"
		p.warn("iRedMail's own upgrade steps may ask you to edit or to replace main.cf and master.cf: run postern setup again after one")
	case p.isDockerMailserver():
		p.plan.Appliance = "docker-mailserver"
		p.warn("docker-mailserver writes main.cf and master.cf anew at each start of the container: put the lines below into its own files instead of --apply")
		p.plan.Manual, p.plan.Next = p.dockerLines(), nil
		p.next("in mailserver.env, for what Postern does: ENABLE_POSTGREY=0, ENABLE_POLICYD_SPF=0, ENABLE_OPENDKIM=0, ENABLE_OPENDMARC=0")
	}
}

// mailInABoxMilter plans the milter for Mail-in-a-Box. Mail from the box itself is
// signed, as OpenDKIM did. This is safe, because the box's spam filter does not hand
// mail back to Postfix.
func (p *planner) mailInABoxMilter() {
	if !p.attaches(Milterd) || p.plan.Shadow || !p.signs() {
		return
	}
	p.milterd.set("listen", p.Verify)
	p.milterd.set("listen-sign", p.Sign)
	p.milterd.drop("listen-verify")
	p.milterd.set("internal-networks", "127.0.0.0/8", "::1")
	p.milterd.set("admin", "unix:/run/postern-milterd/milterd.sock")
	p.bySession = true
	p.plan.MilterdUser = "opendkim"
}

// dockerLines returns the changes as lines for docker-mailserver's own files.
func (p *planner) dockerLines() []string {
	var main, master []string
	for _, c := range p.plan.Changes {
		if c.Service == "" {
			main = append(main, c.Name+" = "+c.New)
		} else {
			master = append(master, c.Service+"/"+c.Name+"="+c.New)
		}
	}
	lines := append([]string{"# postfix-main.cf"}, main...)
	lines = append(lines, "# postfix-master.cf")
	return append(lines, strings.Join(master, "\n"))
}
