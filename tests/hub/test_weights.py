"""Weights of other people's checkpoints: what transformers, torch and safetensors write is read, and written again."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from safetensors import safe_open
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM

from bytelm.errors import CheckpointError
from bytelm.hub import tensor_files, weights
from bytelm.hub.json_files import read_config
from bytelm.hub.tensor_files import SAFETENSORS_DTYPES
from bytelm.hub.weights import export_weights, open_weights

NUMBERS = {
    "wte.weight": torch.arange(24.0).reshape(6, 4),
    "h.0.weight": torch.arange(16, dtype=torch.bfloat16).reshape(4, 4),
    "h.0.bias": torch.tensor([1, -2, 3, -4], dtype=torch.float16),
    "h.1.weight": torch.arange(16, dtype=torch.int64).reshape(4, 4),
    "scale": torch.tensor(-1e9),
    "none": torch.zeros(0, 3),
    "mask": torch.ones(1, 1, 4, 4, dtype=torch.bool).tril(),
}
"""Small tensors of several types and shapes, a number and nothing among them."""


def same(found, expected):
    """Whether two tensors are the same to the bit, shape and type included."""
    return (found.shape, found.dtype) == (expected.shape, expected.dtype) and torch.equal(
        found.reshape(-1).contiguous().view(torch.uint8), expected.reshape(-1).contiguous().view(torch.uint8)
    )


def check_reads(folder, expected):
    """All of ``expected`` and nothing else is in the folder; returns the weights."""
    found = open_weights(folder)
    assert set(found.names) == set(expected)
    for name, tensor in expected.items():
        assert name in found
        assert (found.shape(name), found.dtype(name)) == (tuple(tensor.shape), tensor.dtype)
        read = found.read(name)
        assert same(read, tensor), name
        assert read.is_contiguous()
        assert read.untyped_storage().nbytes() == tensor.nbytes
    return found


def refused(folder, match):
    with pytest.raises(CheckpointError, match=match):
        open_weights(folder)


def write_index(folder, whole, places):
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


@pytest.fixture(scope="module")
def gptj():
    config = GPTJConfig(vocab_size=61, n_positions=32, n_embd=16, n_layer=3, n_head=2, rotary_dim=4)
    return GPTJForCausalLM(config).eval()


@pytest.fixture(scope="module")
def gpt2():
    """Its head is its embedding."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()


