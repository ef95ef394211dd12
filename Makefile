# One command each. CI runs `make check` and `make test`, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check fix docs real clean

quickstart: .venv/installed  ## the main job on the embedded backbone and the sample tasks; about four minutes once installed
	$(BIN)/mptune run recipes/quickstart.yaml

test: .venv/installed  ## the whole test suite, offline
	$(BIN)/python -m pytest

check: .venv/installed  ## lint, format, strict types, layers, help pages and README snippets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_docs.py

fix: .venv/installed  ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## write docs/cli.md from the help pages
	$(BIN)/python tests/test_docs.py --write

real: .venv/installed  ## the comparison on real rows (about an hour on two cores); needs the data named in the recipe
	$(BIN)/mptune run recipes/real/fewshot.yaml

clean:
	rm -rf .venv runs

# The stamp is made last, so that an interrupted installation starts again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mptune needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
