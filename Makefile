# The commands of this project; README.md says what they are for. Each ends with 0 only if what it shows was checked.
.PHONY: help demo test lint soak manifests

CARGO ?= cargo

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

demo: ## the main job on this machine: no cluster and no Azure needed
	@e2e/prerequisites demo
	@echo "Building the driver and the demo (some minutes the first time) ..."
	@$(CARGO) build --locked --workspace --bin keyvault-csi --bin demo
	@target/debug/demo target/debug/keyvault-csi

test: ## all tests but those on a real cluster
	@e2e/prerequisites test
	@echo "Building the release binary, whose memory is measured (some minutes the first time) ..."
	@$(CARGO) build --locked --release --bin keyvault-csi
	@echo "Building and running the tests ..."
	@assets="$${KUBEBUILDER_ASSETS:-$$(e2e/cluster/cluster assets)}" && \
		KUBEBUILDER_ASSETS="$$assets" \
		KEYVAULT_CSI_RELEASE=$(CURDIR)/target/release/keyvault-csi KEYVAULT_CSI_PYTHON=$$(e2e/python) \
		$(CARGO) test --locked --workspace

lint: ## formatting and clippy, warnings denied
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

soak: ## what takes long: many more random cases
	@e2e/prerequisites demo
	@KEYVAULT_CSI_FUZZ_CASES=200000 PROPTEST_CASES=20000 $(CARGO) test --locked --lib

manifests: ## render manifests/deploy from the chart, and copy the CRDs into it
	@e2e/prerequisites test
	@$$(e2e/python) e2e/chart/render.py
