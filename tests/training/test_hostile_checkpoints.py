"""Checkpoints that ask for code to be run, or name files of others: refused in one line, and nothing is run.

Each trap is sprung once by the reader of the library, so that it is known to be one.
"""

import contextlib
import http.server
import os
import pickle
import threading
import warnings
from pathlib import Path

import lightning
import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from bytelm.errors import CheckpointError
from bytelm.training.checkpoint_io import SafeCheckpointIO, verify
from bytelm.training.export import export_checkpoint
from bytelm.training.shard_reader import INDEX_FILE
from bytelm.training.sharding import META_FILE, read_shards

WEIGHTS = {"w": torch.arange(6.0), "n": torch.ones(3)}


class Trap:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def made(tmp_path):
    return tmp_path / "made"


def sprung(made):
    """Whether the trap was sprung; it is set again."""
    found = made.exists()
    if found:
        made.rmdir()
    return found


def refused(action, *parts):
    with pytest.raises(CheckpointError) as caught:
        action()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def alone(monkeypatch):
    """Reading and writing shards in one process warns that it is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process.*")
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        yield


@pytest.mark.parametrize("asked", [None, False, True])
def test_a_file(tmp_path, made, asked, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": Trap(made)}, path)
    with pytest.raises(pickle.UnpicklingError):
        SafeCheckpointIO().load_checkpoint(path, weights_only=asked)
    assert not sprung(made)
    refused(lambda: export_checkpoint(path, tmp_path / "out"), str(path), "mkdir, which was not run")
    assert not sprung(made)
    TorchCheckpointIO().load_checkpoint(path, weights_only=False)
    assert sprung(made)


def test_a_file_behind_an_address(tmp_path, made, monkeypatch):
    """Lightning trusts what comes from the network, of all places."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    torch.save({"state_dict": Trap(made)}, tmp_path / "x.ckpt")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/x.ckpt"
        try:
            with pytest.raises(pickle.UnpicklingError):
                SafeCheckpointIO().load_checkpoint(url)
            assert not sprung(made)
            TorchCheckpointIO().load_checkpoint(url)
            assert sprung(made)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def shards(tmp_path, alone):
    """A folder of shards that can be read."""
    folder = tmp_path / "step-00000001.ckpt"
    folder.mkdir()
    dcp.save(dict(WEIGHTS), storage_writer=dcp.FileSystemWriter(folder))
    return folder


def read(folder):
    found = {name: torch.zeros_like(tensor) for name, tensor in WEIGHTS.items()}
    read_shards(folder, found)
    return found


def read_as_torch_does(folder):
    dcp.load({name: torch.zeros_like(tensor) for name, tensor in WEIGHTS.items()}, checkpoint_id=folder)


def change_index(folder, change):
    path = folder / INDEX_FILE
    index = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(index)))


def test_good_shards(shards):
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in read(shards).items())


@pytest.mark.parametrize("where", ["alone", "in the index", "in a name"])
def test_an_index_of_shards(shards, made, where):
    def change(index):
        if where == "alone":
            return Trap(made)
        if where == "in a name":
            index.state_dict_metadata["w"].properties = Trap(made)
            return index
        index.planner_data = {"w": Trap(made)}
        return index

    change_index(shards, change)
    refused(lambda: read(shards), str(shards / INDEX_FILE), "refused: it asks for", "mkdir, which was not run")
    assert not sprung(made)
    with contextlib.suppress(Exception, CheckpointException):
        read_as_torch_does(shards)
    assert sprung(made)


def test_a_value_in_shards(tmp_path, made, alone):
    folder = tmp_path / "shards"
    folder.mkdir()
    dcp.save({"value": Trap(made)}, storage_writer=dcp.FileSystemWriter(folder))
    sprung(made)
    refused(lambda: read_shards(folder, {"value": 0}), str(folder))
    assert not sprung(made)
    dcp.load({"value": 0}, checkpoint_id=folder)
    assert sprung(made)


def test_plain_values_in_shards(tmp_path, alone):
    folder = tmp_path / "shards"
    folder.mkdir()
    state = {"groups": {"lr": 1e-3, "betas": (0.9, 0.95), "fused": None, "name": "x"}, "step": torch.tensor(3.0)}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder))
    found = {"groups": {"lr": 0.0, "betas": (), "fused": 1, "name": ""}, "step": torch.tensor(0.0)}
    read_shards(folder, found)
    assert found == state


@pytest.mark.parametrize("name", ["../outside.distcp", "/etc/passwd", "", "..", "a/b", "a\\b", 3])
def test_an_index_that_names_other_files(shards, name):
    def change(index):
        next(iter(index.storage_data.values())).relative_path = name
        return index

    change_index(shards, change)
    refused(lambda: read(shards), f"names the file {name!r}, expected one beside the index")


def test_a_shard_that_is_a_link(shards, tmp_path):
    shard = next(shards.glob("*.distcp"))
    shard.rename(tmp_path / "outside")
    shard.symlink_to(tmp_path / "outside")
    refused(lambda: read(shards), f"names the file {shard.name!r}, expected one beside the index")


@pytest.mark.parametrize("content", [b"", b"\x80", pickle.dumps([1]), pickle.dumps(Metadata({}))])
def test_an_index_that_is_none(shards, content):
    (shards / INDEX_FILE).write_bytes(content)
    refused(lambda: read(shards), str(shards / INDEX_FILE), "expected the index of shards")


def test_no_index(shards):
    (shards / INDEX_FILE).unlink()
    refused(lambda: read(shards), str(shards / INDEX_FILE), "No such file")


def test_what_lies_beside_shards(shards, made, tmp_path):
    torch.save({"global_step": Trap(made)}, shards / META_FILE)
    refused(lambda: export_checkpoint(shards, tmp_path / "out"), str(shards / META_FILE), "which was not run")
    assert not sprung(made)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".."])
def test_digests_of_other_files(shards, name):
    shards.with_name(f"{shards.name}.sha256").write_text(f"{'0' * 64}  {shards.name}/{name}\n")
    refused(lambda: verify(shards), f"names '{shards.name}/{name}', expected files of {shards.name}")


def test_the_version_of_lightning_still_has_the_trap_in_its_strategies():
    """If this fails, Lightning reads shards safely, and ``_check_strategy`` may go."""
    assert "checkpoint_id=path" in Path(lightning.fabric.strategies.fsdp.__file__).read_text(encoding="utf-8")
