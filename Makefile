# Postroom's commands. `make` alone lists them. Nothing is needed but Python 3.11 or newer with its venv
# module, and make; everything else goes into .venv and, while it runs, into .postroom.
#
# PYTHON=… chooses the Python that makes .venv. The lock files pin every package by hash and name no
# registry: pip's and uv's own settings say where packages come from.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
PY := .venv/bin/python
UV := .venv/bin/uv
# Many tests wait more than they work: on two cores four of these have enough to do.
WORKERS ?= 4

# uv must use the .venv that we made, and never fetch a Python by itself.
export UV_PYTHON_DOWNLOADS := never
export VIRTUAL_ENV := $(CURDIR)/.venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Each process, and there are many, would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# A .venv knows its own path by heart, so one that was copied or moved is made again; so is one whose Python is gone.
ifneq ($(shell .venv/bin/python -c '' 2>/dev/null && cat .venv/place 2>/dev/null),$(CURDIR))
.PHONY: .venv/place
endif

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install run test check format bench chaos lock openapi clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

install: .venv/everything ## make .venv with the locked dependencies, the tests' included

# By way of `descend`, so that the service also ends in order when this make is killed.
run: .venv/runnable ## start the whole service on this machine and send a first message
	@exec $(PY) -I -S service/local/descend.py $$PPID 15 none 0 0 $(PY) -m service dev $(ARGS)

test: install check ## every check and every test
	$(PY) -m pytest -n $(WORKERS) $(ARGS)

check: install ## format, lint, types, imports, migrations, OpenAPI and what it breaks
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m tests.schema_check
	$(PY) -m service openapi | diff -u openapi/openapi.json - || { echo "openapi/openapi.json is not in step: make openapi" >&2; exit 1; }
	$(PY) -m tests.tools.chart_docs --check
	$(PY) -m tests.contract

format: install ## format the code and mend what the linter can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: install ## the benchmarks (tests/bench/__init__.py says how to run one)
	$(PY) -m pytest tests/bench -m bench -s -o 'python_files=bench_*.py' $(ARGS)

chaos: install ## the fault campaign: kills, pauses and losses under load (tests/chaos/__init__.py says more)
	$(PY) -m tests.chaos $(ARGS)

openapi: install ## write openapi/openapi.json, docs/errors.md and the chart's tables anew
	$(PY) -m service openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json
	$(PY) -m service.submission.contract.codes > docs/errors.md.new
	mv docs/errors.md.new docs/errors.md
	$(PY) -m tests.tools.chart_docs

# Runtime first; the others hold the same versions because they are bound to it, and bring what an editable
# installation of Postroom itself is built with.
BUILD := printf 'hatchling\neditables\n'
LOCK := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: .venv/uv ## resolve the dependencies anew (ARGS="--upgrade" for newer versions)
	$(LOCK) pyproject.toml --extra otel -o requirements.txt $(ARGS)
	$(BUILD) | $(LOCK) pyproject.toml - --extra embedded -c requirements.txt -o requirements-run.txt $(ARGS)
	$(BUILD) | $(LOCK) pyproject.toml - --extra embedded --extra otel --extra dev -c requirements.txt -c requirements-run.txt -o requirements-dev.txt $(ARGS)
	echo 'uv' | $(LOCK) - -o requirements-uv.txt $(ARGS)

clean: ## remove .venv and caches; .postroom, which holds data, stays
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# ---- the steps of the installation, each done again only when what it reads has changed ----

.venv/place:
	@test -n "$(PYTHON)" || { \
		echo "Postroom needs Python 3.11 or newer; python3 is $$(python3 --version 2>/dev/null || echo missing)." >&2; \
		echo "Install it (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Postroom needs Python 3.11 or newer, and PYTHON=$(PYTHON) is not that." >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "This Python has no venv module. Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "[1/4] .venv with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv --clear .venv
	@printf '%s\n' "$(CURDIR)" > $@

.venv/uv: .venv/place requirements-uv.txt
	@echo "[2/4] the installer (uv)"
	@$(PY) -m pip install --quiet --require-hashes -r requirements-uv.txt
	@touch $@

# uv takes seconds. pip reads the same lock and takes longer; it is there for machines on which only pip
# has been told where packages come from.
define packages
	@echo "[3/4] the packages of $(1)"
	@$(UV) pip install --require-hashes -r $(1) || { echo "uv could not; trying pip" >&2; \
		$(PY) -m pip install --progress-bar on --require-hashes -r $(1); }
	@echo "[4/4] Postroom itself"
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable . 2>/dev/null || \
		$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
endef

.venv/everything: .venv/uv requirements-dev.txt pyproject.toml
	$(call packages,requirements-dev.txt)
	@touch .venv/runnable $@

.venv/runnable: .venv/uv requirements-run.txt pyproject.toml
	$(call packages,requirements-run.txt)
	@touch $@
