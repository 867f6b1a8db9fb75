# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
KERNELS := .triton
BIN := $(VENV)/bin
DATA_DIR ?= data

# make report-chr20: another model is one more word in MODELS, a registry key, a folder or a .py file.
DATA ?= ../shared/data/chr20
RESULTS ?= chr20_results
REPORT ?= chr20_report
LAYERS ?= chr20_layers
MODELS ?= bend-mini onehot examples/random_sixmers.py examples/surroundings.py
SUPERVISED ?=
# 96 training genes and 5,404 windows are few for a convolutional head: a linear head, in batches small enough for
# several hundred steps.
GENES ?= --head linear --epochs 40 --batch-size 8 --learning-rate 0.01
WINDOWS ?= --head linear --epochs 20 --batch-size 64 --learning-rate 0.01
CHR20 = $(BIN)/bend-hf run --data $(DATA) --genome $(RESULTS)/GRCh37.fa --out $(RESULTS) --cache $(RESULTS)/cache --controls
# The first of the models again, its genes decoded as a whole: a choice of the second protocol.
GRAMMAR = $(CHR20:--controls=) --task gene_finding --model $(firstword $(MODELS)) --protocol bend-hf-1 --decode grammar
# Controls that are run if they are installed, see docs/controls.md; the log says how to get the others.
EXPERTS = $(BIN)/bend-hf controls --task gene_finding chromatin_accessibility variant_effects_disease --installed --seeds 0 --data $(DATA) --genome $(RESULTS)/GRCh37.fa --out $(RESULTS)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-lowest setup-system setup-kernels demo test test-long test-lowest check format bench coverage audit fuzz faults docs notebooks site push-site clean status download-data download-data-original report-chr20 layers-chr20 few-shots

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("Python is " + sys.version.split()[0] + "; bend_hf needs 3.11 or later. Choose one with: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plots]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[test]'
	@touch $@

setup: $(VENV)/.installed  ## make a virtual environment in .venv and install bend_hf in it

setup-dev: $(VENV)/.installed-dev  ## the same, with the tools for tests and checks

setup-lowest: $(LOWEST)/.installed  ## install the lowest versions that pyproject.toml allows in .venv-lowest

# Programs that some tests run and a user may have or not; each of these tests is skipped where its program is absent.
SYSTEM_PACKAGES := augustus augustus-data gffread chromium slurmctld slurmd slurm-client libhwloc15

setup-system:  ## install the Debian packages that some tests use, as root
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES)

# In a folder of its own: PyTorch and transformers import Triton wherever they find it, which takes seconds, and 1 GB.
setup-kernels: setup  ## install Triton for the tests of the kernels for GPUs, where only they find it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(KERNELS) triton==3.9.0

demo: setup  ## run all seven tasks on the bundled sample, with bend-mini and its controls; it says first how long that takes
	$(BIN)/bend-hf demo

test: setup-dev  ## run the tests, and the examples in docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder --durations=30 -m 'not long'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --doctest-modules bend_hf

test-long: setup-dev  ## run what make test leaves out for its length, such as the blocks of most guides
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist load -m long

# Slow tests start further test runs in copies of the repository; they show nothing about versions.
test-lowest: setup-lowest  ## run unit and contract tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q -n auto --dist loadfile --durations=15 -m 'not slow and not long' tests/unit tests/contract

check: setup-dev  ## run ruff, mypy --strict and the layer test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict bend_hf
	$(BIN)/python -m pytest -q tests/contract/test_layers.py

format: setup-dev  ## fix and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev  ## measure speed and size; writes benchmarks/results
	for script in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

# In a folder of its own; make fuzz goes on without it, and then guesses instead of being guided.
.fuzz/.installed: | setup-dev
	@mkdir -p .fuzz
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .fuzz atheris==3.0.0
	@touch $@

FUZZ_SECONDS ?= 600

