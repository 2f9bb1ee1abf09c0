# Every target prepares what it needs; `make` alone lists the targets.
# Where packages come from is decided by the environment (pip reads its own settings).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# One for each processor, from 2 to 4.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 4 ? 4 : n)))
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
PACKAGE_ARGS ?=

FAST := not slow and not containers and not browser and not chaos and not postgres
# With CI=true a suite fails if it ran fewer tests than this, or skipped one (tests/support/required_tests.py).
FAST_TESTS := 8200
SLOW_TESTS := 1280
CONTAINER_TESTS := 42
# Many tests wait for other processes: one worker more than processors. A file stays on one worker, so that a module's broker
# or server is started once; the order is that of tests/support/scheduling.py.
PARALLEL = -n $(shell expr $(WORKERS) + 1) --dist loadfile --no-loadscope-reorder
# Where this forbids bytecode, each of the thousands of processes that tests start would compile every module again.
unexport PYTHONDONTWRITEBYTECODE
# Runs a command of the environment, and finds its tools before the system's.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help demo test test-all test-containers test-soak check bench package sbom format lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.stamp-demo ## Run a whole fleet on this machine (DEMO_ARGS=...)
	$(BIN)/backhaul demo $(DEMO_ARGS)

test: $(VENV)/.stamp-dev ## Run the fast tests (PYTEST_ARGS=...)
	.ci/ensure mosquitto=mosquitto mosquitto_pub=mosquitto-clients
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-quick} $(BIN)/python -m pytest $(PARALLEL) -m '$(FAST)' $(PYTEST_ARGS)

test-all: $(VENV)/.stamp-dev ## Run every test but the soak; what this machine cannot run is listed with the reason
	.ci/ensure mosquitto=mosquitto mosquitto_pub=mosquitto-clients dockerd=docker.io docker=docker-cli docker-compose=docker-compose debootstrap=debootstrap chromium=chromium \
	  '/usr/lib/postgresql/*/bin/postgres=postgresql' promtool=prometheus strace=strace zsh=zsh faketime=faketime nginx=nginx-light tinyproxy=tinyproxy-bin ip=iproute2 caddy=caddy openssl=openssl age=age mkfs.ext4=e2fsprogs \
	  qemu-aarch64-static=qemu-user-static qemu-arm-static=qemu-user-static systemd-nspawn=systemd-container
	$(BIN)/python -m pytest $(PARALLEL) -m '$(FAST)' --at-least $(FAST_TESTS) $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(PARALLEL) -m 'not ($(FAST)) and not containers and not chaos and not soak' --at-least $(SLOW_TESTS) $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m chaos --at-least 1 $(PYTEST_ARGS)
	$(MAKE) test-containers

# Uses the engine that answers, else starts Debian's for the duration: tests/support/engine.py. Its networks come and go,
# which a browser takes for a change of its own: it does not run beside the tests of the page.
test-containers: $(VENV)/.stamp-dev ## Build the images, run both compose files, follow docs/containers.md
	.ci/ensure dockerd=docker.io docker=docker-cli docker-compose=docker-compose debootstrap=debootstrap curl=curl
	$(BIN)/python -m tests.support.engine $(BIN)/python -m pytest -m 'containers and not soak' --at-least $(CONTAINER_TESTS) $(PYTEST_ARGS)

test-soak: $(VENV)/.stamp-dev ## Each crash point of real processes, thousands of simulated histories: before a release
	.ci/ensure mosquitto=mosquitto strace=strace dockerd=docker.io docker=docker-cli docker-compose=docker-compose debootstrap=debootstrap
	$(BIN)/python -m tests.support.engine $(BIN)/python -m pytest $(PARALLEL) -m soak $(PYTEST_ARGS)

check: $(VENV)/.stamp-dev ## Lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.stamp-dev ## Measure (BENCH_ARGS=...)
	.ci/ensure mosquitto=mosquitto mosquitto_pub=mosquitto-clients
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

package: $(VENV)/.stamp-dev ## Build the agent's packages into dist/: debs for Debian 12 and 13, and backhaul-agent.pyz
	$(BIN)/python deploy/debian/build $(PACKAGE_ARGS)

sbom: $(BIN)/python ## List what is installed, with hashes and VEX, into dist/ (CycloneDX)
	$(BIN)/python deploy/sbom/build dist

format: $(VENV)/.stamp-dev ## Format and repair what can be repaired
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# A lock file contains versions and hashes, never the source of a package (docs/decisions/0001).
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) pyproject.toml

lock: $(BIN)/python ## Pin requirements/ again after pyproject.toml changed (UPGRADE=1 takes newer versions)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --require-hashes -r <(deploy/containers/pick requirements/dev.txt uv)
	$(COMPILE) --extra dev --group build --output-file requirements/dev.txt
	$(COMPILE) --extra demo --group build --constraint requirements/dev.txt --output-file requirements/demo.txt
	$(COMPILE) --extra server --extra postgres --extra signing --constraint requirements/dev.txt --output-file requirements/server.txt
	$(COMPILE) --extra signing --constraint requirements/dev.txt --output-file requirements/agent.txt

clean: ## Remove the environment and what tools leave behind
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@.ci/venv $(VENV)

# A stamp is younger than the lock it was installed from. The development environment contains the demo's.
$(VENV)/.stamp-dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@
