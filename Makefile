PYTHON ?= python3
# NEWEST=1 takes the newest versions that pyproject.toml admits instead of those of constraints.txt.
NEWEST ?=
VENV ?= .venv$(if $(NEWEST),-newest)
CONSTRAINTS := $(if $(NEWEST),,--constraint constraints.txt)
BIN := $(VENV)/bin
# The stamp is named after the interpreter, so that another PYTHON makes the environment anew.
STAMP := $(VENV)/.installed-$(subst /,_,$(PYTHON))

.PHONY: install quickstart test check constraints clean

install: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s2s_jax needs Python 3.11 or newer, got " + sys.version.split()[0] + "; run make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[test,lint]'
	touch $@

# SETTINGS may hold overrides, such as `make quickstart SETTINGS="--steps 50"`.
quickstart: install
	$(BIN)/s2s train dates --run runs/quickstart $(SETTINGS)
	$(BIN)/s2s evaluate runs/quickstart
	$(BIN)/s2s align runs/quickstart
	@echo 'look inside: $(BIN)/s2s serve runs/quickstart'

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Writes constraints.txt anew from what pip resolves today; PYTHONS needs a 3.11 and a newer interpreter.
PYTHONS ?= python3.11 python3.13
constraints:
	$(PYTHON) scripts/constraints.py $(PYTHONS)

clean:
	rm -rf .venv .venv-newest build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
