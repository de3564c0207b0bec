# Thin on purpose: a target is one command and makes the environment it needs from the pins in requirements/.
PYTHON ?= python3
DIR ?= examples/flights

BIN := .venv/bin
INSTALL = $(@D)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check
LOCK := .venv-pins/bin/uv pip compile --no-config --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --custom-compile-command "make pins" --group build

.DEFAULT_GOAL := help
.PHONY: help demo test test-base check test-faults test-mlflow bench up generate pins clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/.all ## run the whole loop on 336 776 real flights
	$(BIN)/interlock demo

test: .venv/.dev ## run every test but the long ones, on all cores
	$(BIN)/pytest -n auto --dist loadfile

test-base: .venv-base/.base-test ## run the tests of the online wing (tests/base.txt) with the base install alone
	.venv-base/bin/pytest --hypothesis-profile=quick @tests/base.txt

check: .venv/.dev ## check format, lint, types and import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

test-faults: .venv/.dev ## run the long tests: kills, full disks, hung peers
	$(BIN)/pytest -m long

test-mlflow: .venv/.dev ## run the tests that need a real MLflow server; the first time installs 780 MB
	$(BIN)/pytest -m long tests/integration/test_mlflow.py

bench: .venv/.dev ## run every benchmark; needs wrk, and the first time 1.9 GB for the peers
	@set -e; for script in bench/bench_*.py; do $(BIN)/python -m "bench.$$(basename "$$script" .py)"; done

up: .venv/.all ## start the project in DIR (examples/flights unless told otherwise)
	cd "$(DIR)" && "$(CURDIR)/$(BIN)/interlock" up

generate: .venv/.dev ## make the Python messages from proto/ again
	$(BIN)/python proto/generate.py

pins: .venv-pins/bin/uv ## renew requirements/*.txt from pyproject.toml
	$(LOCK) --upgrade pyproject.toml --extra dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra all -c requirements/dev.txt -o requirements/all.txt
	$(LOCK) pyproject.toml -c requirements/dev.txt -o requirements/base.txt
	$(LOCK) pyproject.toml --group base-test --no-emit-package scipy --no-emit-package narwhals -c requirements/dev.txt -o requirements/base-test.txt
	$(LOCK) -c requirements/dev.txt -o requirements/build.txt

clean: ## remove environments, caches and build results
	rm -rf .venv .venv-base .venv-pins .venv-peers .venv-mlflow build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Two environments per checkout; the stamp .NAME in one says that the pins of requirements/NAME.txt are in it.
# Compiled on all cores and without the packages' own tests and the installer: a tenth of the disk and a fifth of the time less than pip's way.
.venv/.%: requirements/%.txt pyproject.toml .venv/.build
	@$(install)

.venv-base/.%: requirements/%.txt pyproject.toml .venv-base/.build
	@$(install)

.venv/.build .venv-base/.build: requirements/build.txt
	@$(call need_python)
	@$(PYTHON) -m venv $(@D)
	@$(INSTALL) --require-hashes -r $<
	@touch $@

.venv-pins/bin/uv:
	@$(call need_python)
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install --quiet uv

define install
	echo "Installing the pins of $< into $(@D) (about a minute the first time)" && \
	$(INSTALL) --require-hashes --no-deps --no-build-isolation -r $< && \
	$(INSTALL) --no-deps --no-build-isolation --editable . && \
	$(@D)/bin/python -m compileall -q -j 0 -x '/(tests|pip|setuptools|pkg_resources)/' $(@D)/lib src && \
	touch $@
endef

define need_python
	command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: apt install python3 python3-venv" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Interlock needs Python 3.11 or newer, and $(PYTHON) is older: name another, make PYTHON=python3.12" >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: apt install python3-venv" >&2; exit 1; }
endef
