# Developer targets; `make help` lists them. Needs GNU make 3.81 (macOS) or later.

SHELL := /bin/bash
.DEFAULT_GOAL := help

CARGO ?= cargo
KUBECTL ?= kubectl
CRD := crds/tokensource.dev_tokensources.yaml

# The npm packages of test servers; reinstalled when their lock file changes.
NPM_STAMPS := $(patsubst %/package-lock.json,%/node_modules/.installed,$(wildcard tests/*/package-lock.json))

##@ General

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*##"; print "Usage: make <target>" } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-zA-Z0-9_-]+:.*##/ { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: doctor
doctor: ## Print what this machine lacks for `make demo` and `make test`, with remedies.
	@hack/doctor.sh

.PHONY: demo
demo: ## Demonstrate the operator on this machine.
	@hack/demo.sh

##@ Development

.PHONY: build
build: ## Build the operator.
	$(CARGO) build

.PHONY: fmt
fmt: ## Format the code.
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check: ## Fail if code is not formatted.
	$(CARGO) fmt --all --check

.PHONY: lint
lint: ## Run clippy; warnings are errors.
	$(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: generate
generate: ## Generate the CustomResourceDefinition, the reference pages, the chart's README and deploy/.
	@hack/generate.sh

.PHONY: check-generated
check-generated: ## Fail if generated files are out of date.
	@hack/generate.sh --check

.PHONY: check-locks
check-locks: ## Fail if the lock file of a crate outside of the workspace is out of date.
	@set -e; for crate in benches/micro fuzz; do \
		$(CARGO) metadata --locked --format-version 1 --manifest-path $$crate/Cargo.toml >/dev/null || { \
			echo "$$crate/Cargo.lock is out of date: cargo update --workspace --manifest-path $$crate/Cargo.toml" >&2; exit 1; }; \
	done

##@ Tests

.PHONY: test-fast
test-fast: $(NPM_STAMPS) ## Run tests without a control plane: unit tests, the layout of the source, and OAuth against a real authorization server.
	$(CARGO) test --workspace --lib --bins --test layout --test token_endpoint --test mint

.PHONY: test
test: ## Run all tests, against a real control plane (the first run builds it: minutes); KUBERNETES=1.31: of that version, PART="main_job rights": the integration tests whose names contain one of these.
	@hack/test.sh $(if $(PART),--test integration -- $(PART))

.PHONY: test-long
test-long: ## Run the long tests, at most two hours on two cores; PART=simulation and the like: those whose names contain it.
	@hack/test.sh --tests -- --ignored --nocapture --test-threads=1 --skip pictures_of_the_documentation $(PART)

.PHONY: e2e
e2e: ## Measure how fresh the token is that a pod reads, on a real node (Linux, root, no Docker), or in the cluster of your KUBECONFIG.
	@hack/e2e.sh

.PHONY: e2e-long
e2e-long: ## The same with tokens of 1,800 s too, and 10,000 TokenSources: about 80 minutes.
	@hack/e2e.sh --long

.PHONY: quickstart
quickstart: ## Run the commands of docs/quickstart.md on a real node in place of kind (Linux, root, no Docker).
	@hack/quickstart.sh

.PHONY: node
node: ## Start a real Kubernetes node on this machine (Linux, root, no Docker) and a shell in it; its end stops all.
	@hack/e2e.sh --node

.PHONY: node-check
node-check: ## Check that a node that is killed leaves nothing on this machine (Linux, root).
	@hack/node-check.sh

# The coverage flags of cargo-fuzz that stable compilers accept.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing

.PHONY: fuzz
fuzz: ## Fuzz the parser of responses and the templates, for FUZZ_SECONDS=60 each (the first run builds it: minutes).
	@set -e; for target in read_answer render_template; do \
		mkdir -p fuzz/corpus/$$target fuzz/artifacts; \
		RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
			$(CARGO) run --quiet --release --locked --manifest-path fuzz/Cargo.toml --bin $$target \
			--target $$($(CARGO) -vV | sed -n 's/^host: //p') -- \
			-max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=4096 -artifact_prefix=fuzz/artifacts/ fuzz/corpus/$$target; \
	done

.PHONY: bench
bench: $(NPM_STAMPS) ## Measure memory, CPU and refreshes a second of SOURCES=1000 TokenSources, or one load (SCENARIO=overload).
	$(CARGO) bench --bench scale

.PHONY: flamegraph
flamegraph: $(NPM_STAMPS) ## Draw where the CPU time goes in such a load, SCENARIO=full, with perf (Linux).
	@hack/flamegraph.sh

.PHONY: bench-heap
bench-heap: $(NPM_STAMPS) ## Measure the heap of SOURCES=1000 TokenSources and the allocations of a refresh.
	$(CARGO) bench --bench heap

.PHONY: bench-micro
bench-micro: ## Count the instructions and allocations of what a refresh computes, with Valgrind; BASE=main: beside that commit.
	@hack/bench-micro.sh $(BASE)

.PHONY: control-plane
control-plane: ## Start a control plane in the foreground; Ctrl-C stops it.
	@set -o pipefail; hack/control-plane.sh run | while read -r _ kubeconfig; do \
		echo "The control plane is up. In another terminal, for it and its kubectl:"; \
		echo "  export KUBECONFIG=$$kubeconfig PATH=$$(dirname "$$kubeconfig")/bin:\$$PATH"; \
		echo "Ctrl-C here stops it and removes its files. It runs no pods."; \
	done

.PHONY: npm-packages
npm-packages: $(NPM_STAMPS) ## Install the npm packages of the servers of the tests.

tests/%/node_modules/.installed: tests/%/package-lock.json
	cd $(<D) && npm ci --no-audit --no-fund
	@touch $@

.PHONY: helm-lint
helm-lint: ## Lint the chart with Helm (the first run builds Helm: minutes).
	@$$(hack/tools.sh helm)/helm lint --strict charts/tokensource-operator

##@ Cluster

.PHONY: install
install: ## Install the CustomResourceDefinition into the cluster of your KUBECONFIG.
	$(KUBECTL) apply --server-side -f crds/

.PHONY: uninstall
uninstall: ## Remove the CustomResourceDefinition, and with it every TokenSource, from the cluster of your KUBECONFIG.
	$(KUBECTL) delete --ignore-not-found -f crds/

.PHONY: deploy
deploy: ## Install the operator, of image IMG=REGISTRY/NAME:TAG, into the cluster of your KUBECONFIG.
	@[ -n "$(IMG)" ] || { echo "the image is missing: make deploy IMG=REGISTRY/NAME:TAG" >&2; exit 1; }
	sed 's#^\( *image:\) .*#\1 $(IMG)#' deploy/install.yaml | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove the operator from the cluster of your KUBECONFIG, and the namespace tokensource-system with all in it; other TokenSources and targets stay.
	$(KUBECTL) delete --ignore-not-found -f deploy/install.yaml -l 'app.kubernetes.io/component!=crd'

.PHONY: run
run: ## Run the operator from here, without leader election, against the cluster of your KUBECONFIG (ARGS="--namespace payments").
	TOKENSOURCE_LEADER_ELECT=$${TOKENSOURCE_LEADER_ELECT:-false} \
		TOKENSOURCE_ADMIN_ADDRESS=$${TOKENSOURCE_ADMIN_ADDRESS:-off} $(CARGO) run -- run $(ARGS)

##@ Manual

.PHONY: docs
docs: ## Build the manual, a site with search, into target/docs, and check its links (the first run builds mdBook: minutes).
	@hack/docs.sh

.PHONY: pictures
pictures: $(NPM_STAMPS) ## Draw the pictures in docs/pictures, of what a real control plane and Prometheus (in the PATH) show: six minutes.
	$(CARGO) test --test integration -- --ignored --test-threads=1 pictures_of_the_documentation

##@ Releases

.PHONY: olm-check
olm-check: ## Validate the bundle for the Operator Lifecycle Manager (the first run builds operator-verify: minutes).
	"$$(hack/tools.sh operator-verify)/operator-verify" manifests deploy/olm

.PHONY: plugin
plugin: ## Build and pack kubectl tokensource for this platform, into target/plugin.
	$(CARGO) build --release --locked
	hack/plugin.py archive target/release/tokensource-operator target/plugin

.PHONY: cross-check
cross-check: ## Check that the commands compile for each platform of a release whose standard library rustup has installed (needs zig).
	@hack/cross-check.sh

.PHONY: lint-scripts
lint-scripts: ## Run shellcheck over the scripts, and actionlint over the workflows.
	@hack/lint-scripts.sh

.PHONY: deny
deny: ## Check licences, bans and sources of dependencies (the first run builds cargo-deny: minutes).
	"$$(hack/cargo-tools.sh cargo-deny)/cargo-deny" check licenses bans sources

.PHONY: advisories
advisories: ## Check dependencies for known vulnerabilities; fetches the database.
	"$$(hack/cargo-tools.sh cargo-deny)/cargo-deny" check advisories

.PHONY: sbom
sbom: ## Write the bill of materials, target/sbom.cdx.json (the first run builds cargo-cyclonedx: minutes).
	hack/sbom.sh target/sbom.cdx.json

IMAGE := target/image.tar

.PHONY: image
image: ## Build the image of this machine's architecture without Docker, target/image.tar (with Docker: docker build .).
	hack/image.sh archive $(IMAGE)

.PHONY: image-check
image-check: ## Run the image without a container runtime, as root (CLUSTER=KUBECONFIG: also against that cluster).
	hack/image-check.py $(IMAGE) $(CLUSTER)

##@ Cleaning

.PHONY: clean
clean: ## Remove build output (tools are cached elsewhere, see hack/lib/go-tools.sh).
	$(CARGO) clean
	rm -rf tests/*/node_modules fuzz/target
