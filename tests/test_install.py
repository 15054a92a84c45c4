"""What a user installs: the wheels and the sources, without a compiler too, typed, and quick to import."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "transformers",
    "lightning",
    "matplotlib",
    "pyarrow",
    "datasets",
    "huggingface_hub",
    "pandas",
    "scipy",
}

PROGRAM = '''
"""What a user writes: mypy --strict reads the types of the installed package."""

import numpy as np
from numpy.typing import NDArray

import bytelm
from bytelm.corpus import Corpus, Manifest
from bytelm.encoding import Encoding
from bytelm.hub import GenerationOptions, LanguageModel, Output, Scores, model_card, push


def encode(text: str) -> NDArray[np.uint8]:
    encoding: Encoding = bytelm.get_encoding("dense-ja")
    return encoding.encode(text)


def use(folder: str) -> list[str]:
    lm: LanguageModel = bytelm.load(folder)
    out: Output = lm.generate(["a"], max_new_tokens=3, stop=["."])
    scores: Scores = lm.score(["a"], law="next")
    bits: float = scores[0].bits_per_byte
    options = GenerationOptions(max_new_tokens=2)
    manifest: Manifest = Corpus.open(folder).manifest
    print(bits, options.seed, manifest.bytes, push, model_card)
    for piece in lm.stream("a"):
        print(piece.upper())
    return out.texts


reveal_type(encode("a"))
reveal_type(bytelm.load("a").generate(["a"]).texts)
'''


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTED = "import sys; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"


@pytest.mark.parametrize(
    "code",
    [
        "import bytelm",
        "import bytelm; bytelm.get_encoding('dense-ja').encode('月'); bytelm.Tokenizer; bytelm.EncodingView",
        "from bytelm.cli import main; assert main(['--help']) == 0",
        "from bytelm.cli import main; assert main(['encoding', 'show', '月']) == 0",
        "from bytelm.cli import main; assert main(['corpus', 'build', '--help']) == 0",
        "from bytelm.cli import main; assert main(['push', '--help']) == 0",
    ],
)
def test_what_imports_nothing_heavy(code):
    found = python(f"{code}\n{IMPORTED}").splitlines()[-1].split()
    assert HEAVY & set(found) == set()


def test_what_is_heavy_would_be_noticed():
    assert "torch" in python(f"import bytelm; bytelm.load\n{IMPORTED}").split()


def test_the_time_of_the_import():
    """Under 0.3 s on a machine that does nothing else; `tools/import_time.py` prints it. Here with much to spare."""
    code = "import time; began = time.process_time(); import bytelm; print(time.process_time() - began)"
    assert min(float(python(code)) for _ in range(3)) < 1.5


def test_names_of_the_package_are_listed():
    names = python("import bytelm; print(*dir(bytelm)); bytelm.load; print(*dir(bytelm))").split()
    assert {"load", "get_encoding", "LanguageModel", "Tokenizer"} <= set(names)


def test_every_data_file_goes_into_a_wheel():
    """Patterns of pyproject.toml against the files of the repository."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["bytelm"]
    taken = {path for pattern in patterns for path in (ROOT / "bytelm").glob(pattern)}
    listed = subprocess.run(["git", "ls-files", "bytelm"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {ROOT / name for name in listed.stdout.split() if not name.endswith((".py", ".c", ".h"))}
    assert len(files) > 4
    assert files - taken == set()
    packages = {
        ROOT / name.replace(".", "/")
        for name in find_packages(str(ROOT), include=settings["packages"]["find"]["include"])
    }
    modules = {(ROOT / name).parent for name in listed.stdout.split() if name.endswith(".py")}
    assert modules - packages == set()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What `make dist` builds."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([*build, "--wheel"], check=True, capture_output=True, env={**os.environ, "BYTELM_NATIVE": "0"})
    return folder


def find(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture
def environment(tmp_path):
    """Makes environments with the packages of this one but for bytelm; the interpreter of each."""

    def make(name):
        venv.create(tmp_path / name, with_pip=True)
        interpreter = tmp_path / name / "bin" / "python"
        # That of Python 3.11 is older than the one we ask for, which is among the others.
        subprocess.run([interpreter, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"], check=True)
        place = subprocess.run(
            [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        # Paths in a .pth file are searched last, and .pth files there, as of an editable bytelm, are not read.
        (Path(place) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return interpreter

    return make


def install(interpreter, path, **changes):
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", str(path)]
    subprocess.run(pip, check=True, env={**_environment(), **changes}, cwd=interpreter.parent)


def _environment():
    """That of this process; PYTHONPATH may name a checkout, which is not what is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


WORKS = """
import bytelm, bytelm.cli, importlib.util, pathlib, sys
from bytelm.corpus.default_text import default_texts
assert "site-packages" in bytelm.__file__, bytelm.__file__
for name in ("dense-ja", "dense-mul", "utf8"):
    encoding = bytelm.get_encoding(name)
    assert encoding.decode(encoding.encode("月の船")) == "月の船"
assert bytelm.cli.main(["encoding", "list"]) == 0
assert pathlib.Path(bytelm.__file__).with_name("py.typed").is_file()
CORES = ("bytelm.encoding._kernel", "bytelm.nn._rows", "bytelm.nn._elementwise", "bytelm.training._row_adamw")
print("cores:", sum(importlib.util.find_spec(n) is not None for n in CORES))
"""


def cores(interpreter):
    code = [interpreter, "-P", "-c", WORKS]
    done = subprocess.run(code, capture_output=True, text=True, cwd=interpreter.parent, env=_environment())
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("cores: ")[1])


@pytest.mark.slow
def test_wheels_and_sources(built):
    check = [sys.executable, str(ROOT / "tools" / "check_wheels.py"), str(built)]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_no_compiler_is_needed(built, environment):
    """The wheel for every platform, and the sources where the compiler is none."""
    pure, bare, full = environment("pure"), environment("bare"), environment("full")
    install(pure, find(built, "*-none-any.whl"))
    assert cores(pure) == 0
    install(bare, find(built, "*.tar.gz"), CC="/bin/false", CXX="/bin/false")
    assert cores(bare) == 0
    install(full, find(built, "*.tar.gz"))
    assert cores(full) == 4


@pytest.mark.slow
def test_a_typed_program(built, environment, tmp_path):
    interpreter = environment("typed")
    install(interpreter, find(built, "*-none-any.whl"))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(interpreter), str(program)]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Revealed type is "list[str]"' in done.stdout.replace("builtins.", "")
    program.write_text(PROGRAM.replace('law="next"', "law=3"))
    wrong = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert 'Argument "law"' in wrong.stdout


@pytest.mark.slow
def test_wheels_say_what_they_need(built):
    with zipfile.ZipFile(find(built, "*-none-any.whl")) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        text = archive.read(name).decode()
    assert "Requires-Python: >=3.11" in text
    for extra in ("hf", "eval", "quant", "serve", "notebooks", "dev"):
        assert f"Provides-Extra: {extra}\n" in text
    assert "License-Expression: Apache-2.0" in text
