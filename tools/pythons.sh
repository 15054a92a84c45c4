#!/usr/bin/env bash
# Install into an environment of each version of Python and run quick tests there: make pythons.
# PYTHONS="python3.12" for other versions, TESTS="tests/encoding" for other tests, FOLDER for where environments are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONS=${PYTHONS:-python3.11 python3.12 python3.13}
TESTS=${TESTS:-tests/encoding tests/tokenizer tests/nn tests/heads tests/model tests/decoding tests/hub tests/cli/test_cli_process.py tests/test_config.py tests/test_security.py}
FOLDER=${FOLDER:-build/pythons}

for python in $PYTHONS; do
    venv=$FOLDER/$python
    echo "== $("$python" --version)"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt torch
    # Not editable: what is tested is what is installed, with the core that this version of Python builds.
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt --force-reinstall --no-deps .
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt '.[dev]'
    # -P: the checkout is not the package. Without the modules of the tests, their imports would not be found.
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$venv/bin/python" -P -m pytest -q -p no:cacheprovider $TESTS
done
