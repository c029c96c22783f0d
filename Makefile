# staticcheck runs by itself, so that it does not enter go.mod.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0

# The files that decide what a pipe does: their tests are to reach nearly every statement.
CORE = codec.go pipe.go session.go chunk.go

# zpipes stands on libzmq, a C library.
export CGO_ENABLED = 1

# Nothing made here needs git's version in it, and asking fails in a checkout of another user's.
export GOFLAGS += -buildvcs=false

.PHONY: help deps build vet test demo cover clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

deps: ## check for Go, a C compiler, pkg-config and libzmq, install what is missing
	@sh scripts/deps.sh

build: deps ## compile everything
	go build ./...

vet: deps ## go vet and staticcheck
	go vet ./...
	go run $(STATICCHECK) ./...

test: vet ## vet, then all tests with the race detector
	go test -race -timeout 15m ./...

demo: deps ## send Go's source tree through a pipe between two processes
	@go run ./examples/demo "$$(go env GOROOT)/src"

cover: deps ## how much of the core the tests reach, file by file
	go test -coverprofile=cover.out .
	@awk -F '[: ]' -v core='$(CORE)' ' \
		{ sub(".*/", "", $$1); all[$$1] += $$3; if ($$4 > 0) hit[$$1] += $$3 } \
		END { n = split(core, name, " "); for (i = 1; i <= n; i++) { f = name[i]; \
			if (all[f]) printf "  %-12s %5.1f %%\n", f, 100 * hit[f] / all[f]; \
			else printf "  %-12s not there\n", f } }' cover.out

clean: ## remove what make made
	rm -rf bin cover.out
