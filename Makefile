# Everything runs from a virtual environment in .venv, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
NPM_STAMP := tests/npm/node_modules/.installed

# Much of their time the tests wait for processes, so that a third worker pays on two cores.
# Files are handed out in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# The tests start some two hundred processes of the product; compiling it for each takes a quarter of their time.
export PYTHONDONTWRITEBYTECODE =

REAL := .venv-real
REAL_NPM := tests/e2e/real/npm/node_modules/.installed

.PHONY: help install npm demo run test test-long test-real real-llamacpp real-clients check format bench screenshots clean

help:
	@echo "make demo       try it: demo backends, admin account, server on http://localhost:40114"
	@echo "make run        the server, with the inference servers found on this machine"
	@echo "make test       everything: checks, unit, end-to-end and browser tests"
	@echo "make test-long  the same tests in their larger sizes"
	@echo "make test-real  LiteLLM's proxy from PyPI before the product, and what these two have added:"
	@echo "make real-llamacpp  compiles llama.cpp's server (the better part of an hour on two cores)"
	@echo "make real-clients   Claude Code and OpenCode from npm (600 MB)"
	@echo "make bench      what a request costs; writes docs/performance.md"
	@echo "make screenshots  pictures of every page into docs/images, to look at"
	@echo "make check      lint, types, floors, migrations, deployment checks"

$(VENV)/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "Could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# npm packages that tests run in the browser and in Node; the product needs none. Without npm those tests say so and fail.
$(NPM_STAMP): tests/npm/package.json tests/npm/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing. On Debian and Ubuntu: apt install nodejs npm"; exit 1; }
	cd tests/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

npm: $(NPM_STAMP)

install: $(VENV)/runtime

demo: install
	$(MANAGE) demo $(if $(PORT),--port $(PORT))

run: install
	@$(MANAGE) migrate --verbosity 0
	-@$(MANAGE) discover_local
	$(MANAGE) runserver $(PORT)

# The translation is pure code: its own tests must reach every branch of it.
COVERED := tests/translation -n 2 --cov=translation --cov-branch --cov-fail-under=100 --cov-report=term:skip-covered

test: $(VENV)/dev $(NPM_STAMP) check
	$(BIN)/python -m pytest $(COVERED)
	$(PYTEST) --ignore=tests/translation

test-long: $(VENV)/dev $(NPM_STAMP) check
	OLLA_TEST_SIZE=long $(BIN)/python -m pytest $(COVERED)
	OLLA_TEST_SIZE=long $(PYTEST) --ignore=tests/translation

# Real servers and clients, in a virtual environment and a folder of their own; never part of `make test`. LiteLLM
# comes from PyPI alone; llama.cpp's server and the command-line clients are driven where they have been put.
$(REAL)/packages: requirements-real.txt
	@test -x $(REAL)/bin/python || $(PYTHON) -m venv $(REAL)
	$(REAL)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-real.txt
	@touch $@

# A change of the packages is no reason to compile again.
$(REAL)/bin/llama-server: tests/e2e/real/build_llama_server.sh | $(REAL)/packages
	@command -v cmake >/dev/null && command -v g++ >/dev/null || \
	  { echo "A compiler is missing. On Debian and Ubuntu: apt install cmake g++"; exit 1; }
	tests/e2e/real/build_llama_server.sh $(REAL)

real-llamacpp: $(REAL)/bin/llama-server

$(REAL_NPM): tests/e2e/real/npm/package.json tests/e2e/real/npm/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing. On Debian and Ubuntu: apt install nodejs npm"; exit 1; }
	# Not `npm ci`: OpenCode names packages for systems of which a registry may lack some, and the lock with it.
	cd tests/e2e/real/npm && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

real-clients: $(REAL_NPM)

test-real: $(VENV)/dev $(REAL)/packages
	OLLA_TEST_REAL=1 $(BIN)/python -m pytest tests/e2e/real

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	OLLA_DEBUG=0 OLLA_HTTPS=1 $(MANAGE) check --deploy --fail-level WARNING
	$(MANAGE) makemigrations --check --dry-run

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev
	$(BIN)/python -m tests.bench

screenshots: $(VENV)/dev
	$(BIN)/python -m tests.browser.take_pictures

clean:
	rm -rf $(VENV) $(REAL) tests/npm/node_modules tests/e2e/real/npm/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
