# Two commands matter: `sudo make demo` and `sudo make test`. Both do the set-up first.
SHELL := /bin/sh
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:/usr/sbin:/sbin:$(PATH)

.PHONY: setup demo test lint compose-test clean

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

# Builds and runs docker-compose.yml on an engine of its own; installs what that needs. See docs/containers.md.
compose-test:
	@sh deploy/compose-test

clean:
	@if [ -x $(BIN)/tunnelswitch-lab ]; then $(BIN)/tunnelswitch-lab down --all; fi
	@rm -rf out .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
