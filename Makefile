# Everything a newcomer types. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA_DIR ?= data

# make report-chr20: another model is one more word in MODELS, a registry key, a folder or a .py file.
DATA ?= ../shared/data/chr20
RESULTS ?= chr20_results
REPORT ?= chr20_report
MODELS ?= bend-mini onehot examples/random_sixmers.py examples/surroundings.py
SUPERVISED ?=
# 96 training genes, 5,404 windows: few for a convolutional head, so a linear probe, in batches that give it steps enough.
GENES ?= --head linear --epochs 40 --batch-size 8 --learning-rate 0.01
WINDOWS ?= --head linear --epochs 20 --batch-size 64 --learning-rate 0.01
CHR20 = $(BIN)/bend-hf run --data $(DATA) --genome $(RESULTS)/GRCh37.fa --out $(RESULTS) --cache $(RESULTS)/cache --controls

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check format bench readme clean status download-data download-data-original report-chr20

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("bend_hf needs Python 3.11 or later, not " + sys.version.split()[0] + "; say which with make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plots]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

setup: $(VENV)/.installed  ## make a virtual environment and install bend_hf in it

setup-dev: $(VENV)/.installed-dev  ## the same, with what the tests and checks need

demo: setup  ## run all seven tasks on the bundled sample, bend-mini beside its controls
	$(BIN)/bend-hf demo

test: setup-dev  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

check: setup-dev  ## ruff, mypy --strict, and the layer test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict bend_hf
	$(BIN)/python -m pytest -q tests/contract/test_layers.py

format: setup-dev  ## let ruff format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev  ## measure speed and size; writes benchmarks/results
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

$(RESULTS)/GRCh37.fa: $(DATA)/genome.fa.gz | setup
	@mkdir -p $(RESULTS)
	gzip -dc $< > $@.part && mv $@.part $@

report-chr20: $(RESULTS)/GRCh37.fa  ## four models and more on real data of one chromosome, and a report over them
	$(CHR20) --task gene_finding --model $(MODELS) $(SUPERVISED) $(GENES)
	$(CHR20) --task chromatin_accessibility --model $(MODELS) $(SUPERVISED) $(WINDOWS)
	$(CHR20) --task variant_effects_disease --model $(MODELS)
	$(BIN)/bend-hf report $(RESULTS) --out $(REPORT)

readme: setup-dev  ## render the tables of README.md
	$(BIN)/python -m benchmarks._readme

status: setup  ## say what is installed and where data was found
	$(BIN)/bend-hf status

download-data: setup  ## fetch BEND's files from the mirror into $(DATA_DIR)
	$(BIN)/bend-hf download --source gcs --data-dir $(DATA_DIR)

download-data-original: setup  ## fetch BEND's files from BEND's own share into $(DATA_DIR)
	$(BIN)/bend-hf download --source erda --data-dir $(DATA_DIR)

clean:  ## remove the virtual environment, caches and demo results
	rm -rf $(VENV) build dist demo_results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
