package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// containerPackages are what the images of others have, which the guides name and
// which cannot be had here: one Debian replaces Go's, Debian's and Redis's.
const (
	containerPackages = "postfix,sasl2-bin,libsasl2-modules,ssl-cert,ca-certificates,redis-server"
	containerBase     = "docker.io/library/debian:bookworm-slim"
)

var containerNames = []string{"docker.io/library/golang:1.26-bookworm", "docker.io/library/redis:7-bookworm"}

// podman runs containers in namespaces of its own: networks, ports and processes of
// this machine stay as they are, and all of it ends with the test.
type podman struct {
	*machine
	dir string
	env []string
}

// requirePodman skips the test without podman; with CI set it fails.
func requirePodman(t *testing.T) {
	t.Helper()
	postfixtest.Require(t)
	for _, program := range []string{"podman", "podman-compose", "crun", "mmdebstrap"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v: .ci/setup installs it", err)
			}
			t.Skip(err)
		}
	}
}

func startPodman(t *testing.T) *podman {
	t.Helper()
	base := baseImages(t)
	p := &podman{dir: openDir(t)}
	p.configure(t, base)
	p.boot(t)
	return p
}

// configure writes settings that have podman keep everything in its folder. Limits
// are those that a machine without CAP_SYS_RESOURCE can give; so is having no control
// groups, whose devices are guarded by programs that are locked in memory.
func (p *podman) configure(t *testing.T, base string) {
	t.Helper()
	shims, err := filepath.Abs("testdata/container")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, p.dir, "containers.toml", fmt.Sprintf(`[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "%[1]s/tmp"
`, p.dir))
	writeFile(t, p.dir, "storage.toml", fmt.Sprintf(`[storage]
driver = "overlay"
graphroot = "%[1]s/storage"
runroot = "%[1]s/run"
[storage.options]
additionalimagestores = ["%[2]s"]
`, p.dir, base))
	p.env = append(os.Environ(), "CONTAINERS_CONF="+p.dir+"/containers.toml", "CONTAINERS_STORAGE_CONF="+p.dir+"/storage.toml",
		"BUILDAH_FORMAT=docker", "BUILDAH_ISOLATION=chroot", "TMPDIR="+p.dir, "PODMAN="+shims+"/one-network", "PATH="+shims+":"+os.Getenv("PATH"))
}

// boot makes the namespaces.
func (p *podman) boot(t *testing.T) {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "testdata/container/init")
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = w, w
	in, err := cmd.StdinPipe() // its end is the end of the machine
	if err == nil {
		err = cmd.Start()
	}
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("no namespaces: %q, %v", line, err)
	}
	p.machine = &machine{childOf(t, cmd.Process.Pid)}
}

// online lists the namespaces of what may use the network of this machine: apt-get.
const (
	online  = false
	offline = true
)

// run runs a command inside, in a folder, and returns what it printed.
func (p *podman) run(t *testing.T, private bool, folder, command string) (string, error) {
	t.Helper()
	args := []string{"--target=" + strconv.Itoa(p.init), "--mount", "--pid", "--wdns=" + folder}
	if private {
		args = append(args, "--net")
	}
	var said bytes.Buffer
	cmd := exec.Command("nsenter", append(args, "sh", "-c", command)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, &said, &said
	err := cmd.Run()
	return said.String(), err
}

// must runs a command that has to succeed.
func (p *podman) must(t *testing.T, command string) string {
	t.Helper()
	said, err := p.run(t, offline, p.dir, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, said)
	}
	return said
}

// baseImages returns a store with the base layers. It is kept in the user's cache and
// made from the mirror that apt is set to on this machine.
func baseImages(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "postern-test")
	store := filepath.Join(cache, fmt.Sprintf("images-%x", sha256.Sum256([]byte(containerPackages)))[:24])
	if _, err := os.Stat(store); err == nil {
		return store
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	half, err := os.MkdirTemp(cache, "half-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(half) })
	t.Log("making base layers; they are kept in " + store)
	tree := filepath.Join(half, "tree.tar")
	command(t, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+containerPackages, "--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"bookworm", tree, debianMirror(t))
	engine := []string{"--root", filepath.Join(half, "store"), "--runroot", filepath.Join(half, "run"), "--tmpdir", filepath.Join(half, "tmp"),
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"}
	command(t, "podman", append(engine, "import", "--change", "ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", tree, containerBase)...)
	for _, name := range containerNames {
		command(t, "podman", append(engine, "tag", containerBase, name)...)
	}
	if err := os.Rename(filepath.Join(half, "store"), store); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return store
}

// build makes the images from their own files: ours with the Go and the modules of
// this machine, the other one with Debian's packages.
func (p *podman) build(t *testing.T) {
	t.Helper()
	here := thisMachine(t)
	ours := strings.Join([]string{
		"podman build -f deploy/docker/Dockerfile -t postern", "--ignorefile deploy/docker/Dockerfile.dockerignore", "--build-arg VERSION=1.2.3 --build-arg COMMIT=0123456789ab",
		"-v " + here.goroot + ":/usr/local/go:ro -v " + here.modules + ":/cache/modules:ro -v " + here.cache + ":/cache/build",
		"--env GOMODCACHE=/cache/modules --env GOCACHE=/cache/build --env GOPROXY=off --env GOTOOLCHAIN=local .",
	}, " ")
	if said, err := p.run(t, offline, here.repository, ours); err != nil {
		t.Fatalf("%s: %v\n%s", ours, err, said)
	}
	const postfix = "podman build -t postern-postfix deploy/docker/postfix"
	if said, err := p.run(t, online, here.repository, postfix); err != nil {
		t.Fatalf("%s: %v\n%s", postfix, err, said)
	}
}
