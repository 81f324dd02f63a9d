# Perigee's targets. `make demo` is the only command a new machine needs; `make test` never installs anything.
# Names and closing lines are fixed by docs/DESIGN.md section 14.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := build

# One target directory for everything: the tests start the binaries that `build` left in its release folder.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
RELEASE := $(CARGO_TARGET_DIR)/release

# One feature set for build, lint and test, so that nothing is compiled twice. The system's OpenSSL where its headers are,
# else the one built from source, which needs nothing but the C compiler and perl of build-essential.
FEATURES := $(shell pkg-config --atleast-version=1.1.1 openssl 2>/dev/null \
	|| echo --features satellite/vendored-openssl,tests/vendored-openssl)
CARGO_FLAGS := --release --locked --workspace $(FEATURES)
# The engines that vite wants (master/web/package.json); without one the master serves a page that says `make web`.
NODE_OK := $(shell node -e 'const [a, b] = process.versions.node.split(".").map(Number); \
	process.exit((a == 20 && b >= 19) || (a == 22 && b >= 12) || a >= 24 ? 0 : 1)' 2>/dev/null && echo yes)
WEB := master/web
WEB_SOURCES := $(shell test -f $(WEB)/package.json && find $(WEB) \( -name node_modules -o -name dist \) -prune -o -type f -print)

.PHONY: deps build web lint test proof demo demo-smoke bench sim sim-defects

# Debian packages the tests want: real daemons, real stores, and the tools that watch them. Root, idempotent.
deps:
	@tests/deps.sh

build: $(if $(and $(NODE_OK),$(WEB_SOURCES)),$(WEB)/dist/index.html)
	@$(if $(NODE_OK),:,echo "make build: no Node 20.19, 22.12 or 24, so the web front-end is left out (install one, then: make web)" >&2)
	cargo build $(CARGO_FLAGS) --bins

web:
	@test -n "$(NODE_OK)" || { echo "make web: needs Node 20.19, 22.12, 24 or newer, and npm" >&2; exit 1; }
	@test -f $(WEB)/package.json || { echo "make web: $(WEB)/package.json is missing" >&2; exit 1; }
	@$(MAKE) --no-print-directory $(WEB)/dist/index.html

$(WEB)/dist/index.html: $(WEB_SOURCES)
	cd $(WEB) && npm ci --no-audit --no-fund >&2
	cd $(WEB) && npm run build >&2
	@touch $@

lint:
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check bans licenses sources; \
	 else echo "SKIPPED: cargo-deny is missing (cargo install cargo-deny): licences, bans and sources unchecked" >&2; fi
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run tests/*.sh; \
	 elif test "$${CI:-}" = true; then echo "shellcheck is missing (make deps)" >&2; exit 1; \
	 else echo "SKIPPED: shellcheck is missing (make deps): shell scripts unchecked" >&2; fi

# The page's types and tests first: seconds, and their failure is not lost among the others. Cargo's count closes the output.
test: build
	@if test -n "$(NODE_OK)"; then cd $(WEB) && { npm run check && npm test; } >&2; \
	 elif test "$${CI:-}" = true; then echo "make test: Node 20.19, 22.12 or 24 is missing: the page cannot be tested" >&2; exit 1; \
	 else echo "SKIPPED: no Node 20.19, 22.12 or 24: types and tests of the page" >&2; fi
	@tests/run.sh $(CARGO_FLAGS)

# The long proofs, resumable: BUDGET=minutes stops before a claim that would begin later (exit 3: claims are left). Rewrites docs/proof.md.
proof: build
	@CARGO_FLAGS="$(CARGO_FLAGS)" tests/proof.sh

demo: build
	@$(RELEASE)/perigee-demo

demo-smoke: build
	@$(RELEASE)/perigee-demo --smoke

# Simulated worlds: SEEDS=n, SEED_FROM=s, or SEED=s for one of them with all that is known of it.
sim: build
	@$(RELEASE)/perigee-sim

# Every planted defect, and how many worlds the check of its invariant takes to notice: SEEDS=n at most, from SEED_FROM=n on.
sim-defects: build
	@SEEDS=$${SEEDS:-2000} $(RELEASE)/perigee-sim --defects

bench: build
	@$(RELEASE)/perigee-bench
