# The verbs of this repository; "make help" lists them.

GO       ?= go
PREFIX   ?= /usr/local
FUZZTIME ?= 20s

INSTALLED  = $(DESTDIR)$(PREFIX)
MANUALS    = README.md CHANGELOG.md $(wildcard policy/*.md greylist/*.md dnsbl/*.md milter/*.md deploy/*.md)
# Folders of deploy/ that are read where Postern is installed. The others build or are the installation.
DOCUMENTS  = $(filter-out %.md %.json deploy/systemd deploy/package deploy/docker,$(wildcard deploy/*))
UNITS      = $(notdir $(wildcard deploy/systemd/*.service deploy/systemd/*.socket deploy/systemd/*.timer))
BASHSCRIPT = $(INSTALLED)/share/bash-completion/completions/postern
FISHSCRIPT = $(INSTALLED)/share/fish/vendor_completions.d/postern.fish
ZSHSCRIPT  = $(INSTALLED)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)/_postern

.DEFAULT_GOAL := all
.PHONY: all build openssl man try unit test check fuzz bench bench-peers faults soak install uninstall deb rpm release go setup help
.NOTPARALLEL:

all: build man ## the programs and their manual pages

build: go ## build the programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

openssl: all ## the same, with RSA signatures by OpenSSL 3
	@.ci/setup openssl
	@GO=$(GO) .ci/openssl bin/postern-milterd

# Programs for another machine (GOARCH=arm64 make) do not run here: what they would say
# is asked of the same programs for this one.
man: build ## write manual pages and completions below bin/share, from what the programs say
	rm -rf bin/share bin/host
	[ "$$($(GO) env GOOS GOARCH)" = "$$($(GO) env GOHOSTOS GOHOSTARCH)" ] || \
		CGO_ENABLED=0 GOOS= GOARCH= $(GO) build -trimpath -o bin/host/ ./cmd/...
	programs=bin; [ ! -d bin/host ] || programs=bin/host; \
		CGO_ENABLED=0 GOOS= GOARCH= $(GO) run -trimpath ./internal/manual/man $$programs bin/share/man && \
		mkdir bin/share/completions && \
		for shell in bash zsh fish; do $$programs/postern completion $$shell >bin/share/completions/$$shell || exit; done
	rm -rf bin/host

try: go ## see Postern guard a private Postfix: mails, replies and why
	@.ci/setup try
	@$(GO) run ./internal/e2e/try

# The helpers that start servers skip their test in short mode.
unit: go ## the quick loop, without root and servers; make test runs everything
	@$(GO) test -short $$($(GO) list ./... | grep -v /internal/e2e)
	@echo "make unit: the tests that need a server were left out; make test runs them"

# SQLite and its libc are C that was translated to Go: some fifty times slower under the
# race detector, which finds no race of ours there. internal/postfixtest has the same.
RACE = -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc/...=-race=false

# The tests of internal/e2e take longest. They are first, and more of them run at once than
# there are processors, because they mostly wait for servers and for guests that boot.
PARALLEL = $$(( 2 * $$(nproc) ))
test: go setup check ## everything, under the race detector, against a real Postfix
	@[ "$$(id -u)" -eq 0 ] || echo "make test: not root: the tests against a real Postfix are skipped"
	@notes=$$(mktemp) && code=0; \
		CGO_ENABLED=1 POSTERN_TEST_NOTES=$$notes $(GO) test -tags openssl $(RACE) -count=1 -parallel $(PARALLEL) -timeout 40m ./internal/e2e ./... || code=$$?; \
		sort -u $$notes | sed 's/^/make test: /'; rm -f $$notes; exit $$code

check: go ## formatting, vet, staticcheck, import directions, known vulnerabilities
	@.ci/setup openssl
	@unformatted=$$(gofmt -l .) || exit; \
		[ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=.ci/tools/go.mod staticcheck ./...
	CGO_ENABLED=1 $(GO) vet -tags openssl ./internal/rsaengine
	CGO_ENABLED=1 $(GO) tool -modfile=.ci/tools/go.mod staticcheck -tags openssl ./internal/rsaengine
	$(GO) test -count=1 ./internal/arch
	@.ci/vuln

fuzz: go ## every fuzz target, FUZZTIME (20s) each
	@FUZZTIME=$(FUZZTIME) .ci/fuzz

bench: go setup ## measure what Postern costs
	$(GO) run ./internal/e2e/bench

ROUNDS ?= 3
SHORT  ?=

bench-peers: go ## Postern beside other programs, in ROUNDS (3) rounds; SHORT=1 for a tenth of the load
	@.ci/setup peers || echo "make bench-peers: not every program could be installed; its row says so" >&2
	$(GO) run ./internal/e2e/bench peers --rounds $(ROUNDS) $(if $(SHORT),--short)

faults: go setup ## what happens when something fails: each promise of deploy/FAULTS.md, tried
	@$(GO) run ./internal/e2e/faults

SOAK ?= 30m

# With CI set, a test that cannot run fails.
soak: go setup ## both daemons under load and random faults for SOAK (30m)
	@CI=1 $(GO) test -count=1 -v -timeout 0 ./internal/e2e/soak -for $(SOAK) -seed $$(date +%s)

install: ## install what make has built, with units, manual pages and examples, below DESTDIR and PREFIX
	@[ -d bin/share/man ] || { echo 'make install: nothing is built; run "make" first' >&2; exit 1; }
	install -d $(INSTALLED)/bin $(INSTALLED)/sbin $(INSTALLED)/share/doc/postern $(INSTALLED)/share/man/man1 $(INSTALLED)/share/man/man8
	install -d $(INSTALLED)/lib/systemd/system $(INSTALLED)/lib/sysusers.d $(INSTALLED)/lib/tmpfiles.d
	install -m 755 bin/postern $(INSTALLED)/bin/
	install -m 755 bin/postern-policyd bin/postern-milterd $(INSTALLED)/sbin/
	for unit in $(UNITS); do \
		sed 's|/usr/sbin/postern|$(PREFIX)/sbin/postern|; s|/usr/bin/postern|$(PREFIX)/bin/postern|' "deploy/systemd/$$unit" \
			>$(INSTALLED)/lib/systemd/system/"$$unit" || exit; done
	install -m 644 deploy/systemd/postern.sysusers $(INSTALLED)/lib/sysusers.d/postern.conf
	install -m 644 deploy/systemd/postern.tmpfiles $(INSTALLED)/lib/tmpfiles.d/postern.conf
	install -m 644 bin/share/man/man1/* $(INSTALLED)/share/man/man1/
	install -m 644 bin/share/man/man8/* $(INSTALLED)/share/man/man8/
	install -D -m 644 bin/share/completions/bash $(BASHSCRIPT)
	install -D -m 644 bin/share/completions/fish $(FISHSCRIPT)
	install -D -m 644 bin/share/completions/zsh $(ZSHSCRIPT)
	cp -R $(DOCUMENTS) $(INSTALLED)/share/doc/postern/
	for page in $(MANUALS); do install -D -m 644 $$page $(INSTALLED)/share/doc/postern/$$page || exit; done
	for folder in $(notdir $(DOCUMENTS)); do ln -sfn ../$$folder $(INSTALLED)/share/doc/postern/deploy/$$folder || exit; done

deb: all ## dist/postern_VERSION_ARCH.deb for amd64, with OpenSSL, and arm64
	@.ci/setup openssl
	@GO=$(GO) .ci/package/build deb

rpm: all ## the same as RPM
	@GO=$(GO) .ci/package/build rpm

release: go ## packages, archives, checksums and an SBOM in dist/, the same bytes each time
	@.ci/setup openssl
	@GO=$(GO) .ci/package/release

uninstall: ## remove what make install has installed; settings, keys and data stay
	rm -f $(INSTALLED)/bin/postern $(INSTALLED)/sbin/postern-policyd $(INSTALLED)/sbin/postern-milterd
	rm -f $(addprefix $(INSTALLED)/lib/systemd/system/,$(UNITS))
	rm -f $(INSTALLED)/lib/sysusers.d/postern.conf $(INSTALLED)/lib/tmpfiles.d/postern.conf
	rm -f $(BASHSCRIPT) $(FISHSCRIPT) $(ZSHSCRIPT)
	rm -f $(INSTALLED)/share/man/man1/postern.1 $(INSTALLED)/share/man/man8/postern-policyd.8 $(INSTALLED)/share/man/man8/postern-milterd.8
	rm -rf $(INSTALLED)/share/doc/postern

go:
	@GO=$(GO) .ci/go

setup:
	@.ci/setup

help: ## list these verbs
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13
