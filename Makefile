# The commands of this project; see README.md. Each ends with 0 only if what it shows was checked.
.PHONY: demo test lint soak clean

CARGO ?= cargo
BIN := target/debug/keyvault-csi

demo: ## the main job on this machine: no cluster, no Azure
	@e2e/prerequisites demo
	@echo "Building the driver and the demo (some minutes the first time) ..."
	@$(CARGO) build --locked --bin keyvault-csi
	@$(CARGO) build --locked --package keyvault-csi-e2e --bin demo
	@target/debug/demo $(BIN)
