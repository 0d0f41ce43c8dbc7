# One target directory outside the clone: RocksDB's C++ takes 25 minutes of two cores, so it is compiled
# once, for every target here and for every clone on this machine.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/luminate/target
BIN := $(CARGO_TARGET_DIR)/release
DIST := $(CARGO_TARGET_DIR)/dist
# The whole workspace always, so that features unify to the same dependencies in every target.
CARGO_FLAGS := --release --locked --workspace

.PHONY: help run clickhouse build dist image test test-long differential faults kill9 powercut io-faults bitrot hostile neighbour neighbour-slice soak demo clients bench bench-clickhouse \
    cluster cluster-down test-operator measure-operator operator-faults operator-fuzz chart e2e fuzz fuzz-build fuzz-slice api api-built supply-chain sbom lint fmt docs ci tools

help: ## Say what there is
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: build ## Start the worker on port 8080 with its data in ./data
	$(BIN)/luminate-worker $(ARGS)

clickhouse: build ## Start ClickHouse's HTTP interface over its engine on port 8123 (DATA=./clickhouse-data, ARGS=)
	.ci/tools clickhouse
	$(BIN)/clickhouse --path $(or $(DATA),clickhouse-data) $(ARGS)

cluster: ## Start a Kubernetes control plane with simulated nodes (NODES=3); `make cluster-down` ends it
	.ci/tools cluster
	tests/cluster/build control-plane
	tests/cluster/up control-plane $(if $(NODES),--nodes $(NODES))
	@echo 'with that line in your shell: kubectl get nodes; make cluster-down ends it'

cluster-down: ## End what `make cluster` started
	tests/cluster/down

build: tools ## Build the worker and the tools
	cargo build $(CARGO_FLAGS) --bins

# What ships, and what is measured as such: without debug assertions, and each program optimised as a whole. RocksDB's
# library is the one that `build` made, wherever cargo put it.
dist: build
	library=$$(cargo build $(CARGO_FLAGS) --bins --message-format=json 2>/dev/null \
	    | sed -nE '/"build-script-executed".*librocksdb-sys/s/.*"out_dir":"([^"]+)".*/\1/p'); \
	test -e "$$library/librocksdb.a"; \
	ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR=$$library \
	    cargo build --profile dist --locked --workspace $(addprefix --bin ,$(PROGRAMS))

dist image e2e: PROGRAMS := luminate-worker luminate-operator
bench: PROGRAMS := luminate-worker bench
neighbour: PROGRAMS := luminate-worker neighbour
bench-clickhouse: PROGRAMS := luminate-worker clickhouse bench-clickhouse

image: dist ## Build the images luminate-worker and luminate-operator with buildah (OUT=folder of the archives)
	.ci/tools image
	.ci/image $(DIST) $(or $(OUT),$(CARGO_TARGET_DIR)/image)

# The binaries first, with the tests' own features: so the worker that they start is this one, and
# nothing is compiled twice.
test: tools ## Run every test
	.ci/tools clickhouse
	cargo build $(CARGO_FLAGS) --bins --tests
	cargo test $(CARGO_FLAGS)
	$(MAKE) --no-print-directory test-operator

# Scenarios wait more than they work, so there are more of them at once than cores.
test-operator: ## Run the operator on a real control plane (ONLY=healing; SETTLED=600 watches longer that nothing is written)
	.ci/tools cluster
	tests/cluster/build control-plane
	cargo build $(CARGO_FLAGS) --bins --test it_operator
	cargo build $(CARGO_FLAGS) --bin luminate-operator-faulty --features luminate-operator/seeded-bugs
	$(if $(SETTLED),LUMINATE_TEST_SETTLED=$(SETTLED)) RUST_TEST_THREADS=4 \
	    cargo test $(CARGO_FLAGS) --test it_operator -- $(ONLY)

chart: ## Lint and test the chart, its alerts and dashboards; install it on a control plane
	.ci/tools chart
	tests/cluster/build control-plane
	tests/cluster/build chart
	charts/check
	charts/server

e2e: image ## Install it all on a real node, as root, and harm it under load (KUBECONFIG and E2E_REPOSITORY: on that cluster)
	.ci/tools clickhouse
	.ci/tools node
	tests/cluster/build node
	tests/cluster/build chart
	tests/cluster/e2e $(BIN) $(or $(OUT),$(CARGO_TARGET_DIR)/image) $(CARGO_TARGET_DIR)/e2e

measure-operator: ## Measure the operator with many resources (RESOURCES=1000; HOLD=no lets pods be made meanwhile)
	.ci/tools cluster
	tests/cluster/build control-plane
	cargo build $(CARGO_FLAGS) --bins
	$(BIN)/measure-operator $(or $(RESOURCES),1000)

test-long: differential faults kill9 powercut io-faults bitrot fuzz api supply-chain hostile soak operator-faults operator-fuzz ## Run the harnesses for hours

differential: build ## Ask each store and the model the same random questions (QUESTIONS=250000 BACKEND=all THROUGH=both)
	$(BIN)/differential --backend $(or $(BACKEND),all) --through $(or $(THROUGH),both) --questions $(or $(QUESTIONS),250000)

faults: build ## Let ClickHouse and the network fail under workers that write (PLANS=5000)
	$(BIN)/faults --plans $(or $(PLANS),5000) $(if $(SEED),--seed $(SEED))

kill9: build ## Kill a store under eight writers, again and again (CYCLES=10000)
	$(BIN)/crash run --cycles $(or $(CYCLES),10000)

powercut: build ## Cut the power of a store's file system, again and again; as root (CYCLES=2000)
	$(BIN)/crash run --power --cycles $(or $(CYCLES),2000)

