package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const dmsHost = "mail.example.com"

// What docker-mailserver has in main.cf and master.cf, as far as Postern's lines touch
// it.
const (
	dmsMain = `compatibility_level = 3.6
smtputf8_enable = no
recipient_delimiter = +
smtpd_helo_required = yes
smtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks, reject_unauth_destination, reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, reject_unknown_recipient_domain
smtpd_sender_restrictions = $dms_smtpd_sender_restrictions
dms_smtpd_sender_restrictions = permit_sasl_authenticated, permit_mynetworks
mua_sender_restrictions = $dms_smtpd_sender_restrictions
milter_protocol = 6
milter_default_action = accept
smtpd_milters =
non_smtpd_milters =
`
	dmsMaster = `smtpd pass - - n - - smtpd
submission inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_sender_restrictions=$mua_sender_restrictions
  -o milter_macro_daemon_name=ORIGINATING
submissions inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_sender_restrictions=$mua_sender_restrictions
  -o milter_macro_daemon_name=ORIGINATING
`
)

// TestDockerMailserver is a site with the files of docker-mailserver, attached as its
// start-up does it: postfix-master.cf line by line, then postfix-main.cf behind
// main.cf. The image of docker-mailserver itself cannot be had here.
func TestDockerMailserver(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	e := &example{name: "docker-mailserver", dir: openDir(t)}
	e.addresses(t)
	for _, name := range []string{"policyd", "milterd", "0.0.0.0"} {
		for _, port := range []string{"10045", "10046", "10047"} {
			e.replace = append(e.replace, "inet:"+name+":"+port, e.place("inet:127.0.0.1:"+port))
		}
	}
	e.replace = append(e.replace, "/tmp/docker-mailserver/", e.dir+"/", "/etc/opendkim/", e.dir+"/opendkim/", "/var/lib/postern/", e.dir+"/", "shadow = [\"all\"]\n", "")
	writeFile(t, e.dir, "postfix-virtual.cf", "# made by setup alias add\ninfo@home.example "+Bob+"\nteam@home.example "+Alice+","+Bob+"\n")
	e.dns = resolvertest.New(t, awayZone+bankZone+Zones+e.dmsKey(t))
	e.startPolicyd(t, "postern/policyd.toml", "--greylist-delay", "1s")
	e.startMilterd(t, "postern/milterd.toml", "--mark-key-file", filepath.Join(e.dir, "mark.key"))
	main, master := e.dmsStart(t)
	e.postfix = postfixtest.New(t, postfixtest.Config{
		Hostname: dmsHost, Users: map[string]string{Alice: password, Bob: password}, Main: main, Submission: master["submission"],
		More: []postfixtest.Service{{Name: "submissions", Login: true, Options: master["submissions"]}},
	})
	for _, service := range []string{postfixtest.Submission, "submissions"} {
		e.expect(t, service, As(Alice, Alice, Stranger), 250, record.OwnerSelf)
		e.expect(t, service, As(Bob, Info, Stranger), 250, record.OwnerOwnedByAlias)
		e.expect(t, service, As(Alice, Info, Stranger), 553, record.OwnerNotOwned)
		e.expect(t, service, As(Alice, Bob, Stranger), 553, record.OwnerUnlisted)
		e.signedOnce(t, e.delivered(t, Stranger), 1)
		e.delivered(t, Stranger)
	}
	// What "setup alias add" writes counts without a restart.
	writeFile(t, e.dir, "postfix-virtual.cf", "info@home.example "+Bob+"\nteam@home.example "+Alice+","+Bob+"\nnew@home.example "+Alice+"\n")
	eventually(t, func() bool {
		return e.send(t, postfixtest.Submission, As(Alice, "new@home.example", "reader@away.example")).Code == 250
	})
	m := fromOutside(Stranger, Dora)
	e.expect(t, postfixtest.MX, m, 450, record.GreylistNew)
	eventually(t, func() bool { return e.send(t, postfixtest.MX, m).Code == 250 })
	e.judgedOnce(t, e.delivered(t, Dora), dmsHost, "spf=pass")
}

// dmsKey makes key and tables as "setup config dkim" does, and returns the record.
func (e *example) dmsKey(t *testing.T) (zone string) {
	t.Helper()
	dir := filepath.Join(e.dir, "opendkim", "keys", homeDomain)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "opendkim-genkey", "--bits=2048", "--subdomains", "--domain="+homeDomain, "--selector=mail", "--directory="+dir).CombinedOutput(); err != nil {
		t.Fatalf("opendkim-genkey: %v\n%s", err, out)
	}
	entry := "mail._domainkey." + homeDomain
	writeFile(t, filepath.Join(e.dir, "opendkim"), "KeyTable", entry+" "+e.place(homeDomain+":mail:/etc/opendkim/keys/"+homeDomain+"/mail.private")+"\n")
	writeFile(t, filepath.Join(e.dir, "opendkim"), "SigningTable", "*@"+homeDomain+" "+entry+"\n")
	return regexp.MustCompile(`^mail\._domainkey`).ReplaceAllString(readFile(t, filepath.Join(dir, "mail.txt")), entry+".")
}

// dmsStart does what docker-mailserver does with the two files at its start.
func (e *example) dmsStart(t *testing.T) (main []string, master map[string][]string) {
	t.Helper()
	conf := t.TempDir()
	writeFile(t, conf, "master.cf", dmsMaster)
	writeFile(t, conf, "main.cf", dmsMain)
	for line := range strings.Lines(readDeploy(t, "examples/"+e.name+"/config/postfix-master.cf")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			runPostconf(t, conf, "postconf -P '"+line+"'")
		}
	}
	writeFile(t, conf, "main.cf", dmsMain+readDeploy(t, "examples/"+e.name+"/config/postfix-main.cf"))
	settle(t, conf)
	writeFile(t, conf, "main.cf", postconf(t, conf, "-n"))
	return e.readBack(t, conf)
}
