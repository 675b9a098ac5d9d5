package e2e

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// containerZone is the internet of the containers: our own address is that of a
// stranger's server.
const containerZone = `away.example. TXT "v=spf1 ip4:192.0.2.1 -all"
mx.away.example. A 192.0.2.1
1.2.0.192.in-addr.arpa. PTR mx.away.example.
` + bankZone

// maxImage is what "small" means, in bytes.
const maxImage = 40 << 20

// TestContainer builds the image, starts what compose.yaml describes with the
// commands of its guide, and sends mail through it.
func TestContainer(t *testing.T) {
	t.Parallel()
	requirePodman(t)
	p := startPodman(t)
	p.build(t)
	t.Run("image", p.testImage)
	t.Cleanup(func() {
		for _, service := range []string{"redis", "policyd", "milterd", "postfix"} {
			if said, err := p.run(t, offline, p.dir, "podman logs --tail 30 postern_"+service+"_1 2>&1"); t.Failed() {
				t.Logf("%s logs, %v:\n%s", service, err, said)
			}
		}
	})
	zone := p.compose(t)
	t.Run("mail", func(t *testing.T) { p.testMail(t, zone) })
	t.Run("health", p.testHealth)
	t.Run("restart", p.testRestart)
}

func (p *podman) testImage(t *testing.T) {
	if got := strings.TrimSpace(p.must(t, "podman image inspect --format '{{.Config.User}}' postern")); got != "10045:10045" {
		t.Errorf("the image runs as %q", got)
	}
	size, err := strconv.Atoi(strings.TrimSpace(p.must(t, "podman image inspect --format '{{.Size}}' postern")))
	if err != nil || size > maxImage {
		t.Errorf("the image has %d bytes, %v", size, err)
	}
	t.Logf("the image has %d bytes", size)
	if got := p.must(t, "podman image inspect --format '{{.HealthCheck.Test}}' postern"); !strings.Contains(got, "postern ready") {
		t.Errorf("the image's health check is %q", got)
	}
	for _, program := range []string{"postern version", "postern-policyd --version", "postern-milterd --version"} {
		name, _, _ := strings.Cut(program, " ")
		if got := strings.TrimSpace(p.must(t, "podman run --rm --no-healthcheck --network none postern "+program)); !regexp.MustCompile(`^` + name + ` \d+\.\d+\.\d+\+0123456789ab$`).MatchString(got) {
			t.Errorf("%s: %q", program, got)
		}
	}
	if said, err := p.run(t, offline, p.dir, "podman run --rm --no-healthcheck --network none postern sh -c true"); err == nil {
		t.Errorf("there is a shell: %s", said)
	}
}

