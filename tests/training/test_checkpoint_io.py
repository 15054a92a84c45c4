"""Files that are whole or not there."""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess

import pytest
import torch

from bytelm.errors import CheckpointError
from bytelm.training.checkpoint_io import (
    SafeCheckpointIO,
    checkpoint_path,
    checkpoint_step,
    file_digest,
    last_good_checkpoint,
    remove,
    replacing,
    verify,
    write_digests,
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


def write_folder(folder, step):
    path = checkpoint_path(folder, step)
    path.mkdir()
    for name in ("__0_0.distcp", "__1_0.distcp", "meta.pt"):
        (path / name).write_text(f"{name} of {step}")
    write_digests(path, {file.name: file_digest(file) for file in path.iterdir()})
    return path


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", "meta.pt"])
@pytest.mark.parametrize("damage", ["lost", "cut", "altered"])
def test_folders_of_shards(name, damage, tmp_path):
    for step in (1, 2):
        folder = write_folder(tmp_path, step)
    assert checkpoint_step(last_good_checkpoint(tmp_path, pytest.fail)) == 2
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "lost":
        (folder / name).write_bytes(data[:-1] if damage == "cut" else data[:-1] + b"x")
    lines = []
    assert checkpoint_step(last_good_checkpoint(tmp_path, lines.append)) == 1
    assert f"step-00000002.ckpt/{name}: " in lines[0]
    found = []
    for part in range(3):  # each file is in one part
        with contextlib.suppress(CheckpointError):
            verify(folder, part, 3)
            found.append(part)
    assert len(found) == 2


def test_folders_are_removed_and_checked_as_by_others(tmp_path):
    path = write_folder(tmp_path, 1)
    subprocess.run(["sha256sum", "--check", "--quiet", f"{path.name}.sha256"], cwd=tmp_path, check=True)
    with pytest.raises(CheckpointError, match=r"found shards, expected a file"):
        SafeCheckpointIO().load_checkpoint(path)
    path.with_name(f"{path.name}.sha256").write_text("")
    with pytest.raises(CheckpointError):
        verify(path)
    remove(path)
    write(tmp_path, 3)
    remove(checkpoint_path(tmp_path, 3))
    assert list(tmp_path.iterdir()) == []


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
