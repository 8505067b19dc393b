PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Its name holds the Python asked for, so another PYTHON makes the environment anew.
STAMP := $(VENV)/.installed-$(subst /,_,$(PYTHON))

.PHONY: install quickstart test check clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s2s_jax needs Python 3.11 or newer, got " + sys.version.split()[0] + "; say make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

# SETTINGS may hold overrides, such as `make quickstart SETTINGS="--steps 50"`.
quickstart: install
	$(BIN)/s2s train dates --run runs/quickstart $(SETTINGS)
	$(BIN)/s2s evaluate runs/quickstart
	$(BIN)/s2s align runs/quickstart

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
