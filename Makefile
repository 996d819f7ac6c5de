# Pelago: everything that is done with the tree, by name. 'make help' lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED ?= 0
GO      ?= go
BIN     := bin/pelago
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT    := $(GO) tool -modfile=.ci/lint/go.mod golangci-lint
FUZZTIME ?= 60s
# Packages that run goroutines against each other; the rest is covered by 'test'.
RACE := ./cluster/... ./dimse/assoc ./dimse/scp ./dimse/scu ./node/... ./replication/... ./query/... ./shard/... ./chaos/world

.PHONY: help build run demo test race lint fuzz interop chaos bench bench-network bench-shards cover generate clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'

build: ## build bin/pelago, static
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN) ./cmd/pelago

run: build ## start one node for real use (data in ./pelago-data)
	exec $(BIN) serve

demo: build ## five sites that store, find and open real images; one is killed and comes back; stays up (DEMO_EXIT=1: end by itself; SITES=1: one node)
	exec $(BIN) demo $(if $(SITES),--sites $(SITES)) $(if $(DEMO_EXIT),--exit)

test: ## every test, fuzz targets on their seeds
	$(GO) test -timeout 20m ./...

# One processor a test program: of two that look at timer channels of one synctest bubble
# at a time, Go 1.26's race detector breaks its own records and dies (golang/go#78156). It
# finds races by what happens before what, not by what happens at once; the price is that
# it sees fewer orders of events.
race: ## the tests of the concurrent packages under the race detector
	CGO_ENABLED=1 $(GO) test -race -cpu 1 -short -timeout 30m $(RACE)

lint: ## vet, gofmt and the pinned linters
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); if [ -n "$$out" ]; then echo "gofmt: $$out"; exit 1; fi
	$(GO) vet ./...
	$(LINT) run --allow-parallel-runners ./...

fuzz: ## every fuzz target for FUZZTIME (60s) each
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

interop: ## only the tests against dcmtk and Orthanc
	$(GO) test -count=1 -run 'Dcmtk|DCMTK|Orthanc' ./...

chaos: ## 1,000 crash points of the archive, 50 kills under load and 40 troubles of five sites, instead of the few of 'test'
	CRASH_POINTS=1000 PELAGO_CRASH_SEEDS=10 $(GO) test -count=1 -timeout 4h -run 'Crash' ./node/staging ./node/archive ./shard/bulk ./shard/held ./replication/... ./node/audit
	E2E_KILLS=50 $(GO) test -count=1 -timeout 4h -v -run 'TestKillUnderLoad' ./chaos/e2e
	E2E_TROUBLES=40 $(GO) test -count=1 -timeout 4h -v -run 'TestANetworkInTrouble' ./chaos/e2e

bench: build ## the figures of docs/benchmarks.md, each beside its peer in one run
	$(GO) run ./chaos/bench -out docs/benchmarks.md

bench-network: build ## the figures of docs/benchmarks-network.md: nodes in a network with delay and narrow links
	$(GO) run ./chaos/bench -network -rounds 3 -out docs/benchmarks-network.md

bench-shards: build ## the figures of docs/benchmarks-shards.md: packs spread over sites, read back, rebuilt
	$(GO) run ./chaos/bench -shards -rounds 3 -out docs/benchmarks-shards.md

cover: ## test coverage by package
	$(GO) test -coverprofile=bin/cover.out ./... && $(GO) tool cover -func=bin/cover.out | tail -1

generate: ## generated tables and protobuf (needs protoc)
	$(GO) generate ./...

clean: ## remove what was built
	rm -rf bin