// compose runs the commands of the guide on a copy of its files, and returns the
// records of the keys. All services are on one network, so that which of them is on
// which one, the names there and the published ports are not tested.
func (p *podman) compose(t *testing.T) string {
	t.Helper()
	files := filepath.Join(p.dir, "docker")
	if err := os.CopyFS(files, os.DirFS(deploy+"/docker")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(files, "postern"), "policyd.toml", readDeploy(t, "docker/postern/policyd.toml")+"greylist-delay = \"1s\"\n")
	writeFile(t, filepath.Join(files, "postern"), "milterd.toml", strings.Replace(readDeploy(t, "docker/postern/milterd.toml"), `"40s"`, `"1s"`, 1))
	var dns *resolvertest.Server
	err := p.inNetwork(func() (err error) {
		dns, err = resolvertest.StartAt("127.0.0.1:53", Zones+containerZone)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	resolv := writeFile(t, p.dir, "resolv.conf", "nameserver 127.0.0.1\n")
	p.must(t, "mount --bind "+resolv+" /etc/resolv.conf")

	page, err := manual.Read("../..", "deploy/docker/README.md")
	if err != nil {
		t.Fatal(err)
	}
	at := ""
	for _, step := range guideSteps(page.Text) {
		if step.look != "" {
			at = step.look
		}
		if at != "try" || step.command == "" {
			continue
		}
		said, err := p.run(t, offline, files, step.command)
		for n := 0; err != nil && n < enoughChecks && strings.HasSuffix(step.command, " dkim keys"); n++ {
			// A person types slower than the daemon sees that there is a key.
			said, err = p.run(t, offline, files, step.command)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", step.command, err, said)
		}
		if strings.HasPrefix(step.command, "docker compose up") {
			p.allReady(t)
		}
	}
	if at != "mail" {
		t.Fatal("the guide has no commands between its marks")
	}
	return p.must(t, "podman exec postern_milterd_1 postern dkim dns --dir /var/lib/postern/dkim")
}

// allReady waits until each service is what its health check wants.
func (p *podman) allReady(t *testing.T) {
	t.Helper()
	for _, service := range []string{"redis", "policyd", "milterd", "postfix"} {
		if !p.becomes(t, service, true) {
			t.Fatalf("%s is not healthy:\n%s", service, p.must(t, "podman logs --tail 20 postern_"+service+"_1 2>&1"))
		}
	}
}

// enoughChecks is how often a health check, which takes its time, is repeated.
const enoughChecks = 120

// becomes waits until the health check of a service succeeds, or until it does not.
func (p *podman) becomes(t *testing.T, service string, healthy bool) bool {
	t.Helper()
	for range enoughChecks {
		if _, err := p.run(t, offline, p.dir, "podman healthcheck run postern_"+service+"_1"); (err == nil) == healthy {
			return true
		}
	}
	return false
}

// mail sends a mail to a port of this machine, and returns the reply that decided.
func (p *podman) mail(t *testing.T, port string, m postfixtest.Mail) string {
	t.Helper()
	reply, err := p.transaction(t.Context(), "192.0.2.1:"+port, m)
	if err != nil {
		t.Fatalf("%s to %q: %v", m.From, m.To, err)
	}
	return reply
}

// stranger is a mail from outside.
func stranger(from string) postfixtest.Mail {
	return postfixtest.Mail{Helo: "mx.away.example", From: from, To: []string{"alice@example.org"}}
}

// mailbox returns what was delivered to a user, once it holds text.
func (p *podman) mailbox(t *testing.T, user, text string) string {
	t.Helper()
	for range enoughChecks {
		mails, err := p.run(t, offline, p.dir, "podman exec postern_postfix_1 sh -c 'cat /var/mail/vhosts/"+user+"/new/*'")
		if err == nil && strings.Contains(mails, text) {
			return mails
		}
	}
	t.Fatalf("%s has no mail with %q:\n%s", user, text, p.must(t, "podman logs --tail 30 postern_postfix_1 2>&1"))
	return ""
}

func (p *podman) testMail(t *testing.T, zone string) {
	first := stranger("bob@away.example")
	replied(t, "a stranger", p.mail(t, "25", first), "450 4.2.0 ")
	eventually(t, func() bool { return strings.HasPrefix(p.mail(t, "25", first), "250 ") })
	if got := p.mailbox(t, "alice", "From: <"+first.From+">"); !strings.Contains(got, "Authentication-Results: mail.example.org;") || !strings.Contains(got, "spf=pass") {
		t.Errorf("the stranger's mail:\n%s", got)
	}
	own := postfixtest.Mail{Login: "alice@example.org", Password: "wonderland", TLS: &tls.Config{InsecureSkipVerify: true}, To: []string{"bob@example.org"}}
	for from, want := range map[string]string{"alice@example.org": "250 ", "press@example.org": "250 ", "bob@example.org": "553 5.7.1 "} {
		own.From = from
		replied(t, "alice as "+from, p.mail(t, "587", own), want)
	}
	p.signed(t, zone)
}

// signed asserts that what alice has sent to bob has good signatures.
func (p *podman) signed(t *testing.T, zone string) {
	t.Helper()
	mail := p.mailbox(t, "bob", "DKIM-Signature")
	one := mail[:strings.Index(mail, "Hello.")+len("Hello.")] + "\n"
	dns := resolvertest.New(t, zone)
	if good, all, err := VerifyDKIM(t.Context(), dns, []byte(strings.ReplaceAll(one, "\n", "\r\n"))); err != nil || good != 2 || all != 2 {
		t.Errorf("%d of %d signatures verify, %v\n%s", good, all, err, one)
	}
}

// testHealth takes Redis away: policyd says so, and mail passes.
func (p *podman) testHealth(t *testing.T) {
	p.must(t, "podman stop -t 5 postern_redis_1")
	if !p.becomes(t, "policyd", false) {
		t.Error("policyd is healthy without its store")
	}
	said, err := p.run(t, offline, p.dir, "podman exec postern_policyd_1 postern ready")
	if err == nil || !strings.Contains(said, "not ready") || !strings.Contains(said, "greylist") {
		t.Errorf("postern ready: %v, %s", err, said)
	}
	replied(t, "a stranger without the store", p.mail(t, "25", stranger("carol@away.example")), "250 ")
	p.must(t, "podman start postern_redis_1")
	if !p.becomes(t, "policyd", true) {
		t.Fatal("policyd does not become healthy again")
	}
}

// testRestart asserts that daemons end well as process 1, and that what was known is
// known to the next container.
func (p *podman) testRestart(t *testing.T) {
	p.must(t, "podman stop -t 45 postern_policyd_1 postern_milterd_1")
	for _, daemon := range []string{"policyd", "milterd"} {
		if got := strings.TrimSpace(p.must(t, "podman inspect --format '{{.State.ExitCode}}' postern_"+daemon+"_1")); got != "0" {
			t.Errorf("%s ends with %s:\n%s", daemon, got, p.must(t, "podman logs --tail 20 postern_"+daemon+"_1 2>&1"))
		}
	}
	p.must(t, "podman start postern_policyd_1 postern_milterd_1")
	p.allReady(t)
	replied(t, "a stranger who has waited", p.mail(t, "25", stranger("bob@away.example")), "250 ")
	replied(t, "a new stranger", p.mail(t, "25", stranger("erin@away.example")), "450 4.2.0 ")
}