io-faults: build ## Let a store's disk fail at each of its calls, in every way; as root (POINTS= SEED= FROM=; CONTROL=1 must fail)
	$(BIN)/io-faults $(if $(POINTS),--points $(POINTS)) $(if $(SEED),--seed $(SEED)) $(if $(FROM),--from $(FROM)) $(if $(CONTROL),--control)

bitrot: build ## Flip bytes of a store's files, again and again (FLIPS=20000)
	$(BIN)/bitrot --flips $(or $(FLIPS),20000) $(if $(SEED),--seed $(SEED))

hostile: build ## Attack a worker's memory in every way (MEMORY=256 in MiB, SECONDS_EACH=30; CONTROL=1 must fail)
	$(BIN)/hostile --memory $(or $(MEMORY),256) --seconds $(or $(SECONDS_EACH),30) $(if $(CONTROL),--unbounded)

neighbour: dist ## Measure how much longer a tenant waits beside a noisy one (SECONDS_EACH=60; CONTROL=1 must fail)
	$(DIST)/neighbour --seconds $(or $(SECONDS_EACH),60) $(if $(CONTROL),--control)

# The same, briefly, with what is built. What else the machine does only adds, so one fair run of eight is enough; the
# control changes how urgent threads are, as root.
neighbour-slice:
	$(BIN)/neighbour --seconds 10 --tries 8
	test $$(id -u) -ne 0 || { code=0; $(BIN)/neighbour --seconds 5 --control || code=$$?; test $$code -eq 1; }

soak: build ## Write, ask and restart at half of what a worker can do, then compare (MINUTES=30; CONTROL=1 must fail)
	$(BIN)/soak --minutes $(or $(MINUTES),30) $(if $(CONTROL),--forgetful)

operator-faults: build ## Let everything between operator and API server fail, and operators (PLANS=1000)
	.ci/tools cluster
	tests/cluster/build control-plane
	$(BIN)/operator-faults --plans $(or $(PLANS),1000) $(if $(SEED),--seed $(SEED))

operator-fuzz: build ## Change every field of a resource and change it back (CHANGES=500)
	.ci/tools cluster
	tests/cluster/build control-plane
	$(BIN)/operator-fuzz --changes $(or $(CHANGES),500) $(if $(SEED),--seed $(SEED))

# Our own crates once more, so that they tell libFuzzer where an input goes; nothing of anybody else is built again.
fuzz-build: tools
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/tests/fuzz/instrument \
	    cargo build $(CARGO_FLAGS) --features luminate-fuzz/libfuzzer --bin fuzz

FUZZ = $(BIN)/fuzz --corpus $(or $(CORPUS),$(CARGO_TARGET_DIR)/fuzz)

fuzz: fuzz-build ## Feed every decoder with what grows of good input (TARGET=json SECONDS_EACH=1800 CORPUS= SEED=1)
	$(FUZZ) $(TARGET) --seconds $(or $(SECONDS_EACH),1800) $(if $(SEED),--seed $(SEED))

# Each target shortly, and the control; what any test run has of it is tests/fuzz/tests/slice.rs.
fuzz-slice: fuzz-build
	$(FUZZ) --seconds 1
	$(FUZZ) --seconds 30 --control json line remote-write

api: build api-built ## Send what the OpenAPI document allows and what it doesn't, and check the answers (REQUESTS=25000 BACKEND=clickhouse SEED=1)

# The same with what is built: a test run has more features than `build`, which would build everything once more.
api-built:
	.ci/tools api
	.ci/tools clickhouse
	tests/api/run $(BIN) $(or $(REQUESTS),25000) $(or $(SEED),$$RANDOM) $(or $(BACKEND),rocksdb clickhouse)

supply-chain: ## Check licences, sources and versions of all that is built in, and that nothing is built unlocked
	.ci/tools supply-chain
	.ci/supply-chain

sbom: ## Write what is built in, as CycloneDX, to OUT=sbom
	.ci/tools sbom
	.ci/supply-chain $(or $(OUT),sbom)

lint: tools ## Check formatting, clippy's lints and the documentation, warnings denied
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets --test it_operator -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --no-deps

fmt: ## Format the code
	cargo fmt --all

docs: tools ## Build the documentation of the code
	cargo doc $(CARGO_FLAGS) --no-deps
	@echo "open $(CARGO_TARGET_DIR)/doc/luminate_worker/index.html"

demo: build ## Compare Luminate's answers with those of a real Prometheus (DURATION=120)
	.ci/tools demo
	$(BIN)/demo $(if $(DURATION),--seconds $(DURATION))

clients: build ## Let real agents write to the worker and count what arrives (ONLY=prometheus-2)
	.ci/tools clients
	tests/cluster/build agents
	tests/clients/run $(BIN)/luminate-worker $(ONLY)

bench: dist ## Measure Luminate beside its peers, 40 minutes (PART=ingest,query RUNS=3 ENGINE=luminate SIZE=quick; DOCS=docs keeps the figures)
	.ci/tools peers
	tests/cluster/build peers
	$(DIST)/bench $(if $(PART),--part $(PART)) $(if $(RUNS),--runs $(RUNS)) $(if $(ENGINE),--engine $(ENGINE)) \
	    $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(SIZE),--size $(SIZE)) $(if $(DOCS),--docs $(DOCS))

bench-clickhouse: dist ## Measure Luminate over ClickHouse, and two other schemas (PART=schema,scale,query; RUNS=5)
	$(DIST)/bench-clickhouse $(if $(PART),--part $(PART)) $(if $(RUNS),--runs $(RUNS))

ci: ## What must pass before a change lands
	.ci/run

tools:
	@.ci/tools build
