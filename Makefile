# The verbs of this repository; "make help" lists them.

GO       ?= go
PREFIX   ?= /usr/local
FUZZTIME ?= 20s

.DEFAULT_GOAL := build
.PHONY: build try test check fuzz bench install setup help
.NOTPARALLEL:

build: ## build the programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

try: ## see Postern guard a private Postfix: mails, replies and why
	@.ci/setup try
	@$(GO) run ./internal/e2e/try

test: setup check ## everything, under the race detector, against a real Postfix
	@[ "$$(id -u)" -eq 0 ] || echo "make test: not root: the tests against a real Postfix are skipped"
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 20m ./...

check: ## formatting, vet, staticcheck, import directions, known vulnerabilities
	@unformatted=$$(gofmt -l .) || exit; \
		[ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=.ci/tools/go.mod staticcheck ./...
	$(GO) test -count=1 ./internal/arch
	@.ci/vuln

fuzz: ## every fuzz target, FUZZTIME (20s) each
	@FUZZTIME=$(FUZZTIME) .ci/fuzz

bench: setup ## measure what Postern costs
	$(GO) run ./internal/e2e/bench

install: build ## install programs, units and examples below DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin
	for program in bin/*; do case "$$program" in \
		*-policyd|*-milterd) install -m 755 "$$program" $(DESTDIR)$(PREFIX)/sbin/;; \
		*) install -m 755 "$$program" $(DESTDIR)$(PREFIX)/bin/;; esac; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in deploy/systemd/*.service deploy/systemd/*.socket; do \
		sed 's|/usr/sbin/postern|$(PREFIX)/sbin/postern|' "$$unit" \
			>$(DESTDIR)$(PREFIX)/lib/systemd/system/"$${unit##*/}"; done
	install -d $(DESTDIR)$(PREFIX)/share/doc/postern
	cp -R deploy/examples deploy/postfix $(DESTDIR)$(PREFIX)/share/doc/postern/

setup:
	@.ci/setup

help: ## list these verbs
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10
