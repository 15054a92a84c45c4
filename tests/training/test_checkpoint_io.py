"""Files that are whole or not there."""

import contextlib
import errno
import hashlib
import os
import shutil

import pytest
import torch

from bytelm.errors import CheckpointError
from bytelm.training.checkpoint_io import (
    SafeCheckpointIO,
    checkpoint_path,
    checkpoint_step,
    last_good_checkpoint,
    remove,
    replacing,
)

STATE = {"weights": torch.arange(3000.0), "step": 3}


def write(folder, *steps):
    for step in steps:
        SafeCheckpointIO().save_checkpoint({**STATE, "step": step}, checkpoint_path(folder, step))


def test_what_is_written_is_read(tmp_path):
    path = checkpoint_path(tmp_path / "new", 3)
    write(tmp_path / "new", 3)
    assert sorted(p.name for p in path.parent.iterdir()) == ["step-00000003.ckpt", "step-00000003.ckpt.sha256"]
    line = (tmp_path / "new" / "step-00000003.ckpt.sha256").read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  step-00000003.ckpt\n"
    read = SafeCheckpointIO().load_checkpoint(path)
    assert torch.equal(read["weights"], STATE["weights"])
    assert checkpoint_step(path) == 3
    SafeCheckpointIO().remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def alter(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def lose_digest(path):
    path.with_name(f"{path.name}.sha256").unlink()


def exchange(path):
    shutil.copy(path.parent / "step-00000008.ckpt", path)


@pytest.mark.parametrize("damage", [cut, alter, empty, lose_digest, exchange])
def test_damage_is_found_and_the_one_before_is_used(damage, tmp_path):
    write(tmp_path, 8, 9, 10)
    lines = []
    assert checkpoint_step(last_good_checkpoint(tmp_path, lines.append)) == 10
    assert lines == []
    damage(checkpoint_path(tmp_path, 10))
    assert checkpoint_step(last_good_checkpoint(tmp_path, lines.append)) == 9
    (line,) = lines
    assert "step-00000010.ckpt" in line
    assert line.endswith("; step-00000009.ckpt before it is used")
    if damage is not lose_digest:
        with pytest.raises(CheckpointError, match=r"step-00000010\.ckpt: torn or altered: found SHA-256"):
            SafeCheckpointIO().load_checkpoint(checkpoint_path(tmp_path, 10))


def test_no_good_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"found no good checkpoint, expected one to go on from$"):
        last_good_checkpoint(tmp_path, pytest.fail)
    write(tmp_path, 1, 2)
    for step in (1, 2):
        alter(checkpoint_path(tmp_path, step))
    with pytest.raises(CheckpointError, match=r"good checkpoint \(of 2 .*step-00000002\.ckpt: torn or altered"):
        last_good_checkpoint(tmp_path, pytest.fail)


def test_folders_of_shards(tmp_path):
    for step in (1, 2):
        folder = checkpoint_path(tmp_path, step)
        folder.mkdir()
        (folder / "meta.pt").touch()
    assert checkpoint_step(last_good_checkpoint(tmp_path, pytest.fail)) == 2
    (folder / "meta.pt").unlink()
    lines = []
    assert checkpoint_step(last_good_checkpoint(tmp_path, lines.append)) == 1
    assert "step-00000002.ckpt: torn: found no meta.pt" in lines[0]
    remove(checkpoint_path(tmp_path, 1))
    write(tmp_path, 3)
    remove(checkpoint_path(tmp_path, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002.ckpt"]


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 100, 5000, 12_000])
def test_a_full_disk_is_named_whatever_torch_makes_of_it(room, tmp_path, monkeypatch):
    write(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    from bytelm.training import checkpoint_io

    made = checkpoint_io._HashedFile
    monkeypatch.setattr(checkpoint_io, "_HashedFile", lambda file: made(Full(file, room)))
    with pytest.raises(CheckpointError, match=r"00000002\.ckpt: cannot be written: No space left on device$"):
        write(tmp_path, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), replacing(path) as file:
        file.write(b"ne")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