fuzz: .fuzz/.installed  ## feed the readers of BED, FASTA index, VCF, TOML, records and HDF5 with broken files for ten minutes in all
	PYTHONPATH=.fuzz $(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --results benchmarks/results/fuzz.json

FAULTS_EVERY ?= 1
FAULTS ?= all

faults: setup-dev  ## let each change to files fail in each command that writes; writes benchmarks/results/faults.json
	folder=$$(mktemp -d); HF_HOME=$$folder/home/hf OMP_NUM_THREADS=1 $(BIN)/python -m tests.e2e.fault_lives $$folder $(FAULTS) $(FAULTS_EVERY) benchmarks/results/faults.json; status=$$?; rm -rf $$folder; exit $$status

coverage: setup-dev  ## measure how often intervals cover the truth and paired tests err; writes benchmarks/results/coverage.json
	$(BIN)/python -m benchmarks.coverage

audit: setup-dev  ## audit the sample and the data of one chromosome; writes benchmarks/results/audit.json
	$(BIN)/python -m benchmarks.audit --data $(DATA) --only-findings
	$(BIN)/python -m benchmarks._docs

$(RESULTS)/GRCh37.fa: $(DATA)/genome.fa.gz | setup
	@mkdir -p $(RESULTS)
	gzip -dc $< > $@.part && mv $@.part $@

report-chr20: $(RESULTS)/GRCh37.fa  ## run models on the data of one chromosome, and write a report
	$(CHR20) --task gene_finding --model $(MODELS) $(SUPERVISED) $(GENES)
	$(CHR20) --task chromatin_accessibility --model $(MODELS) $(SUPERVISED) $(WINDOWS)
	$(CHR20) --task variant_effects_disease --model $(MODELS)
	$(GRAMMAR) $(GENES)
	$(EXPERTS)
	$(BIN)/bend-hf report $(RESULTS) --out $(REPORT)

layers-chr20: $(RESULTS)/GRCh37.fa setup-dev  ## score every layer of two models on the data of one chromosome
	$(BIN)/python -m benchmarks.chromosome_layers --data $(DATA) --genome $(RESULTS)/GRCh37.fa --out $(LAYERS)
	$(BIN)/python -m benchmarks._docs

few-shots: $(RESULTS)/GRCh37.fa | setup-dev  ## draw the score by the number of labels on one chromosome; writes benchmarks/results/few_shots.json
	$(BIN)/python -m benchmarks.few_shots --chr20 $(DATA) --genome $(RESULTS)/GRCh37.fa
	$(BIN)/python -m benchmarks._docs

notebooks: setup-dev  ## run the notebooks in examples/ and write their outputs into them
	$(BIN)/python -m benchmarks._notebooks

# Material announces its successor at each build; the variable leaves that out.
site: setup-dev  ## build the documentation as static pages in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

push-site: site  ## push site/ as a static Space of the Hub: make push-site SPACE=OWNER/NAME
	$(BIN)/python docs/_site/push.py site $(SPACE)

docs: setup-dev  ## render the tables in README.md and docs/ from declarations and benchmarks/results
	$(BIN)/python -m benchmarks._docs

status: setup  ## show versions, devices and where data was found
	$(BIN)/bend-hf status

download-data: setup  ## download BEND's files from the mirror into DATA_DIR, by default data
	$(BIN)/bend-hf download --source gcs --data-dir $(DATA_DIR)

download-data-original: setup  ## download BEND's files from their original share into DATA_DIR, by default data
	$(BIN)/bend-hf download --source erda --data-dir $(DATA_DIR)

# Caches below the home folder may belong to other checkouts, so they are named and left.
EMBEDDINGS = $${BEND_HF_CACHE:-$$HOME/.cache/bend_hf}
DATASETS = $${HF_DATASETS_CACHE:-$${HF_HOME:-$$HOME/.cache/huggingface}/datasets}

clean:  ## remove the virtual environments, caches and demo results, and name the caches that remain
	rm -rf $(VENV) $(LOWEST) $(KERNELS) .fuzz build dist site demo_results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@for folder in "$(EMBEDDINGS)" "$(DATASETS)"; do \
	  if [ -d "$$folder" ]; then echo "left: $$folder ($$(du -sh "$$folder" | cut -f1))"; fi; \
	done
	@if [ -d "$(EMBEDDINGS)" ] || [ -d "$(DATASETS)" ]; then \
	  echo "What is left is computed again when it is needed: delete the folders, or, after the next 'make setup',"; \
	  echo "remove embeddings that have not changed for 30 days with '$(BIN)/bend-hf cache prune --older-than 30'."; \
	fi
