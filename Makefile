# make quick   Figures 1 and 2, and the spectrum of an own network: two minutes on 2 cores
# make paper   every figure and table, from scratch, offline once the packages are installed
# make test    every check and test, in PROCESSES=2 processes
SHELL := bash
PYTHON ?= python3
CORES ?= all
PROCESSES ?= 2
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Python compiles a module when it is first imported, and keeps it, also where the environment says
# not to: pip would compile 20,000 modules, of which few are imported, for a minute.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := -m pip install --quiet --no-compile --constraint envs/constraints.txt

.PHONY: quick paper report verify gpu test suite test-faults test-cluster mutants checks example docs adopt benchmarks gallery constraints clean

# The networks of both figures at full scale: 6 trainings of 5,000 steps, and 12 spectra of 4,022 to
# 5,510 eigenvalues; then a network of your own. What is there already is not computed again.
quick: $(VENV)/.installed
	@echo "Figures 1 and 2 of the paper: 6 networks are trained, and all eigenvalues computed."
	snakemake --cores $(CORES) --quiet host reason rules -- figures/fig1.pdf figures/fig2.pdf
	@echo "A network of your own: examples/own_network.py"
	python examples/own_network.py
	@echo "Look at figures/fig1.png, figures/fig2.png and own_spectrum.png."
	@echo "Next: examples/own_network.ipynb, docs/your_network.md for your model, and make paper."

paper: $(VENV)/.installed
	snakemake --cores $(CORES)

# One HTML file with every figure, table and verdict, which works offline; after `make paper`.
report: $(VENV)/.installed
	snakemake --cores $(CORES) --report report.html

# Every stored result against damage, and against the present configuration and code: seconds.
verify: $(VENV)/.installed
	python -m hesspipe.workflow.verify

# The checks take one core for a minute, in which the first tests run.
test: $(VENV)/.installed-zoo
	$(MAKE) --jobs 2 checks suite

# One thread each: another number of threads has other last bits, and more threads than cores wait.
# A file's tests stay in one process, where its fixtures are made once.
suite: $(VENV)/.installed-zoo
	OMP_NUM_THREADS=1 pytest -W error --numprocesses $(PROCESSES) --dist loadfile \
	  --no-loadscope-reorder

# Kills, full disks, damaged files, wrong configurations, two processes at once: 15 minutes. Results
# are kept in .faults/ and used again until the code changes.
SEED ?= 0
test-faults: $(VENV)/.installed
	python tests/faults --seed $(SEED) --processes $(PROCESSES)

# What happens to jobs on Slurm: some minutes. Three processes, each with a Slurm of two virtual nodes,
# as most of the time is spent on waiting. Needs slurmd and munged, Debian's packages slurm-wlm and
# munge; skipped without. Tests of accounts need mariadb-server, slurmdbd and slurm-wlm-mysql-plugin
# as well.
test-cluster: $(VENV)/.installed
	python $(PIP_INSTALL) --editable '.[slurm]'
	OMP_NUM_THREADS=1 pytest -W error --numprocesses 3 --dist load --maxschedchunk 1 \
	  tests/cluster/test_slurm.py tests/cluster

# Small changes of the code that a test should notice: a random sample of SAMPLE=400, or SAMPLE=all.
# Some seconds each; results are kept in .mutants/ and used again.
SAMPLE ?= 400
mutants: $(VENV)/.installed-zoo
	OMP_NUM_THREADS=1 python benchmarks/mutants --sample $(SAMPLE) --processes $(PROCESSES)

# Checks, times and two figures on a GPU, in at most 8 minutes; results in OUT. Nothing is installed:
# PYTHON is an interpreter with a torch for the GPU. See docs/gpu.md.
OUT ?= gpu_results
gpu:
	$(PYTHON) benchmarks/gpu --out $(OUT) $(if $(DATASET),--dataset $(DATASET))

checks: $(VENV)/.installed-zoo
	ruff check .
	ruff format --check .
	mypy --strict hesspipe scripts
	snakefmt --check Snakefile rules
	snakemake --lint
	lint-imports
	codespell

# A transformer with 1.3 million parameters: densities, extreme eigenpairs, figures.
example: $(VENV)/.installed
	snakemake --cores $(CORES) --directory examples/transformer

# The documentation as HTML, in docs/_build; a warning is an error.
docs: $(VENV)/.installed
	python -m sphinx -W --keep-going -b html docs docs/_build

# After `dvc pull` or `dvc checkout`, to see which files are adopted and which are set aside. Every
# other call of Snakemake does the same.
adopt: $(VENV)/.installed
	snakemake --dry-run --quiet all

# Side by side with curvlinops, hessian-eigenthings and PyHessian, in a separate environment.
benchmarks: .venv-benchmarks/.installed
	.venv-benchmarks/bin/python benchmarks/dense_hessian.py
	.venv-benchmarks/bin/python benchmarks/exact_spectra.py
	.venv-benchmarks/bin/python benchmarks/wrong_answers.py
	.venv-benchmarks/bin/python benchmarks/eigenpairs.py
	.venv-benchmarks/bin/python benchmarks/matrix_free.py
	.venv-benchmarks/bin/python benchmarks/real_networks.py
	.venv-benchmarks/bin/python benchmarks/sharded.py

.venv-benchmarks/.installed: pyproject.toml envs/constraints.txt envs/benchmarks.txt
	$(PYTHON) -m venv .venv-benchmarks
	.venv-benchmarks/bin/python $(PIP_INSTALL) --editable '.[workflow,zoo]'
	.venv-benchmarks/bin/python $(PIP_INSTALL) --no-deps --requirement envs/benchmarks.txt
	touch $@

# The figures and tables that the README and the documentation show.
gallery:
	mkdir -p docs/gallery
	cp figures/*.png docs/gallery/
	$(VENV)/bin/python -m hesspipe.workflow.pages README.md docs/*.md

# After a change of pyproject.toml that needs new versions.
constraints: $(VENV)/.installed-zoo
	{ sed -n '/^#/p' envs/constraints.txt; \
	  pip freeze --exclude-editable | sed 's/+cpu$$//'; } > envs/constraints.tmp
	mv envs/constraints.tmp envs/constraints.txt

$(VENV)/.installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --editable '.[workflow,dev,docs]'
	touch $@

# With the networks of other packages, with which the tests compare; no figure needs them.
$(VENV)/.installed-zoo: pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --editable '.[workflow,dev,docs,zoo]'
	touch $(VENV)/.installed $@

clean:
	rm -rf .hesspipe .snakemake logs results figures tables metrics claims claims.json report.html docs/_build own_spectrum.png
