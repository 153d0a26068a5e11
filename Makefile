# `make try` shows the whole road on a fresh machine; `make test` is what CI runs.
.PHONY: try try-clean test test-full test-gpu lint bench fuzz build setup test-machine clean

CARGO ?= cargo
VM_DIR := $(if $(BEDPLATE_VM_DIR),$(BEDPLATE_VM_DIR),$(CURDIR)/.cache/vm)
IMAGES := $(CURDIR)/.cache/images
SCRIPTS := .ci/run fuzz/run benches/common.sh benches/images benches/packages tests/setup/packages.sh tests/setup/flake tests/run tests/vm/machine tests/vm/registry tests/vm/try tests/vm/images/build \
  tests/vm/base/customize tests/vm/base/grub tests/vm/base/init tests/vm/faults.sh
export BEDPLATE_VM_DIR := $(VM_DIR)

# A fresh Debian 13 under QEMU is provisioned, checked and serves a deployment.
try: setup
	@tests/vm/try

# Everything that `make try` and the tests left: machines, base disk, registry, images.
try-clean:
	@tests/vm/machine clean
	@tests/vm/registry clean
	rm -rf $(IMAGES) $(CURDIR)/.cache/host $(CURDIR)/.cache/store $(CURDIR)/.cache/try.bundle

test: setup test-machine
	@tests/setup/flake
	@CARGO="$(CARGO)" tests/run

# The long stories as well: a hundred kills and more.
test-full: setup test-machine
	BEDPLATE_FULL=1 $(CARGO) test --locked --release --lib --bins
	BEDPLATE_FULL=1 $(CARGO) test --locked --release --test it --test vm -- --include-ignored

# On a machine with an NVIDIA GPU and its driver; fails where there is none.
test-gpu:
	$(CARGO) test --locked --test gpu -- --ignored --nocapture

lint:
	$(CARGO) fmt --check
	rustfmt --check --edition 2024 benches/delay-proxy.rs tests/vm/images/engine.rs tests/vm/images/agent.rs tests/vm/images/exporter.rs
	shellcheck -S warning $(SCRIPTS)
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: setup test-machine
	benches/run

# Every reader of what others wrote, ten minutes each.
fuzz:
	fuzz/run 600

build:
	$(CARGO) build --locked --release

# Packages from the distribution's archive; only what is missing.
setup:
	@tests/setup/packages.sh
	@command -v $(CARGO) >/dev/null || { echo 'make: no cargo here' >&2; \
	  echo 'hint: install Rust 1.95 or later with rustup, as https://rustup.rs says' >&2; exit 1; }

# What the end-to-end tests start from: made once, kept.
test-machine:
	@tests/vm/images/build $(IMAGES)
	@tests/vm/machine build
	@tests/vm/machine build grub

clean: try-clean
	$(CARGO) clean
