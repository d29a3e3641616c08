# make paper   every figure and table, from nothing, offline once the packages are installed
# make test    every check and test
SHELL := bash
PYTHON ?= python3
CORES ?= all
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: paper test checks adopt dvc.yaml benchmarks constraints clean

paper: $(VENV)/.installed
	snakemake --cores $(CORES)

test: $(VENV)/.installed checks
	pytest -W error

checks: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy --strict hesspipe
	snakefmt --check Snakefile rules
	snakemake --lint
	codespell
	python -m hesspipe.workflow.stages --check

# After `dvc pull` or `dvc checkout`: let Snakemake take the files as up to date.
adopt: $(VENV)/.installed
	python -m hesspipe.workflow.adopt

# After a new experiment, figure or table in config.yaml.
dvc.yaml: $(VENV)/.installed
	python -m hesspipe.workflow.stages

# After a change of pyproject.toml that needs new versions.
constraints: $(VENV)/.installed
	{ sed -n '/^#/p' envs/constraints.txt; \
	  pip freeze --exclude-editable | sed 's/+cpu$$//'; } > envs/constraints.tmp
	mv envs/constraints.tmp envs/constraints.txt

$(VENV)/.installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt \
	  --editable '.[workflow,dev]'
	touch $@

clean:
	rm -rf .hesspipe .snakemake logs results figures tables metrics claims.json
