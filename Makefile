# Two commands: `make demo` runs the whole path, `make test` runs every check and test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check docs slow fuzz transformers format dist pythons audit clean

demo: $(INSTALLED)
	$(BIN)/bytelm demo --out demo-out

# A thread for each of two workers, which begin with half of the tests each and share what is left of the slower half.
# Notebooks run at tiny settings (notebooks/conftest.py).
test: check
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal --nbmake tests notebooks

check: $(INSTALLED) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in build/docs: guides, commands and the API from the docstrings; a warning is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

slow: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow

# Ten minutes of coverage-guided fuzzing of the encodings against the reference coders.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz_encodings.py -max_total_time=600 -print_final_stats=1 -rss_limit_mb=0

# Exported folders under the oldest and the newest transformers, each in an environment of its own without bytelm.
transformers: $(INSTALLED)
	$(BIN)/python tests/transformers_interop/environments.py
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow tests/transformers_interop

# Into dist/: the sources, a wheel with the native cores for this platform, and one without them for every other.
dist: $(INSTALLED)
	rm -rf dist build
	$(BIN)/python -m build --no-isolation --outdir dist .
	BYTELM_NATIVE=0 $(BIN)/python -m build --no-isolation --wheel --outdir dist .
	$(BIN)/python tools/check_wheels.py dist

# Quick tests with the other versions of Python that are supported, each in an environment of its own: minutes.
pythons:
	tools/pythons.sh

# Known vulnerabilities of what is installed. Status 1: there are some; 75: the database could not be asked.
audit: $(INSTALLED)
	$(BIN)/python tools/audit.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone: its pin is the CPU build, and nothing after it may ask for another.
$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard bytelm/*/*.c bytelm/*/*.h)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "bytelm needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info
