# make up      a three-host cluster on this machine with the guestbook on it
# make down    removes it
# make build   bin/lighter
# make test    all tests: unit, root (real kernel), end to end
# make verify  format, vet, lint, fences, generated code, go.mod
# make race    unit tests under the race detector
# make bench   the budget table of the README, measured here
# make clean   what the other targets have made, without Go's caches

SHELL := /bin/bash
.DELETE_ON_ERROR:

# One set of flags everywhere: another one rebuilds 2,700 packages.
export CGO_ENABLED := 0

GOLANGCI_VERSION := v2.15.0
GOLANGCI := bin/golangci-lint-$(GOLANGCI_VERSION)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS = -s -w -X main.version=$(VERSION)

.PHONY: up down build deps test-deps test unit e2e verify lint race bench clean guestbook-base clients

up: deps build guestbook-base
	bin/lighter local up --hosts 3
	KUBECONFIG=$$(bin/lighter local kubeconfig --path) bin/lighter apply -f manifests/guestbook/
	@hack/whats-next.sh

down: build
	bin/lighter local down

build:
	go build -ldflags '$(LDFLAGS)' -o bin/lighter ./cmd/lighter

deps:
	@hack/install-deps.sh

test-deps:
	@hack/install-deps.sh --test

guestbook-base: deps
	@hack/guestbook-base.sh

# BuildKit's and Docker's clients of builds, which tests use.
clients:
	@hack/build-clients.sh

test: test-deps unit e2e

# Root tests are among them: they skip themselves, with a reason, where they
# cannot run. The reasons are listed at the end.
unit:
	@hack/test.sh -timeout 30m $$(go list ./... | grep -v /cmd/lighter/e2e)

# One cluster for all of them; LIGHTER_E2E says that it may be made.
e2e: build guestbook-base clients
	@LIGHTER_E2E=1 hack/test.sh -count=1 -timeout 60m ./cmd/lighter/e2e

verify: lint
	hack/verify.sh

lint: $(GOLANGCI)
	$(GOLANGCI) run ./...

# The pinned linter, built once from the Go module proxy.
$(GOLANGCI):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv bin/golangci-lint $@

race: test-deps
	@hack/race.sh

bench: test-deps build guestbook-base
	go run ./hack/bench

clean:
	rm -rf bin manifests/guestbook/app/busybox
