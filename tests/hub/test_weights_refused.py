"""Files of weights that are cut, altered, hostile, or do not belong together: one clear line each, and no code run."""

import builtins
import io
import json
import os
import pickle
import zipfile

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file

from bytelm.errors import CheckpointError
from bytelm.hub.json_files import read_config, read_json
from bytelm.hub.weights import open_weights

FIRST, SECOND, LAST = torch.arange(6.0).reshape(2, 3), torch.ones(5, dtype=torch.float16), torch.arange(4)
STATE = {"first": FIRST, "last": LAST, "second": SECOND}


def read_all(folder):
    found = open_weights(folder)
    return {name: found.read(name) for name in found.names}


def one_line(error):
    assert "\n" not in str(error)


def refused(folder, match):
    """The folder is refused with one line that names a path in it."""
    with pytest.raises(CheckpointError, match=match) as caught:
        read_all(folder)
    one_line(caught.value)
    assert str(caught.value).startswith(str(folder))


def write_index(folder, places, whole="model.safetensors"):
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def write_safetensors(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def entry(dtype="F32", shape=(2,), span=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


class TestFolders:
    def test_no_folder_and_no_weights(self, tmp_path):
        refused(tmp_path / "absent", "no such folder, expected one with model.safetensors or pytorch_model.bin")
        refused(
            tmp_path,
            r"no weights, expected one of model\.safetensors, model\.safetensors\.index\.json, pytorch_model\.bin,"
            r" pytorch_model\.bin\.index\.json",
        )
        (tmp_path / "model.safetensors").mkdir()
        refused(tmp_path, r"model\.safetensors: cannot be read: Is a directory")

    def test_a_tensor_that_is_not_there(self, tmp_path):
        save_file(STATE, tmp_path / "model.safetensors")
        found = open_weights(tmp_path)
        for ask in (found.read, found.shape, found.dtype, found.where, found.alias):
            with pytest.raises(CheckpointError, match="no tensor 'third' in its 3 tensors"):
                ask("third")

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    def test_a_pointer_of_git_lfs(self, tmp_path, name):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 24\n")
        refused(tmp_path, "found a pointer of Git LFS, expected the weights")

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    def test_a_file_that_changes_while_it_is_open(self, tmp_path, name):
        path = tmp_path / name
        write = save_file if name.startswith("model") else torch.save
        write(STATE, path)
        found, size, when = open_weights(tmp_path), path.stat().st_size, path.stat().st_mtime_ns
        os.utime(path, ns=(when, when + 1))
        with pytest.raises(CheckpointError, match=f"{name}: changed while it was being read"):
            found.read("second")
        os.truncate(path, size // 2)
        os.utime(path, ns=(when, when))
        with pytest.raises(CheckpointError, match=f"{name}: tensor '(last|second)' cannot be read: the file ends"):
            [found.read(name) for name in found.names]
        path.unlink()
        with pytest.raises(CheckpointError, match="tensor 'second' cannot be read: No such file"):
            found.read("second")

    def test_configs(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"absent: no such folder, expected one with config\.json"):
            read_config(tmp_path / "absent")
        with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
            read_config(tmp_path)
        for text, match in (
            ("[1]", "found a list, expected a JSON object"),
            ("{", "not readable as JSON"),
            ("[" * 100_000, "not readable as JSON"),
        ):
            (tmp_path / "config.json").write_text(text)
            with pytest.raises(CheckpointError, match=match):
                read_config(tmp_path)
        (tmp_path / "config.json").write_text('{"n_embd": 16}')
        assert read_config(tmp_path) == read_json(tmp_path / "config.json") == {"n_embd": 16}


class TestSafetensors:
    def test_cut_at_every_byte(self, tmp_path):
        whole = save(STATE)
        header = 8 + int.from_bytes(whole[:8], "little")
        places = json.loads(whole[8:header])
        ends = sorted((place["data_offsets"][1], name) for name, place in places.items())
        for keep in range(len(whole)):
            (tmp_path / "model.safetensors").write_bytes(whole[:keep])
            if keep < 8:
                refused(tmp_path, "no safetensors header")
            elif keep < header:
                refused(tmp_path, f"the file is cut: found {keep - 8} of {header - 8} bytes of header")
            else:
                end, name = next((end, name) for end, name in ends if header + end > keep)
                missing = min(header + end - keep, STATE[name].nbytes)
                refused(tmp_path, f"cut: of the {STATE[name].nbytes} bytes of tensor '{name}' the last {missing} are")

    @pytest.mark.parametrize(
        ("header", "match"),
        [
            (b"\xff" * 20, "header is damaged"),
            (b"{" * 20, "header is damaged"),
            (b"[" * 50_000, "header is damaged"),
            (b"[1, 2]", "header is a list, expected a JSON object"),
            ({"w": 3}, "tensor 'w' is of type None, expected BOOL, U8"),
            ({"w": entry(dtype="F4")}, "tensor 'w' is of type 'F4', expected BOOL, U8"),
            ({"w": entry(dtype=[])}, "tensor 'w' is of type"),
            ({"w": entry(shape=(-2,))}, r"tensor 'w': shape \[-2\] at \[0, 8\], expected numbers from 0"),
            ({"w": entry(shape=(True,))}, r"shape \[True\]"),
            ({"w": entry(shape=None)}, "shape None"),
            ({"w": entry(span=(0, 8, 16))}, r"at \[0, 8, 16\]"),
            ({"w": entry(span=(0, 4))}, r"tensor 'w' has 4 bytes, expected 8 for F32 of shape \[2\]"),
            ({"w": entry(span=(8, 0))}, "has -8 bytes, expected 8"),
            ({"w": entry(shape=(2**62, 2**62))}, "has 8 bytes, expected"),
            ({"w": entry(), "x": entry(span=(12, 20))}, "tensor 'x' begins at byte 12 of the data, expected 8"),
            ({"w": entry(), "x": entry(span=(4, 12))}, "tensor 'x' begins at byte 4 of the data, expected 8"),
            ({"w": entry(), "x": entry()}, "tensor 'x' begins at byte 0 of the data, expected 8"),
            ({"w": entry()}, "found 16 bytes after the last tensor, expected none"),
            ({"line\nbreak": 3}, r"tensor 'line\\nbreak' is of type"),
        ],
    )
    def test_headers(self, tmp_path, header, match):
        write_safetensors(tmp_path / "model.safetensors", header, bytes(24))
        refused(tmp_path, match)

    @given(st.data())
    def test_what_is_taken_is_what_the_library_takes(self, tmp_path_factory, data):
        """Altered headers: everything that we read, the safetensors library reads as the same."""
        whole = bytearray(save(STATE))
        header = 8 + int.from_bytes(whole[:8], "little")
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, header - 1))
            whole[place] = data.draw(st.sampled_from(b'0123456789,:[]{}"FBIU \0\xff'))
        folder = tmp_path_factory.mktemp("altered")
        (folder / "model.safetensors").write_bytes(whole)
        try:
            found = read_all(folder)
        except CheckpointError as error:
            one_line(error)
            return
        theirs = load_file(folder / "model.safetensors")
        assert found.keys() == theirs.keys()
        for name, tensor in found.items():
            assert (tensor.shape, tensor.dtype) == (theirs[name].shape, theirs[name].dtype)
            assert tensor.flatten().view(torch.uint8).equal(theirs[name].flatten().view(torch.uint8))

    def test_what_the_library_refuses(self, tmp_path):
        """The negative control of the test above: its reference does refuse."""
        write_safetensors(tmp_path / "model.safetensors", {"w": entry(), "x": entry(span=(12, 20))}, bytes(20))
        with pytest.raises(SafetensorError):
            safe_open(tmp_path / "model.safetensors", "pt")


class Hostile:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


def zip_records(path):
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


def write_records(path, records, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


class TestPickled:
    @pytest.mark.parametrize("way", ["zip", "before torch 1.6", "plain pickle"])
    @pytest.mark.parametrize("where", ["value", "beside tensors", "key of a dict"])
    @pytest.mark.parametrize("call", [os.system, os.mkdir, builtins.eval, builtins.exec])
    def test_code_is_not_run(self, tmp_path, call, where, way):
        made, path = tmp_path / "made", tmp_path / "pytorch_model.bin"
        args = {
            "system": (f"touch {made}",),
            "mkdir": (str(made),),
            "eval": (f"__import__('os').mkdir({str(made)!r})",),
            "exec": (f"import os; os.mkdir({str(made)!r})",),
        }[call.__name__]
        hostile = Hostile(call, *args)
        state = {"value": hostile, "beside tensors": {"w": FIRST, "x": hostile}, "key of a dict": {hostile: FIRST}}[
            where
        ]
        if way == "plain pickle":
            path.write_bytes(pickle.dumps(state, protocol=2))
        else:
            torch.save(state, path, _use_new_zipfile_serialization=way == "zip")
        asked = rf"(\w+\.)?{call.__name__}|torch.storage._load_from_bytes"  # that is how plain pickles hold tensors
        refused(tmp_path, rf"refused: it asks for ({asked}), which was not run")
        assert not made.exists()
        if way == "plain pickle":  # the negative control: it is a trap
            with path.open("rb") as file:
                pickle.load(file)
            assert made.exists()

    def test_code_is_not_run_whatever_the_environment_says(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        torch.save({"w": Hostile(os.system, f"touch {tmp_path / 'made'}")}, tmp_path / "pytorch_model.bin")
        refused(tmp_path, "which was not run")
        assert not (tmp_path / "made").exists()

    def test_a_program_of_torchscript(self, tmp_path):
        torch.save(STATE, tmp_path / "pytorch_model.bin")
        records = zip_records(tmp_path / "pytorch_model.bin")
        records["pytorch_model/constants.pkl"] = b""
        write_records(tmp_path / "pytorch_model.bin", records)
        refused(tmp_path, "TorchScript")

    def test_cut_zips(self, tmp_path):
        torch.save(STATE, tmp_path / "pytorch_model.bin")
        whole = (tmp_path / "pytorch_model.bin").read_bytes()
        for keep in [*range(0, 40), *range(40, len(whole), 97), *range(len(whole) - 60, len(whole))]:
            (tmp_path / "pytorch_model.bin").write_bytes(whole[:keep])
            refused(tmp_path, "cut or damaged|refused")

    def test_cut_files_of_before_torch_1_6(self, tmp_path):
        torch.save(STATE, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        whole = (tmp_path / "pytorch_model.bin").read_bytes()
        for keep in range(0, len(whole), 7):
            (tmp_path / "pytorch_model.bin").write_bytes(whole[:keep])
            refused(tmp_path, "refused")

    @pytest.mark.parametrize(
        ("state", "match"),
        [
            ([FIRST], "found a list, expected a dict of tensors"),
            (FIRST, "found a (Fake)?Tensor, expected a dict of tensors"),
            ({"model": STATE}, "entry 'model' is a dict, expected a tensor with a name"),
            ({"epoch": 3, **STATE}, "entry 'epoch' is a int, expected a tensor with a name"),
            ({3: FIRST}, "entry 3 is a (Fake)?Tensor, expected a tensor with a name"),
            ({"w": torch.eye(3).to_sparse()}, "tensor 'w' is torch.sparse_coo, torch.float32, expected a dense one"),
            ({"w": torch.zeros(2, dtype=torch.complex64).conj()}, "expected a dense one"),
        ],
    )
    @pytest.mark.parametrize("zipped", [True, False])
    def test_more_than_dense_tensors(self, tmp_path, state, match, zipped):
        torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        refused(tmp_path, match)

    def test_altered_archives(self, tmp_path):
        path = tmp_path / "pytorch_model.bin"
        torch.save(STATE, path)
        records = {name: content for name, content in zip_records(path).items() if ".format_version" not in name}
        write_records(path, records)
        assert all(torch.equal(tensor, STATE[name]) for name, tensor in read_all(tmp_path).items())
        place = next(name for name, content in records.items() if content == FIRST.numpy().tobytes())
        write_records(path, records | {place: records[place][:-1]})
        refused(tmp_path, "tensor 'first': found 23 bytes of data, expected at least 24")
        write_records(path, {name: content for name, content in records.items() if name != place})
        refused(tmp_path, r"pytorch_model\.bin: refused: ")
        write_records(path, records, compression=zipfile.ZIP_DEFLATED)
        refused(tmp_path, "is compressed, expected it as torch.save writes it")
        write_records(path, records | {"pytorch_model/byteorder": b"big"})
        refused(tmp_path, "b'big' order of bytes, expected little-endian")
        write_records(path, records | {"pytorch_model/data.pkl": b"\x80\x02}."})
        assert open_weights(tmp_path).names == ()
        write_records(path, {"other/file": b""})
        refused(tmp_path, r"pytorch_model\.bin: refused: ")

    def test_a_view_past_the_end_of_its_data(self, tmp_path):
        path = tmp_path / "pytorch_model.bin"
        torch.save({"w": torch.zeros(0x41, 0x42)[0x40:]}, path)
        records = {name: content for name, content in zip_records(path).items() if ".format_version" not in name}
        pickled = next(name for name in records if name.endswith("data.pkl"))
        assert records[pickled].count(b"K\x01KB\x86") == 1  # the shape (1, 66)
        records[pickled] = records[pickled].replace(b"K\x01KB\x86", b"K\x02KB\x86")
        write_records(path, records)
        refused(tmp_path, "tensor 'w': found 17160 bytes of data, expected at least 17424")

    @given(st.data())
    def test_altered_bytes_give_tensors_or_one_line(self, tmp_path_factory, data):
        zipped = data.draw(st.booleans())
        memory = io.BytesIO()
        torch.save(STATE, memory, _use_new_zipfile_serialization=zipped)
        whole = bytearray(memory.getvalue())
        for _ in range(data.draw(st.integers(1, 3))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        folder = tmp_path_factory.mktemp("altered")
        (folder / "pytorch_model.bin").write_bytes(whole)
        try:
            found = read_all(folder)
        except CheckpointError as error:
            one_line(error)
            return
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


class TestShards:
    @pytest.fixture
    def sharded(self, tmp_path):
        save_file({"first": FIRST, "second": SECOND}, tmp_path / "a.safetensors")
        save_file({"last": LAST}, tmp_path / "b.safetensors")
        write_index(tmp_path, {"first": "a.safetensors", "second": "a.safetensors", "last": "b.safetensors"})
        assert set(read_all(tmp_path)) == set(STATE)
        return tmp_path

    def test_a_missing_shard(self, sharded):
        (sharded / "b.safetensors").unlink()
        refused(sharded, r"index\.json: names 2 shards, of which 1 are missing: b\.safetensors")

    def test_a_tensor_that_its_shard_lacks(self, sharded):
        save_file({"first": FIRST}, sharded / "a.safetensors")
        refused(sharded, r"a\.safetensors: tensor 'second' is missing, expected by model\.safetensors\.index\.json")

    def test_a_tensor_in_another_shard_than_the_index_says(self, sharded):
        write_index(sharded, {"first": "b.safetensors", "second": "a.safetensors", "last": "b.safetensors"})
        refused(sharded, r"b\.safetensors: tensor 'first' is missing")

    def test_a_tensor_that_the_index_does_not_name(self, sharded):
        save_file({"last": LAST, "extra": FIRST}, sharded / "b.safetensors")
        refused(sharded, r"b\.safetensors: holds tensor 'extra', which model\.safetensors\.index\.json does not name")

    def test_a_tensor_in_two_shards(self, sharded):
        save_file({"last": LAST, "first": FIRST}, sharded / "b.safetensors")
        refused(sharded, r"b\.safetensors: tensor 'first' is also in a\.safetensors, expected once")

    def test_a_cut_shard(self, sharded):
        os.truncate(sharded / "b.safetensors", (sharded / "b.safetensors").stat().st_size - 3)
        refused(sharded, r"b\.safetensors: the file is cut: of the 32 bytes of tensor 'last' the last 3 are missing")

    @pytest.mark.parametrize(
        "shard", ["../a.safetensors", "/etc/passwd", "..", ".", "", "sub/a", "sub\\a", "C:a", "a\0b", "./a.safetensors"]
    )
    def test_shards_outside_the_folder(self, tmp_path, shard):
        folder = tmp_path / "folder"
        folder.mkdir()
        save_file({"w": FIRST}, tmp_path / "a.safetensors")
        write_index(folder, {"w": shard})
        refused(folder, r"index\.json: tensor 'w' is in '.*', expected the name of a file beside the index")

    @pytest.mark.parametrize("whole", ["model.safetensors", "pytorch_model.bin"])
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("[]", "found a list, expected a JSON object"),
            ("{", "not readable as JSON"),
            ("{}", "no weight_map, expected one"),
            ('{"weight_map": []}', "no weight_map, expected one"),
            ('{"weight_map": {"w": 3}}', "no weight_map, expected one"),
        ],
    )
    def test_indexes_that_are_none(self, tmp_path, whole, text, match):
        (tmp_path / f"{whole}.index.json").write_text(text)
        refused(tmp_path, match)

    def test_a_hostile_shard(self, tmp_path):
        torch.save({"w": FIRST}, tmp_path / "a.bin")
        torch.save({"x": Hostile(os.system, f"touch {tmp_path / 'made'}")}, tmp_path / "b.bin")
        write_index(tmp_path, {"w": "a.bin", "x": "b.bin"}, "pytorch_model.bin")
        refused(tmp_path, r"b\.bin: refused: it asks for \w+\.system, which was not run")
        assert not (tmp_path / "made").exists()
