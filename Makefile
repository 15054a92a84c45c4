# Two commands: `make demo` runs the whole path, `make test` runs every check and test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check slow fuzz format clean

demo: $(INSTALLED)
	$(BIN)/bytelm demo --out demo-out

# A thread for each of two workers, which begin with half of the tests each and share what is left of the slower half.
test: check
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow

# Ten minutes of coverage-guided fuzzing of the encodings against the reference coders.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz_encodings.py -max_total_time=600 -print_final_stats=1 -rss_limit_mb=0

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone: its pin is the CPU build, and nothing after it may ask for another.
$(INSTALLED): pyproject.toml constraints.txt bytelm/encoding/_kernel.c bytelm/nn/_rows.c
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "bytelm needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo-out build *.egg-info
