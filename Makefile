# `make demo` and `make test` work on a fresh machine: they set up .venv with what constraints.txt pins.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test fuzz kills browser numerics package docs lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/skmimood demo -o demo --overwrite

# With one thread, since the networks of the tests are so small that a second one only costs time.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# Damage 20,000 scans and saved models at random: each must give a result or one of skmimood's own errors (10 minutes).
fuzz: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzzing.py --mutations 20000

# Kill fit, score and saving at 20 random moments each: nothing may be half-written, and what resumes must end in the
# same bytes (5 minutes).
kills: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py --kills 20

# The viewer in a real browser. Chromium comes from the system (`apt-get install chromium`); without it these tests are skipped.
browser: $(VENV)/.installed
	$(INSTALL) --editable '.[browser]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_browser.py

# The tests that compare numbers, by kernels of older processors and with two threads: what is equal but for rounding
# must be so by any of them. Plain `make test` takes the kernels of this machine.
numerics: $(VENV)/.installed
	OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -m numerics
	OMP_NUM_THREADS=2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -m numerics

# The sdist and the wheel of a release, in dist/, and whether they hold what they should and work once installed.
package: $(VENV)/.installed
	rm -rf dist build/wheel
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m build --no-isolation --wheel --outdir build/wheel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/check_package.py

# The documentation, with its examples run, into build/docs; warnings and broken links are errors. An example that has
# not changed is not run again. Without running any: make docs SPHINX="-D plot_gallery=0"
docs: $(VENV)/.installed-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -d build/doctrees -W --keep-going $(SPHINX) docs build/docs
	$(BIN)/python docs/check_links.py build/docs

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# On real scans (see benchmarks/README.md); takes some hours on two CPU cores, and goes on where it was stopped.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks accuracy --data lgg --folds 5 --seeds 0
	$(BIN)/python -m benchmarks accuracy --data ixi-synthetic --folds 5 --seeds 0
	$(BIN)/python -m benchmarks ablation
	test -d runs/ixi || $(BIN)/python -m benchmarks ixi --model runs/ixi
	$(BIN)/python -m benchmarks volume --model runs/ixi
	$(BIN)/python -m benchmarks speed --preset tiny
	$(BIN)/python -m benchmarks speed --preset small --size 160
	$(BIN)/python -m benchmarks scaling
	$(BIN)/python -m benchmarks pareto --data lgg
	$(BIN)/python -m benchmarks report

# torch first and alone: its pin decides whether a CPU build or one with CUDA is taken.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo runs build dist docs/generated docs/auto_examples .pytest_cache .ruff_cache .mypy_cache
