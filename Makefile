# These run by themselves, so that they do not enter go.mod.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Those whose tests take long come first, so that none of them is left to run alone.
MODULES = ./... ./torture/... ./cmd/zpipes/... ./bench/... ./cluster/... ./scripts/snippets/...

# What follows can be set as make DURATION=1m torture, or in the environment.

# How long make torture takes, and more flags for it.
DURATION ?= 10m
TORTURE ?=

# What make fuzz fuzzes, a regular expression, and how long each.
FUZZ ?= .
FUZZTIME ?= 10s

# What make release-check rehearses. Not from the environment, where anybody may have a VERSION.
VERSION = v0.999.0

# ZeroMQ is libzmq, a C library.
export CGO_ENABLED = 1

# Nothing made here needs git's version in it, and asking fails in a checkout of another user's.
export GOFLAGS += -buildvcs=false

.PHONY: help deps build core nocgo vet lint vulncheck test fuzz torture demo demo-machines cover bench bench-quick bench-scale release-check clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' Makefile | awk -F '\t' '{ printf "  make %-13s %s\n", $$1, $$2 }'

deps: ## check for Go, a C compiler, pkg-config and libzmq, install what is missing
	@sh scripts/deps.sh

build: deps ## compile everything
	go build $(MODULES)

core: export CGO_ENABLED = 0
core: ## test what needs no ZeroMQ, without cgo; and vet it for other systems
	go test -tags core .
	go test -short ./internal/...
	GOOS=darwin go vet -tags core . ./internal/...
	GOOS=windows go vet -tags core . ./internal/...
	GOOS=linux GOARCH=386 go vet -tags core . ./internal/...
	@# Not every kernel runs programs of 32 bits.
	@! GOOS=linux GOARCH=386 go test -tags core -run '^$$' . >/dev/null 2>&1 || GOOS=linux GOARCH=386 go test -tags core .

nocgo: export CGO_ENABLED = 0
nocgo: ## test what there is without cgo: all ways but ZeroMQ's; and vet it for other systems
	go test .
	go vet . && GOOS=darwin go vet . && GOOS=windows go vet .
	go build -o /dev/null ./cmd/zpipes

vet: deps ## go vet and staticcheck
	go vet $(MODULES)
	go run $(STATICCHECK) $(MODULES)

lint: ## gofmt, and go mod tidy of each module
	@unformatted=$$(gofmt -s -l .); [ -z "$$unformatted" ] || { echo "lint: run gofmt -s -w on" $$unformatted >&2; exit 1; }
	@sh scripts/tidy.sh

vulncheck: deps ## look for known vulnerabilities in what we use (asks vuln.go.dev)
	go run $(GOVULNCHECK) $(MODULES)

test: core nocgo vet ## core, nocgo and vet, then all tests with the race detector
	go test -race -timeout 20m $(MODULES)
	go test -run '^TestMemory' .

fuzz: deps ## fuzz each target that FUZZ (all) matches for FUZZTIME (10s)
	@found=; for package in . ./cmd/zpipes; do \
		targets=$$(go test -list '$(FUZZ)' $$package) || exit; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			found=yes; echo "$$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit; \
		done; \
	done; [ "$$found" ] || { echo 'fuzz: FUZZ=$(FUZZ) matches nothing' >&2; exit 1; }

torture: deps ## break the library on purpose, for DURATION (10m), and print what came of it
	@cd torture && go run . -duration $(DURATION) $(TORTURE)

demo: deps ## send Go's source tree through a pipe between two processes
	@go build -o bin/zpipes ./cmd/zpipes
	@sh scripts/demo.sh bin/zpipes "$$(go env GOROOT)/src"

demo-machines: deps ## the same between hosts made for it, through a cut of the wire; needs root
	@go build -o bin/zpipes ./cmd/zpipes
	@cd torture && go run ./netrig/demo ../bin/zpipes "$$(go env GOROOT)/src"

cover: deps ## how much of the core the tests reach, file by file
	go test -coverprofile=cover.out .
	@awk -F '[: ]' -v core="$$(CGO_ENABLED=0 go list -tags core -f '{{join .GoFiles " "}}' .)" ' \
		{ sub(".*/", "", $$1); all[$$1] += $$3; if ($$4 > 0) hit[$$1] += $$3 } \
		END { n = split(core, name, " "); for (i = 1; i <= n; i++) { f = name[i]; \
			if (all[f]) printf "  %-25s %5.1f %%\n", f, 100 * hit[f] / all[f] } }' cover.out

bench: deps ## measure zpipes beside its peers (15 minutes), and write docs/BENCHMARKS.md
	cd bench && go run . -docs ../docs
	@$(MAKE) --no-print-directory bench-scale

bench-quick: deps ## test the benchmarks, and take a short look
	cd bench && go test . && go run . -quick && go run . -quick scale && go run . -quick memory && go run . -quick durable

bench-scale: deps ## measure many pipes, much data and durable queues, and write docs/BENCHMARKS.md
	cd bench && go run . -docs ../docs scale && go run . -docs ../docs memory && go run . -docs ../docs durable

release-check: deps ## rehearse a release of what is committed, up to the user who installs it
	@sh scripts/release-check.sh $(VERSION)

clean: ## remove what make made
	rm -rf bin cover.out
