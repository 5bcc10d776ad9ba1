# Two commands matter: `sudo make demo` and `sudo make test`. Both do the set-up first.
SHELL := /bin/sh
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:/usr/sbin:/sbin:$(PATH)

.PHONY: setup setup-peers demo test lint faults bench redirect test-peers simulate soak compose-test xen clean

setup:
	@sh deploy/setup

demo: setup
	@$(BIN)/tunnelswitch-lab demo --out out/demo

lint: setup
	@$(BIN)/ruff format --check agents lab tests deploy
	@$(BIN)/ruff check agents lab tests deploy
	@$(BIN)/mypy
	@PYTHONPATH=agents:lab $(BIN)/lint-imports

test: lint
	@$(BIN)/pytest

# Every fault of the matrix on real parts, judged by the packets that clients got: about 12 minutes. ONLY=name runs one.
# docs/faults.md.
faults: setup
	@$(BIN)/tunnelswitch-lab faults --out out/faults $(if $(ONLY),--only $(ONLY))

# Ours beside its peers (keepalived, FRR, Pacemaker, Open vSwitch alone), interleaved, and what each does in the cases that
# they do not share: about 30 minutes. RUNS=1 for a look. See docs/bench.md.
RUNS ?= 6
bench: setup-peers
	@$(BIN)/tunnelswitch-lab bench --runs $(RUNS) --out out/bench

# One detection, four ways to bring the clients over: about RUNS x 1.5 minutes. See docs/bench.md.
redirect: setup-peers
	@$(BIN)/tunnelswitch-lab redirect --runs $(RUNS) --out out/redirect

# The programs of the peers, for the bench alone: the other targets do without.
setup-peers:
	@sh deploy/setup-peers

# Each peer and each way of redirection fails over once, on real parts: about two minutes.
test-peers: setup-peers
	@$(BIN)/pytest -m peers tests/bench tests/redirection

# Random faults against the real decisions in virtual time, until an invariant breaks. SEED=n tells one story. docs/simulator.md.
SCHEDULES ?= 100000
FIRST_SEED ?= 0
simulate: setup
	@$(BIN)/tunnelswitch-lab simulate $(if $(SEED),--seed $(SEED),--schedules $(SCHEDULES) --first-seed $(FIRST_SEED))

# Twice MINUTES under load in which nothing may fail over, then a lost host each. See docs/false-alarms.md.
MINUTES ?= 10
soak: setup
	@$(BIN)/tunnelswitch-lab soak --load busy --minutes $(MINUTES) --out out/soak/busy
	@$(BIN)/tunnelswitch-lab soak --load loss --minutes $(MINUTES) --out out/soak/loss

# A guest under Xen Remus on two emulated machines, one of which is killed: under 6 minutes. See docs/xen.md.
xen: setup
	@$(BIN)/tunnelswitch-lab xen --out out/xen

# Builds and runs docker-compose.yml on an engine of its own; installs what that needs. See docs/containers.md.
compose-test:
	@sh deploy/compose-test

clean:
	@if [ -x $(BIN)/tunnelswitch-lab ]; then $(BIN)/tunnelswitch-lab down --all; fi
	@rm -rf out .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
