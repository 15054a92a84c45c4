"""No code of a file is run: every call that could is on a list, with its reason; and what is installed is pinned."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bytelm"

MODULES = {
    *{"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "dbm", "code", "codeop", "runpy", "ctypes"},
    *{"subprocess", "tarfile", "zipfile", "imp", "pdb", "pty", "xmlrpc", "zipimport"},
}
"""Modules that run, load or unpack something: their import is looked at."""

CALLS = {
    *{"eval", "exec", "compile", "__import__", "import_module"},
    *{"torch.load", "torch.hub.load", "torch.jit.load", "torch.ops.load_library", "torch.classes.load_library"},
    *{"torch.package.PackageImporter", "torch.hub.load_state_dict_from_url", "cpp_extension.load"},
    *{"np.load", "numpy.load", "np.lib.format.read_array", "pd.read_pickle", "read_pickle"},
    *{"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all"},
    *{"os.system", "os.popen", "os.startfile", "shutil.unpack_archive", "extractall", "extract"},
    *{"all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list", "recv_object_list"},
    *{"load_from_checkpoint", "load_dataset", "load_dataset_builder", "hf_hub_download", "snapshot_download"},
    *{"AutoModel.from_pretrained", "AutoConfig.from_pretrained", "AutoTokenizer.from_pretrained"},
    *{"AutoModelForCausalLM.from_pretrained", "FileSystemReader", "dcp.load", "jinja2.Template"},
}
"""Calls, by the end of their dotted name."""

PREFIXES = ("os.exec", "os.spawn", "os.posix_spawn")
KEYWORDS = {"trust_remote_code", "allow_pickle", "weights_only", "shell"}

ALLOWED = {
    "benchmarks/coders.py: import_module": "names of packages that stand in the code",
    "benchmarks/rival_models.py: import_module": "a name that stands in the code",
    "benchmarks/training_rivals.py: import_module": "names that stand in the code",
    "benchmarks/decoding_rivals.py: import_module": "a name that stands in the code",
    "encoding/kernels.py: import_module": "the package's own core",
    "nn/native.py: import_module": "the package's own core",
    "nn/elementwise.py: import_module": "the package's own core",
    "training/row_adamw.py: import_module": "the package's own core",
    "nn/four_bit.py: import_module": "a name that stands in the code",
    "hf/modeling_bytelm.py: import_module": "a name that stands in the code",
    "hf/registration.py: import_module": "modules of this package",
    "hub/int8.py: import_module": "a name that stands in the code",
    "corpus/default_text.py: yaml.load": "a file of this package, with SafeLoader",
    "cli/config_errors.py: yaml.load": "with a subclass of SafeLoader",
    "corpus/hub_datasets.py: load_dataset": "from datasets 4 on, which has no code of data sets",
    "corpus/hub_datasets.py: load_dataset_builder": "as load_dataset",
    "hub/source.py: snapshot_download": "files are fetched, into the cache; none is run",
    "hub/tensor_files.py: import pickle": "for the name of its error",
    "hub/tensor_files.py: import zipfile": "lists records and reads one, which is compared with a word",
    "hub/tensor_files.py: torch.load": "weights_only",
    "hub/tensor_files.py: weights_only=True": "",
    "cli/lightning.py: import pickle": "for the name of its error",
    "cli/lightning.py: import zipfile": "asks whether a file is an archive",
    "training/checkpoint_io.py: torch.load": "weights_only",
    "training/checkpoint_io.py: weights_only=True": "",
    "training/shard_reader.py: import pickle": "an unpickler that knows plain data alone",
    "training/shard_reader.py: torch.load": "weights_only",
    "training/shard_reader.py: weights_only=True": "",
    "training/sharding.py: dcp.load": "with the reader and the planner of shard_reader.py",
    "training/sharding.py: torch.load": "weights_only",
    "training/sharding.py: weights_only=True": "",
    "training/run_record.py: import subprocess": "git, with arguments that stand in the code",
    "training/parallel.py: all_gather_object": "between the processes of one run",
    "training/parallel.py: broadcast_object_list": "between the processes of one run",
}
"""What may be there, and why that is safe."""


def dotted(node):
    """The dotted name of an expression, as far as it has one."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def found_in(tree):
    """What of the lists above is in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in MODULES:
                yield f"import {node.module}"
            full = {f"{node.module}.{alias.name}" for alias in node.names} & CALLS
            yield from full | {alias.name for alias in node.names if alias.asname and alias.name in CALLS}
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            yield from (call for call in CALLS if name == call or (name.endswith(f".{call}") and call not in _OWN))
            yield from ([name] if name.startswith(PREFIXES) else [])
            for keyword in node.keywords:
                if keyword.arg in KEYWORDS:
                    yield f"{keyword.arg}={ast.unparse(keyword.value)}"
        elif isinstance(node, ast.Dict):
            names = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            yield from (f"{name} in a dict" for name in names if name in KEYWORDS)


_OWN = {"compile", "eval", "exec"}
"""Built-ins: other things have methods of these names."""


def audited():
    return {
        f"{path.relative_to(PACKAGE).as_posix()}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for what in found_in(ast.parse(path.read_text(encoding="utf-8")))
    }


def test_what_could_run_code_is_on_the_list():
    assert sorted(audited() - ALLOWED.keys()) == []


def test_the_list_has_nothing_that_is_gone():
    assert sorted(ALLOWED.keys() - audited()) == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("torch.load(x)", "torch.load"),
        ("import pickle", "import pickle"),
        ("from pickle import loads", "import pickle"),
        ("eval('1')", "eval"),
        ("np.load(x, allow_pickle=True)", "allow_pickle=True"),
        ("f(trust_remote_code=flag)", "trust_remote_code=flag"),
        ("f(**{'trust_remote_code': True})", "trust_remote_code in a dict"),
        ("os.execvp(a, b)", "os.execvp"),
        ("importlib.import_module(x)", "import_module"),
        ("transformers.AutoModel.from_pretrained(x)", "AutoModel.from_pretrained"),
        ("from torch import load", "torch.load"),
        ("yaml.load(x, Loader)", "yaml.load"),
        ("archive.extractall()", "extractall"),
    ],
)
def test_the_audit_notices(code, what):
    assert what in set(found_in(ast.parse(code)))


@pytest.mark.parametrize("code", ["re.compile(x)", "model.eval()", "torch.compile(f)", "yaml.safe_load(x)"])
def test_the_audit_leaves_alone(code):
    assert set(found_in(ast.parse(code))) == set()


def test_loaders_of_yaml_are_safe():
    """What ``yaml.load`` is given where the list above says so."""
    import yaml

    from bytelm.cli.config_errors import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.getcwd []", _Loader)


class TestPins:
    """``constraints.txt`` has one version of each package that ``pyproject.toml`` names, extras included."""

    PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    PINS = dict(line.split("==") for line in LINES if line and not line.startswith("#"))

    def named(self):
        extras = self.PROJECT["optional-dependencies"]
        for where, lines in {"dependencies": self.PROJECT["dependencies"], **extras}.items():
            for line in lines:
                yield where, Requirement(line)

    def test_each_is_pinned_to_a_version_that_is_asked_for(self):
        for where, wanted in self.named():
            pins = {canonicalize_name(name): version for name, version in self.PINS.items()}
            name = canonicalize_name(wanted.name)
            if name == "bytelm":
                continue
            assert name in pins, f"{where}: {wanted} has no pin in constraints.txt"
            assert wanted.specifier.contains(pins[name]), f"{where}: {wanted}, but the pin is {pins[name]}"

    def test_pins_are_exact_and_stand_once(self):
        lines = [line for line in self.LINES if line and not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+", line) for line in lines)
        names = [canonicalize_name(line.split("==")[0]) for line in lines]
        assert len(set(names)) == len(names)

    def test_the_extras(self):
        extras = set(self.PROJECT["optional-dependencies"])
        assert {"hf", "eval", "quant", "serve", "notebooks", "dev", "bench", "remote", "datasets", "fuzz"} <= extras

    def test_python_versions(self):
        assert self.PROJECT["requires-python"] == ">=3.11"
        classifiers = self.PROJECT["classifiers"]
        for minor in (11, 12, 13):
            assert f"Programming Language :: Python :: 3.{minor}" in classifiers
        assert "Typing :: Typed" in classifiers
