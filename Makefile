# make            the programs, into bin/
# make demo       the manual page's example on two hosts that it makes itself
# make test       the whole suite (root: it makes network namespaces)
# make interop    against other implementations, and prints what was tried
# make fuzz       what strangers can send, each parser and decoder for FUZZTIME=5s
# make bench      how fast it is beside wireguard-go, into docs/performance.*
# make soak       whatever can happen, for MINUTES=10, under traffic
# make ci         all that a change must pass
# make install    PREFIX=/usr/local, DESTDIR=

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
SBIN     = $(DESTDIR)$(PREFIX)/sbin
SHARE    = $(DESTDIR)$(PREFIX)/share
MAN      = $(SHARE)/man
UNITS    = $(DESTDIR)$(PREFIX)/lib/systemd/system

PROGRAMS = ifconfig-ipsec setkey ipsecd

.PHONY: all build demo test bench interop soak fuzz ci fmt tidy vet staticcheck test-race install clean deps deps-interop deps-ci
.DEFAULT_GOAL := build

all: build

build:
	$(GO) build -trimpath -o bin/ $(PROGRAMS:%=./cmd/%)
	ln -sf ifconfig-ipsec bin/ifconfig

demo: build
	$(GO) run ./e2e/demo -bin bin

test: deps
	$(GO) test ./...

# The tables of what was tried are printed also when something did not work.
interop: deps-interop
	@rm -rf bin/tables && mkdir -p bin/tables
	@IFIPSEC_NO_SKIP=1 IFIPSEC_TABLES=$(CURDIR)/bin/tables $(GO) test -count=1 -parallel 4 ./e2e/interop/... || failed=1; \
		cat bin/tables/*; exit $${failed:-0}

# BENCH=-quick shows that it works; go run ./e2e/bench -h has the other options.
BENCH = -docs docs

bench: deps
	$(GO) run ./e2e/bench $(BENCH)

MINUTES = 10

soak: deps
	$(GO) test -count=1 -v -timeout $(shell expr $(MINUTES) + 10)m ./e2e/soak -args -minutes $(MINUTES)

# Everything that a stranger can send, each for a while.
FUZZTIME = 5s

fuzz:
	@for at in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$at); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$at) || exit 1; \
		done; \
	done

ci: deps-ci fmt tidy vet staticcheck test-race interop fuzz

fmt:
	@out=$$(gofmt -l .) && if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

# go.mod and go.sum say just what is used.
tidy:
	$(GO) mod tidy -diff

vet:
	$(GO) vet ./...

staticcheck:
	$(GO) tool staticcheck ./...

# All but what interop runs.
test-race:
	IFIPSEC_NO_SKIP=1 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v '^ifipsec/e2e/interop')

install: build
	install -d $(SBIN)
	install -m 0755 $(PROGRAMS:%=bin/%) $(SBIN)
	install -d $(MAN)/man4 $(MAN)/man8
	install -m 0644 docs/*.4 $(MAN)/man4
	install -m 0644 docs/*.8 $(MAN)/man8
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions
	install -m 0644 docs/completion/bash/* $(SHARE)/bash-completion/completions
	install -m 0644 docs/completion/zsh/* $(SHARE)/zsh/site-functions
	install -d $(UNITS)
	for unit in cmd/ipsecd/systemd/*; do \
		sed 's|/usr/local/sbin|$(PREFIX)/sbin|' $$unit >$(UNITS)/$${unit##*/} && \
		chmod 0644 $(UNITS)/$${unit##*/} || exit 1; \
	done

clean:
	rm -rf bin

# What the tests need beyond Go, make and root, from Debian's packages.
DEPS = unshare:util-linux setpriv:util-linux nsenter:util-linux systemd-analyze:systemd mandoc:mandoc iperf3:iperf3 ip:iproute2

# The other implementations, and what configures them.
DEPS_INTEROP = linux.uml:user-mode-linux ip:iproute2 ethtool:ethtool nft:nftables tshark:tshark \
	bird:bird2 scapy:python3-scapy scapy:python3-cryptography

deps:
	@.ci/deps $(DEPS)

deps-interop:
	@.ci/deps $(DEPS_INTEROP)

deps-ci:
	@.ci/deps $(DEPS) $(DEPS_INTEROP) gcc:gcc gcc:libc6-dev
