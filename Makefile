# `make` lists the tasks. Each prepares what it needs; what is there already costs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
VENV := .venv/bin
# Engines that scripts/install-engines compiled or downloaded come after the user's own.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(CURDIR)/.engines/bin
# What a test prints is seen when it is printed, in a log as on a terminal.
export PYTHONUNBUFFERED := 1

DATA_DIR ?= layover-data
LISTEN ?= 127.0.0.1:5000
# Extra arguments: make test ARGS="-k docker -x", make serve ARGS="--tls-cert ..."
ARGS ?=

.PHONY: help install engines demo serve test lint format bench soak proto docs lock clean dev

help: ## list the tasks
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## install layover into .venv, at locked versions
	@scripts/install-python runtime

engines: ## install BuildKit, buildx, Docker Engine and what else the tests run, where missing
	@scripts/install-engines

demo: ## from here to a saved build, pulled by its ID, tagged and run
	@scripts/demo

serve: install ## start a server (DATA_DIR=layover-data LISTEN=127.0.0.1:5000)
	@scripts/install-engines runc buildkitd buildctl buildx
	@exec $(VENV)/layover serve --data-dir "$(DATA_DIR)" --listen "$(LISTEN)" $(ARGS)

dev:
	@scripts/install-python dev

test: dev ## all that CI runs: installs what is missing, lints, then every test
	@$(MAKE) --no-print-directory lint
	@scripts/install-engines
	@$(if $(ARGS),$(VENV)/python -m pytest $(ARGS),$(VENV)/python scripts/run-tests)

lint: dev ## ruff, mypy, imports, generated code: the quick first part of `make test`
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-logo
	scripts/generate-rpc --check

format: dev ## format the code and fix what ruff can fix
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

bench: dev ## measure Layover beside its peers (ARGS="manifest-by-tag --rounds 3")
	@scripts/install-engines bench
	@$(VENV)/python -m bench $(ARGS)

soak: dev ## load and faults for as long as one likes (ARGS="--events 100000", ARGS=--help)
	@scripts/install-engines
	@$(VENV)/python -m tests.soak $(ARGS)

proto: dev ## generate src/layover/rpc from proto/
	@scripts/generate-rpc

docs: dev ## make docs/cli.md and docs/settings.md from the code
	$(VENV)/python -m layover.cli.reference > docs/cli.md
	$(VENV)/python -m layover.settings_page > docs/settings.md

lock: dev ## resolve requirements/*.txt anew from pyproject.toml
	@uv=$$(command -v $(VENV)/uv || command -v uv) || { echo "error: uv is not installed: pip install uv" >&2; exit 1; }; \
	options="--universal --generate-hashes --no-emit-index-url --no-header --quiet"; \
	"$$uv" pip compile $$options pyproject.toml -o requirements/runtime.txt; \
	"$$uv" pip compile $$options --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt

clean: ## remove .venv, .engines and caches (data folders stay)
	rm -rf .venv .engines .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
