# Haven's build. A bare `make` lists the targets; the scripts that they use are in scripts/.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

SOURCES := $(shell find cmd internal -name '*.go' -not -name '*_test.go' 2>/dev/null) \
	$(shell find internal -path '*/testdata' -prune -o -type f -not -name '*.go' -print 2>/dev/null) go.mod go.sum

# Packages in which goroutines share state: their tests run under the race detector.
RACE := ./internal/agent/... ./internal/api/... ./internal/app/... ./internal/dcs/... ./internal/demo/... \
	./internal/drill ./internal/drill/hosts ./internal/guard/... ./internal/journal/... ./internal/obs/... ./internal/pgwire/... ./internal/postgres/... ./internal/proxy/...
GOTEST := go test -count=1 -timeout 30m
GOLANGCI := .cache/bin/golangci-lint
FUZZTIME ?= 30s
RUNS ?= 10
REPEAT ?= 3
FAULTS ?= 100

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: bin/haven ## build bin/haven

bin/haven: $(SOURCES)
	CGO_ENABLED=0 go build -trimpath -o $@ ./cmd/haven

.PHONY: demo
demo: ## run three members and a proxy on this machine until Ctrl-C (DEMO='--kill-primary' adds flags)
	@scripts/deps.sh demo
	@$(MAKE) --no-print-directory bin/haven
	@exec bin/haven demo $(DEMO)

.PHONY: test
test: ## run all tests, those of the concurrent packages under the race detector, the end-to-end ones last and alone
	@scripts/deps.sh test
	@failed=0; \
	$(MAKE) --no-print-directory race || failed=1; \
	$(GOTEST) $$(go list ./... | grep -v /e2e | grep -vxF "$$(go list $(RACE))") || failed=1; \
	$(GOTEST) -timeout 45m $$(go list ./e2e/... | grep -v /e2e/scenarios) || failed=1; \
	$(GOTEST) -timeout 45m ./e2e/scenarios || failed=1; \
	exit $$failed

.PHONY: race
race: ## run the tests of the concurrent packages alone
	@scripts/deps.sh test
	$(GOTEST) -race $(RACE)

.PHONY: lint
lint: ## format, vet, golangci-lint, shellcheck
	@scripts/deps.sh lint
	@unformatted=$$(gofmt -l *.go cmd internal e2e scripts); \
		if [ -n "$$unformatted" ]; then echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(GOLANGCI) run ./...
	shellcheck scripts/*.sh .ci/run

.PHONY: arch
arch: ## check layers, purity, sizes, documents (arch_test.go)
	go test -count=1 .

.PHONY: check
check: ## what CI runs: lint, arch, test
	@scripts/deps.sh test
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory arch
	$(MAKE) --no-print-directory test

.PHONY: test-versions
test-versions: ## run the suite on other majors of PostgreSQL, fetched into .cache/pg (MAJORS='13 14 16 17 18')
	@scripts/deps.sh test
	scripts/test-versions.sh $(MAJORS)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s), and add up the hours in docs/bench (ONLY="FuzzA FuzzB": only those)
	scripts/fuzz.sh $(FUZZTIME) $(ONLY)

.PHONY: mutants
mutants: ## turn each guard of the engine and see that a test or SEEDS (2000) of the simulator notice (ONLY=name: only that)
	go run ./scripts/mutants -seeds $(or $(SEEDS),2000) $(if $(ONLY),-only $(ONLY))

.PHONY: sim
sim: ## run SEEDS (10000) random schedules of the engine's simulator
	go test -count=1 -timeout 2h ./internal/ha/sim -run TestRandomSchedules -v -args -seeds $(or $(SEEDS),10000)

.PHONY: bench
bench: ## measure Haven and Debian's Patroni side by side, REPEAT (3) times each fault, into docs/bench (as root, an hour)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	go run ./e2e/bench -repeat $(REPEAT) -out docs/bench

.PHONY: bench-pool
bench-pool: RUNS := 5
bench-pool: SECONDS := 20
bench-pool: ## measure Haven, PgBouncer, HAProxy and no proxy in front of one server, RUNS (5) times SECONDS (20), into docs/bench (CLIENTS=1,10,100,1000; ADD=1 goes on where it was ended, ADD=mixed also with changed sources or elsewhere; four hours)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	go run ./e2e/benchpool -runs $(RUNS) -seconds $(SECONDS) $(if $(CLIENTS),-clients $(CLIENTS)) $(if $(ADD),-add) $(if $(filter mixed,$(ADD)),-mixed) -out docs/bench

.PHONY: faults
faults: ## make FAULTS (100) random faults on a real cluster, chosen by SEED (1), and judge after each (as root)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	go run ./e2e/bench -random $(FAULTS) -seed $(or $(SEED),1) -out docs/bench

.PHONY: days
days: ## live through each bad day DAYS (20) times on a real cluster, and judge after each, into docs/bench (ADD=1: to what is there; as root, hours)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	go run ./e2e/bench -days $(or $(DAYS),20) -out docs/bench $(if $(ONLY),-only "$(ONLY)") $(if $(ADD),-add)

.PHONY: quiet
quiet: ## disturb a real cluster for RUNS (10) minutes in each of five ways that must not move the leadership, into docs/bench (as root)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	go run ./e2e/bench -quiet $(RUNS) -out docs/bench $(if $(ONLY),-only "$(ONLY)") $(if $(ADD),-add)

.PHONY: idle
idle: ## watch for an hour (FOR=1h) what a cluster uses that nobody uses, into docs/bench (as root)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	go run ./e2e/bench -idle $(or $(FOR),1h) -out docs/bench

.PHONY: mixed
mixed: ## hand leadership over between Patroni, 3 and 4, and Haven, each ordered pair ROUNDS (3) times, into docs/bench (as root)
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	HAVEN_PATRONI4=$$(scripts/patroni4.sh) HAVEN_E2E_BINARY=$(CURDIR)/bin/haven HAVEN_MIXED_ROUNDS=$(or $(ROUNDS),3) HAVEN_MIXED_PAGE=$(CURDIR)/docs/bench/mixed.md \
		go test -count=1 -timeout 1h -v ./e2e -run 'TestMixedCluster'

.PHONY: pooled
pooled: ## run 200 pooled clients through ROUNDS (20) switchovers and as many kills of the primary
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory bin/haven
	HAVEN_E2E_BINARY=$(CURDIR)/bin/haven HAVEN_POOLED_ROUNDS=$(or $(ROUNDS),20) go test -count=1 -timeout 1h -v ./e2e -run 'TestPooledClients'

.PHONY: facts
facts: ## measure RUNS (10) times what the engine takes for granted about PostgreSQL, into docs/bench
	@scripts/deps.sh test
	go test -count=1 -timeout 1h ./e2e/facts -run TestFacts -runs $(RUNS) -out $(CURDIR)/docs/bench

.PHONY: docs
docs: ## write the generated pages of docs/reference again
	go test -count=1 -run TestReferencePages . -args -update

.PHONY: clean
clean: ## remove what was built (.cache, with fetched servers and tools, stays)
	rm -rf bin dist coverage*
