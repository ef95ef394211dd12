# One command each. CI runs `make check` and `make test`, nothing else.
PYTHON ?= python3
BIN := .venv/bin
# A worker takes over what another has not begun; tests of one file mostly stay together, and share what is set up once.
WORKERS := -n 2 --dist worksteal

.PHONY: quickstart test test-fast sweep check fix docs notebook reports site small few general bench clean

quickstart: .venv/installed  ## the main job on the embedded backbone and the sample tasks
	$(BIN)/mptune bench recipes/quickstart.yaml

test: .venv/installed  ## the whole test suite, offline; twenty minutes on two cores
	$(BIN)/python -m pytest $(WORKERS)

test-fast: .venv/installed  ## what can be told in a few minutes: no other processes, no browser, no embedded backbone, no real rows
	$(BIN)/python -m pytest $(WORKERS) -m "not slow and not embedded and not shared"

sweep: .venv/installed  ## what takes minutes: every family of models, every option with every kind of malice
	$(BIN)/python -m pytest $(WORKERS) -m sweep

check: .venv/installed  ## lint, format, strict types, layers, help pages and README snippets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_docs.py tests/test_site.py -m "not slow and not embedded"

fix: .venv/installed  ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## write docs/cli.md from the help pages
	$(BIN)/python tests/test_docs.py --write

notebook: .venv/installed  ## run docs/first_hour.ipynb anew, and keep what it shows
	PYTHONWARNINGS=ignore $(BIN)/python -m nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False docs/first_hour.ipynb
	$(BIN)/python -m nbconvert --to notebook --inplace --coalesce-streams docs/first_hour.ipynb

reports: .venv/installed  ## the HTML reports of committed results, into build/reports
	mkdir -p build/reports
	for file in $$(find results -name results.jsonl); do folder=$${file%/results.jsonl}; name=$${folder#results/}; \
		$(BIN)/mptune report $$folder --out build/reports/$$(echo $$name | tr / -).html || exit 1; \
	done

site: reports  ## the documentation as a site, into build/site; needs no network, and neither does the site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

small: .venv/installed  ## every system on eight real target tasks, and the ablations (hours on two cores); needs the data named in the recipes
	for name in fewshot ablation initialisation prompt-length; do $(BIN)/mptune bench recipes/small/$$name.yaml || exit 1; done

few: .venv/installed  ## the comparison on few labels, seven tasks on which nothing was chosen (hours on two cores); needs the data named in the recipe
	mkdir -p runs/few && cp -rn results/few/confirming runs/few/
	$(BIN)/mptune bench recipes/few/confirming.yaml

general: .venv/installed  ## the multitask prompt of 24 source tasks, from the teachers that are committed (hours on two cores); needs the data named in the recipe
	mkdir -p runs/general && cp -rn results/general/. runs/general/
	$(BIN)/mptune bench recipes/general/general.yaml --only transfer

bench: .venv/installed  ## every benchmark in full, in turn; with DATA=DIR on real rows. One by one: benchmarks/README.md
	for name in train_step distillation_step adaptation scoring memory neighbour; do \
		$(BIN)/python benchmarks/$$name.py $(if $(DATA),--data $(DATA)) --out benchmarks/results/$$name.json || exit 1; \
	done

clean:
	rm -rf .venv runs build

# The stamp is made last, so that an interrupted installation starts again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mptune needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
