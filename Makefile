# make            the programs, into bin/
# make demo       the manual page's example on two hosts that it makes itself
# make test       the whole suite (root: it makes network namespaces)
# make ci         all that a change must pass
# make install    PREFIX=/usr/local, DESTDIR=

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
SBIN     = $(DESTDIR)$(PREFIX)/sbin

PROGRAMS = ifconfig-ipsec setkey ipsecd

.PHONY: all build demo test ci fmt vet staticcheck test-race install clean deps deps-ci
.DEFAULT_GOAL := build

all: build

build:
	$(GO) build -trimpath -o bin/ $(PROGRAMS:%=./cmd/%)
	ln -sf ifconfig-ipsec bin/ifconfig

demo: build
	$(GO) run ./e2e/demo -bin bin

test: deps
	$(GO) test ./...

ci: deps-ci fmt vet staticcheck test-race

fmt:
	@out=$$(gofmt -l .) && if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...

staticcheck:
	$(GO) tool staticcheck ./...

test-race:
	IFIPSEC_NO_SKIP=1 $(GO) test -race -timeout 20m ./...

install: build
	install -d $(SBIN)
	install -m 0755 $(PROGRAMS:%=bin/%) $(SBIN)

clean:
	rm -rf bin

# What the tests need beyond Go, make and root, from Debian's packages.
deps:
	@.ci/deps nsenter:util-linux

deps-ci:
	@.ci/deps nsenter:util-linux gcc:gcc gcc:libc6-dev
