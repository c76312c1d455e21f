# The commands of this project; CONTRIBUTING.md describes them. Each exits with 0 only if all of its
# checks hold.
.PHONY: help demo check test release budgets image e2e bench lint soak manifests

CARGO ?= cargo
CARGO_TARGET_DIR ?= $(CURDIR)/target
RELEASE := $(CARGO_TARGET_DIR)/release/keyvault-csi
IMAGE := $(CARGO_TARGET_DIR)/image.tar
# The version of Kubernetes for tests: newest or oldest, which e2e/cluster/build builds.
KUBERNETES ?= newest
ifeq ($(filter newest oldest,$(KUBERNETES)),)
$(error KUBERNETES is newest (the default) or oldest, not '$(KUBERNETES)')
endif
export KUBERNETES
# One way to build: static, so that an empty image can run it, with packed relocations
# (docs/decisions.md#d67).
release = $(CARGO) rustc --locked --release --bin keyvault-csi -- -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs

help: ## list the commands
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' Makefile

demo: ## the driver on this machine, without a cluster and without Azure
	@e2e/prerequisites demo
	@echo "Building the driver and the demo (some minutes the first time) ..."
	@$(CARGO) build --locked --workspace --bin keyvault-csi --bin demo
	@target/debug/demo target/debug/keyvault-csi

# The integration tests need a kube-apiserver with etcd, a Python with clients, and programs of other
# projects.
fixtures = KUBEBUILDER_ASSETS="$${KUBEBUILDER_ASSETS:-$$(e2e/cluster/cluster assets)}" KEYVAULT_CSI_PYTHON=$$(e2e/python) KEYVAULT_CSI_TOOLS=$$(e2e/tools)

check: ## the quick loop: formatting, clippy, unit tests
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets --quiet -- --deny warnings
	@$(CARGO) test --locked --workspace --lib --quiet -- --test-threads 8

test: ## all tests except those on a real cluster; TEST=rotation:: selects by name
	@e2e/prerequisites test
	@echo "Building and running the tests ..."
	@$(fixtures) $(CARGO) test --locked --workspace -- $(TEST)

release: ## the release binary, as in the image
	@e2e/prerequisites demo
	@$(release)

budgets: release ## size and idle memory of the release binary
	@e2e/prerequisites test
	@$(fixtures) KEYVAULT_CSI_RELEASE=$(RELEASE) \
		$(CARGO) test --locked --workspace --test it -- --ignored budgets:: --test-threads 1

image: release ## build the OCI image target/image.tar, without a daemon and without pulling
	@e2e/prerequisites image
	@e2e/image $(RELEASE) $(IMAGE)

e2e: ## image and chart on a real Kubernetes, which it starts; KUBECONFIG for another cluster
	@e2e/prerequisites image
	@e2e/prerequisites test
	@# The cluster is built in parallel: linking the image's program uses one CPU only.
	@{ [ -n "$${KUBECONFIG:-}" ] || e2e/cluster/cluster build > /dev/null; } & cluster=$$!; \
		$(MAKE) --no-print-directory image || { kill $$cluster; exit 1; }; \
		CARGO="$(CARGO)" KEYVAULT_CSI_IMAGE=$(IMAGE) e2e/run

bench: image ## benchmark, for an idle machine: writes target/bench.json and docs/performance.svg
	@e2e/prerequisites test
	@echo "Building the benchmark (some minutes the first time) ..."
	@$(CARGO) build --locked --profile tools --package keyvault-csi-bench --package keyvault-csi-e2e --bin bench --bin load
	@$(fixtures) $(CARGO_TARGET_DIR)/tools/bench --binary $(RELEASE) --image $(IMAGE) --json target/bench.json --chart docs/performance.svg

lint: ## formatting, clippy, dependencies, documentation, shell scripts, YAML; warnings denied
	@e2e/prerequisites test
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	@$(CARGO) clippy --locked --workspace --test cluster -- --deny warnings
	@CARGO="$(CARGO)" e2e/lint/run

soak: ## long runs: random cases, attacks at full size, ten minutes of rotation, the oldest Kubernetes
	@e2e/prerequisites demo
	@KEYVAULT_CSI_FUZZ_CASES=200000 PROPTEST_CASES=20000 $(CARGO) test --locked --package keyvault-csi --package h2-authority --lib
	@$(release)
	@KEYVAULT_CSI_RELEASE=$(RELEASE) $(CARGO) test --locked --test it -- --ignored soak --test-threads 1 --nocapture
	@KEYVAULT_CSI_RELEASE=$(RELEASE) $(CARGO) test --locked --test it -- --ignored key_derivation --nocapture
	@KEYVAULT_CSI_FLOOD_MIB=128 $(CARGO) test --locked --test it -- hostile_frames
	@$(MAKE) --no-print-directory e2e KUBERNETES=oldest

manifests: ## render manifests/deploy from the chart, and copy the CRDs into the chart
	@e2e/prerequisites test
	@KEYVAULT_CSI_TOOLS=$$(e2e/tools helm4) $$(e2e/python) e2e/chart/render.py
