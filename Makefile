# Haven's build. A bare `make` lists the targets; the scripts that they use are in scripts/.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

SOURCES := $(shell find cmd internal -name '*.go' -not -name '*_test.go' 2>/dev/null) \
	$(shell find internal -path '*/testdata' -prune -o -type f -not -name '*.go' -print 2>/dev/null) go.mod go.sum

# Packages in which goroutines share state: make check runs their tests under the race detector.
RACE := ./internal/agent/... ./internal/api/... ./internal/app/... ./internal/dcs/... ./internal/demo/... \
	./internal/drill/... ./internal/journal/... ./internal/obs/... ./internal/postgres/... ./internal/proxy/...
GOTEST := go test -count=1 -timeout 15m
GOLANGCI := .cache/bin/golangci-lint
FUZZTIME ?= 30s

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
test: ## run all tests, the end-to-end ones last and alone
	@scripts/deps.sh test
	$(GOTEST) $$(go list ./... | grep -v /e2e)
	$(GOTEST) ./e2e/...

.PHONY: race
race: ## run the tests of the concurrent packages under the race detector
	@scripts/deps.sh test
	$(GOTEST) -race $(RACE)

.PHONY: lint
lint: ## format, vet, golangci-lint, shellcheck
	@scripts/deps.sh lint
	@unformatted=$$(gofmt -l *.go cmd internal e2e); \
		if [ -n "$$unformatted" ]; then echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(GOLANGCI) run ./...
	shellcheck scripts/*.sh .ci/run

.PHONY: arch
arch: ## check layers, purity, sizes, documents (arch_test.go)
	go test -count=1 .

.PHONY: check
check: ## what CI runs: lint, arch, race, test
	@scripts/deps.sh test
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory arch
	$(MAKE) --no-print-directory race
	$(MAKE) --no-print-directory test

.PHONY: test-versions
test-versions: ## run the suite on other majors of PostgreSQL, fetched into .cache/pg (MAJORS='13 14 16 17 18')
	@scripts/deps.sh test
	scripts/test-versions.sh $(MAJORS)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@grep -rlE '^func Fuzz' --include='*_test.go' internal | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+).*/\1/p' "$$file"); do \
			echo "$$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
		done; \
	done

.PHONY: docs
docs: ## write the generated pages of docs/reference again
	go test -count=1 -run TestReferencePages . -args -update

.PHONY: clean
clean: ## remove what was built (.cache, with fetched servers and tools, stays)
	rm -rf bin dist coverage*
