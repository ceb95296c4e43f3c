# Everything from a bare machine with Python 3.11 or 3.12 and make. `make help` lists the targets.

UV_VERSION := 0.13.9
# Another interpreter: make setup PYTHON=/opt/python3.12/bin/python3
PYTHON ?=
PYTEST_ARGS ?=
# Another version of Ray, for test-ray
RAY ?=
BIN := .venv/bin

export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup pydensecrf lock check format test test-ray coverage drill demo docs bench bench-gpu wheel clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: .venv/.stamp pydensecrf  ## make .venv with the pinned dependencies and the command vwl

CHECK_PYTHON := import sys; \
v = sys.version_info[:2]; \
v in ((3, 11), (3, 12)) or sys.exit("is Python %d.%d, and 3.11 or 3.12 is needed" % v); \
import importlib.util as u; \
u.find_spec("ensurepip") or sys.exit("has no ensurepip (on Debian and Ubuntu: apt-get install python%d.%d-venv)" % v)

# pydensecrf2 is compiled at installation: with a C++ compiler and the interpreter's headers, else it is left out.
HAS_HEADERS := import sysconfig, pathlib, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())
pydensecrf: .venv/.stamp
	@if $(BIN)/python -c 'import pydensecrf' 2>/dev/null; then :; \
	elif ! { command -v c++ || command -v g++ || command -v clang++; } >/dev/null || ! $(BIN)/python -c '$(HAS_HEADERS)'; then \
	  echo "pydensecrf is left out: it needs a C++ compiler and Python's headers (on Debian and Ubuntu: apt-get install g++ python3-dev)"; \
	else \
	  $(BIN)/uv pip install --python $(BIN)/python --compile-bytecode -r requirements-pydensecrf.lock; \
	fi

.venv/.stamp: requirements.lock pyproject.toml
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  found=; \
	  for candidate in $(or $(PYTHON),python3.11 python3.12 python3 python); do \
	    "$$candidate" -c '' >/dev/null 2>&1 || continue; \
	    if why=$$("$$candidate" -c '$(CHECK_PYTHON)' 2>&1); then found=$$candidate; break; fi; \
	    echo "$$candidate $$why" >&2; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no usable Python 3.11 or 3.12 found; install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; \
	  fi; \
	  echo "making .venv with $$found"; \
	  "$$found" -m venv --clear .venv; \
	fi
	@$(BIN)/uv --version 2>/dev/null | grep -q '^uv $(UV_VERSION)\b' || $(BIN)/python -m pip install --quiet 'uv==$(UV_VERSION)'
	@# compiled once here: without .pyc files every process (and every Ray worker) pays some ten seconds of imports
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .
	@touch $@

lock: .venv/.stamp  ## resolve pyproject.toml into the lock files
	$(BIN)/uv pip compile pyproject.toml --extra tune --extra dev --universal --python-version 3.11 --no-header --no-annotate --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra pydensecrf --universal --python-version 3.11 --no-header --no-annotate --quiet --constraint requirements.lock | grep '^pydensecrf2==' > requirements-pydensecrf.lock
	$(BIN)/uv pip compile pyproject.toml --extra docs --universal --python-version 3.11 --no-header --no-annotate --quiet --constraint requirements.lock | grep -vxFf requirements.lock > requirements-docs.lock
	@! grep -n '://' requirements.lock requirements-pydensecrf.lock requirements-docs.lock || { echo "error: a lock file names a host" >&2; exit 1; }

check: setup  ## lint, format check, type check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The hash seed is random on purpose: no answer may depend on the order of a set.
# Tests that start Ray use all CPUs: they run after the others, which run in two processes of one thread each.
test: check  ## check, then all tests (PYTEST_ARGS="-k crf" for some)
	PYTHONHASHSEED=random OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not drill and not ray" $(PYTEST_ARGS) || [ $$? = 5 ]
	PYTHONHASHSEED=random OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "ray and not drill" $(PYTEST_ARGS) || [ $$? = 5 ]

test-ray: setup  ## tests/engine in an environment with another Ray: make test-ray RAY=2.58.0
	@test -n "$(RAY)" || { echo "error: name the version of Ray: make test-ray RAY=2.58.0" >&2; exit 2; }
	@if [ ! -e .cache/ray-$(RAY)/.stamp ]; then \
	  $(BIN)/uv venv --quiet --clear --python $(BIN)/python .cache/ray-$(RAY) && \
	  grep -v '^ray==' requirements.lock > .cache/ray-$(RAY)/requirements.txt && \
	  $(BIN)/uv pip install --python .cache/ray-$(RAY)/bin/python --compile-bytecode -r .cache/ray-$(RAY)/requirements.txt \
	    'ray[default,data,train,tune]==$(RAY)' && \
	  $(BIN)/uv pip install --python .cache/ray-$(RAY)/bin/python --no-deps -e . && touch .cache/ray-$(RAY)/.stamp; \
	fi
	PYTHONHASHSEED=random OMP_NUM_THREADS=1 .cache/ray-$(RAY)/bin/python -m pytest tests/engine $(PYTEST_ARGS)

coverage: setup  ## all tests with the share of lines that they run, in percent
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

drill: setup  ## the failure drills on Ray, minutes each
	$(BIN)/python -m pytest -m drill $(PYTEST_ARGS)

demo: setup  ## the whole method on a few generated scenes
	$(BIN)/vwl demo

docs: .venv/.stamp .venv/.docs  ## build the documentation site in site/html, warnings are errors
	$(BIN)/python -m docs.generator

.venv/.docs: requirements-docs.lock .venv/.stamp
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode -r requirements-docs.lock
	@touch $@

bench: setup  ## every script in benchmarks/, and one table of the ratios
	$(BIN)/python benchmarks/_all.py

bench-gpu: setup  ## training steps, maps, CRF and walk on this machine's GPU; figures in gpu.json
	$(BIN)/python benchmarks/gpu.py --json gpu.json

wheel: setup  ## build the wheel and the source archive in dist/
	$(BIN)/python -m hatchling build -t sdist -t wheel

clean:  ## remove caches, dist/ and the demo's folder (.venv stays)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* dist demo site .cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