class TestWhatOthersWrite:
    def test_one_safetensors_file_of_transformers(self, gptj, tmp_path):
        gptj.save_pretrained(tmp_path)
        found = check_reads(tmp_path, gptj.state_dict())
        assert found.where("lm_head.bias") == tmp_path / "model.safetensors"
        assert read_config(tmp_path)["model_type"] == "gptj"

    def test_shards_of_transformers(self, gptj, tmp_path):
        gptj.save_pretrained(tmp_path, max_shard_size="10KB")
        shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
        assert len(shards) > 2
        found = check_reads(tmp_path, gptj.state_dict())
        places = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
        assert {name: found.where(name).name for name in found.names} == places

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
    def test_a_bin_file(self, gptj, tmp_path, zipped):
        torch.save(gptj.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        found = check_reads(tmp_path, gptj.state_dict())
        assert found.where("lm_head.bias") == tmp_path / "pytorch_model.bin"

    def test_shards_of_bin_files(self, gptj, tmp_path):
        state = gptj.state_dict()
        names, places = list(state), {}
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            shard = f"pytorch_model-{number:05}-of-00002.bin"
            torch.save({name: state[name] for name in part}, tmp_path / shard)
            places |= dict.fromkeys(part, shard)
        write_index(tmp_path, "pytorch_model.bin", places)
        found = check_reads(tmp_path, state)
        assert {name: found.where(name).name for name in names} == places

    def test_tied_tensors_of_a_bin_file_are_one(self, gpt2, tmp_path):
        torch.save(gpt2.state_dict(), tmp_path / "pytorch_model.bin")
        found = check_reads(tmp_path, gpt2.state_dict())
        assert found.alias("lm_head.weight") == "transformer.wte.weight" == found.alias("transformer.wte.weight")
        assert found.alias("transformer.wpe.weight") == "transformer.wpe.weight"

    @pytest.mark.parametrize("zipped", [True, False])
    def test_one_mask_of_all_layers_is_in_memory_once(self, tmp_path, zipped):
        mask = torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril()
        state = {f"transformer.h.{layer}.attn.bias": mask for layer in range(28)}
        torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        found = open_weights(tmp_path)
        held = [found.read(name) for name in found.names]
        assert len({tensor.data_ptr() for tensor in held}) == 1
        assert same(held[27], mask)
        assert {found.alias(name) for name in found.names} == {"transformer.h.0.attn.bias"}
        if zipped:  # nobody holds it: it is read anew
            held[0].zero_()
            del held
            assert same(found.read("transformer.h.5.attn.bias"), mask)

    def test_separate_masks_stay_separate(self, tmp_path):
        state = {f"h.{layer}.attn.bias": torch.ones(8, 8) for layer in range(3)}
        state |= {"nothing": torch.zeros(0, 8), "nothing else": torch.zeros(0, 8)}
        torch.save(state, tmp_path / "pytorch_model.bin")
        found = open_weights(tmp_path)
        assert [found.alias(name) for name in found.names] == list(state)
        held = [found.read(name) for name in list(state)[:3]]
        assert len({tensor.data_ptr() for tensor in held}) == 3
        save_file(state, tmp_path / "model.safetensors")
        found = open_weights(tmp_path)
        assert [found.alias(name) for name in found.names] == list(found.names)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_views_of_a_bin_file(self, tmp_path, zipped):
        whole = torch.arange(60.0).reshape(10, 6)
        state = {
            "whole": whole,
            "rows": whole[3:5],
            "turned": torch.nn.Parameter(whole.T),
            "columns": whole[:, 2:4],
            "steps": whole[::3, ::2],
            "expanded": torch.tensor([1.5]).expand(4),
            "last": whole[9, 5],
        }
        torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        found = open_weights(tmp_path)
        assert set(found.names) == set(state)
        for name, tensor in state.items():
            assert same(found.read(name), tensor.detach()), name
            assert found.read(name).is_contiguous()

    def test_a_torch_that_does_not_tell_places_maps_the_file(self, tmp_path, monkeypatch, gpt2):
        """Torch 2.6 has tensors without data, but no places of them."""
        torch.save(gpt2.state_dict(), tmp_path / "pytorch_model.bin")
        monkeypatch.setattr(tensor_files, "_place", lambda tensor: None)
        found = check_reads(tmp_path, gpt2.state_dict())
        assert found.alias("lm_head.weight") == "transformer.wte.weight"
        held = found.read("transformer.ln_f.weight")
        held.zero_()
        del held
        assert same(found.read("transformer.ln_f.weight"), gpt2.transformer.ln_f.weight.detach())
        half = found.read("transformer.wte.weight", torch.bfloat16)
        assert same(half, gpt2.transformer.wte.weight.detach().bfloat16())

    def test_safetensors_go_first_and_whole_files_before_shards(self, tmp_path):
        torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
        assert open_weights(tmp_path).where("a").name == "pytorch_model.bin"
        save_file({"b": torch.zeros(1)}, tmp_path / "shard.safetensors")
        write_index(tmp_path, "model.safetensors", {"b": "shard.safetensors"})
        assert open_weights(tmp_path).names == ("b",)
        save_file({"c": torch.zeros(1)}, tmp_path / "model.safetensors")
        assert open_weights(tmp_path).names == ("c",)

    def test_links_are_followed_as_in_a_cache_of_downloads(self, tmp_path):
        (tmp_path / "blobs").mkdir()
        (tmp_path / "snapshot").mkdir()
        save_file(NUMBERS, tmp_path / "blobs" / "0f3a")
        (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blobs/0f3a")
        check_reads(tmp_path / "snapshot", NUMBERS)
        (tmp_path / "blobs" / "0f3a").unlink()
        refused(tmp_path / "snapshot", r"model\.safetensors: cannot be read: No such file or directory")

    def test_names_are_in_the_order_of_the_data(self, tmp_path):
        save_file(NUMBERS, tmp_path / "model.safetensors")
        found = open_weights(tmp_path)
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            assert list(found.names) == file.offset_keys()


class TestMemory:
    def test_a_file_larger_than_the_memory(self, tmp_path):
        """Of 8 TB; private mappings, as other readers make them, are refused by Linux at this size."""
        path, size = tmp_path / "model.safetensors", 2**43
        entries = {
            "large": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
            "last": {"dtype": "F32", "shape": [2], "data_offsets": [size, size + 8]},
        }
        header = json.dumps(entries).encode()
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            try:
                file.truncate(8 + len(header) + size)
            except OSError:
                pytest.skip("the file system has no files of that size")
            file.seek(0, os.SEEK_END)
            file.write(torch.tensor([2.0, 3.0]).numpy().tobytes())
        found = open_weights(tmp_path)
        assert (found.shape("large"), found.read("last").tolist()) == ((size // 4,), [2, 3])

    def test_a_bin_file_larger_than_the_memory(self, tmp_path):
        path, size = tmp_path / "pytorch_model.bin", 2**43
        with FakeTensorMode():
            state = {"large": torch.zeros(size // 4), "last": torch.zeros(2)}
        try:
            with torch.serialization.skip_data(materialize_fake_tensors=True):
                torch.save(state, path)
        except RuntimeError:
            pytest.skip("the file system has no files of that size")
        found = open_weights(tmp_path)
        assert (found.shape("large"), found.read("last").tolist()) == ((size // 4,), [0, 0])

    def test_an_expanded_number_too_large_for_any_memory(self, tmp_path):
        torch.save({"w": torch.ones(1).expand(2**60)}, tmp_path / "pytorch_model.bin")
        found = open_weights(tmp_path)
        with pytest.raises(CheckpointError, match="tensor 'w' cannot be read: ") as caught:
            found.read("w")
        assert "\n" not in str(caught.value)

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux")
    @pytest.mark.parametrize("num_layers", [12, pytest.param(64, marks=pytest.mark.slow)])
    def test_peak_while_float32_becomes_bfloat16(self, tmp_path, num_layers):
        """Checkpoints of 0.2 and 1 GB, in ratios of the final size; a mapped file shows that the measure sees."""
        for kind in ("safetensors", "bin"):
            (tmp_path / kind).mkdir()
        state = {f"h.{layer}.weight": torch.randn(2048, 2048) for layer in range(num_layers)}
        save_file(state, tmp_path / "safetensors" / "model.safetensors")
        torch.save(state, tmp_path / "bin" / "pytorch_model.bin")
        del state
        script = Path(__file__).parent / "peak_memory.py"
        run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
        final = num_layers * 2048 * 2048 * 2
        peaks = {kind: peak / final for kind, peak in json.loads(run.stdout).items()}
        for kind in ("converted safetensors", "converted bin"):
            assert 0.99 < peaks[kind] < 1.15, peaks
        for kind in ("as written safetensors", "as written bin"):
            assert 1.99 < peaks[kind] < 2.05, peaks
        assert peaks["mapped safetensors"] > 2.5, peaks

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "old"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
    def test_conversion_by_pieces_is_that_of_torch(self, tmp_path, monkeypatch, name, dtype):
        monkeypatch.setattr(tensor_files, "_PIECE_BYTES", 40)
        monkeypatch.setattr(tensor_files, "_MOST_READ_BYTES", 7)
        monkeypatch.setattr(tensor_files, "_LARGE_BYTES", 64)
        state = {name: tensor.clone() for name, tensor in NUMBERS.items() if name != "scale"}
        state["random"] = torch.randn(7, 11)
        if name.startswith("model"):
            save_file(state, tmp_path / name)
        else:
            state["turned"] = state["random"].T
            torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=name != "old")
        found = open_weights(tmp_path)
        for each, tensor in state.items():
            assert same(found.read(each, dtype), tensor.to(dtype)), each
            assert found.read(each, dtype).is_contiguous()


class TestExport:
    @pytest.mark.parametrize("most", [None, 1, 40, 100, 10**9])
    def test_round_trip_to_the_bit(self, tmp_path, most):
        export_weights(tmp_path / "deep" / "folder", NUMBERS, most)
        found = check_reads(tmp_path / "deep" / "folder", NUMBERS)
        for path in {found.where(name) for name in found.names}:
            with safe_open(path, "pt") as file:
                assert file.metadata() == {"format": "pt"}
            held = sum(NUMBERS[name].nbytes for name in found.names if found.where(name) == path)
            alone = sum(found.where(name) == path for name in found.names if NUMBERS[name].nbytes) <= 1
            assert most is None or held <= most or alone
        again = {name: found.read(name) for name in found.names}
        export_weights(tmp_path / "again", again, most)
        check_reads(tmp_path / "again", NUMBERS)
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["folder"]
        assert not list((tmp_path / "again").glob(".*"))

    @pytest.mark.parametrize("most", [None, 4000])
    def test_transformers_reads_it(self, gptj, tmp_path, most):
        gptj.config.save_pretrained(tmp_path)
        export_weights(tmp_path, gptj.state_dict(), most)
        loaded = GPTJForCausalLM.from_pretrained(tmp_path)
        assert all(same(tensor, gptj.state_dict()[name]) for name, tensor in loaded.state_dict().items())

    def test_views_and_shared_memory_are_written_as_what_they_show(self, tmp_path):
        whole = torch.arange(12.0).reshape(4, 3)
        state = {"whole": whole, "again": whole, "first": whole[:2], "turned": torch.nn.Parameter(whole.T)}
        export_weights(tmp_path, state)
        check_reads(tmp_path, {name: tensor.detach().contiguous().clone() for name, tensor in state.items()})

    @pytest.mark.parametrize("before", [None, 1, 40])
    @pytest.mark.parametrize("after", [None, 1, 40])
    def test_old_safetensors_give_way_and_other_files_stay(self, tmp_path, before, after):
        (tmp_path / "model_card.safetensors.txt").write_text("stays")
        export_weights(tmp_path, {f"old.{name}": tensor for name, tensor in NUMBERS.items()}, before)
        export_weights(tmp_path, NUMBERS, after)
        check_reads(tmp_path, NUMBERS)
        files = {path.name for path in tmp_path.iterdir()} - {"model_card.safetensors.txt"}
        used = {open_weights(tmp_path).where(name).name for name in NUMBERS}
        assert files == used | ({"model.safetensors.index.json"} if after else set())

    @pytest.mark.parametrize("most", [None, 40])
    def test_a_failure_while_writing_leaves_the_old_weights(self, tmp_path, monkeypatch, most):
        export_weights(tmp_path, NUMBERS, most)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        calls = []

        def full(*args):
            calls.append(save_file(*args))
            if len(calls) == (1 if most is None else 2):
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(weights, "save_file", full)
        with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
            export_weights(tmp_path, {"other": torch.ones(30), "more": torch.ones(30)}, most)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("before", [None, 40])
    @pytest.mark.parametrize("after", [None, 40])
    def test_wherever_moving_stops_there_is_no_mixture(self, tmp_path, monkeypatch, before, after):
        new = {name: tensor + 1 for name, tensor in NUMBERS.items() if name != "mask"}
        seen = set()
        for stop in range(30):
            folder, steps = tmp_path / str(stop), []
            export_weights(folder, {"stale": torch.zeros(30), "older": torch.zeros(3)}, 40)
            stale = {path: path.read_bytes() for path in folder.iterdir()}
            export_weights(folder, NUMBERS, before)
            for path, content in stale.items() if before is None else ():  # shards and their index beside a whole file
                path.write_bytes(content)

            def step(move, *args, steps=steps, stop=stop):
                steps.append(move)
                if len(steps) > stop:
                    raise OSError(5, "Input/output error")
                return move(*args)

            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", functools.partial(step, os.replace))
                patch.setattr(Path, "unlink", lambda path, step=step: step(os.unlink, path))
                try:
                    export_weights(folder, new, after)
                except CheckpointError as error:
                    assert str(error).endswith("cannot be written: Input/output error")  # noqa: PT017
            try:
                found = open_weights(folder)
            except CheckpointError:
                seen.add("refused")
                continue
            seen.add("new" if set(found.names) == set(new) else "old")
            check_reads(folder, new if set(found.names) == set(new) else NUMBERS)
        assert {"old", "new"} <= seen
        assert after or before or "refused" not in seen

    def test_refusals(self, tmp_path):
        def fails(match, tensors, *rest, folder=tmp_path):
            with pytest.raises(CheckpointError, match=match):
                export_weights(folder, tensors, *rest)
            assert not list(tmp_path.iterdir())

        fails("max_shard_bytes: found 0, expected at least 1", NUMBERS, 0)
        fails("'w' is torch.sparse_coo", {"w": torch.eye(3).to_sparse()})
        fails("'w' is torch.strided, torch.complex128", {"w": torch.zeros(1, dtype=torch.complex128)})
        fails("on meta", {"w": torch.zeros(1, device="meta")})
        fails("'__metadata__': expected a name", {"__metadata__": torch.zeros(1)})
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match="found a file, expected a folder"):
            export_weights(tmp_path / "file", NUMBERS)

    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"),
            st.tuples(st.sampled_from(sorted(SAFETENSORS_DTYPES)), st.lists(st.integers(0, 4), max_size=4)),
            max_size=6,
        ),
        st.none() | st.integers(1, 300),
    )
    def test_any_names_shapes_and_types(self, tmp_path_factory, kinds, most):
        folder = tmp_path_factory.mktemp("any")
        state = {}
        for name, (dtype, shape) in kinds.items():
            numel = torch.Size(shape).numel()
            octets = torch.randint(0, 2 if dtype == "BOOL" else 256, (numel * SAFETENSORS_DTYPES[dtype].itemsize,))
            state[name] = octets.to(torch.uint8).view(SAFETENSORS_DTYPES[dtype]).reshape(shape)
        export_weights(folder, state, most)
        check_reads(folder, state)
        (folder / "bin").mkdir()
        torch.save(state, folder / "bin" / "pytorch_model.bin")
        check_reads(folder / "bin", state)
