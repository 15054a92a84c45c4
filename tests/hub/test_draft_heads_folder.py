"""Draft heads on models of other families: they change no output, and no other model takes them."""

import json

import numpy as np
import pytest
import torch
from support import tiny_model
from test_family_decoding import NO_BOS, prompts
from test_import_weights import CASES, ours_of, spread
from torch.nn import functional as F

from bytelm.decoding import HeadsDrafter, Sampling, decode
from bytelm.errors import CheckpointError, DecodingError
from bytelm.hub.draft_heads import load_draft_heads, save_draft_heads
from bytelm.model.build import add_draft_heads
from bytelm.model.ends import DraftHeadsConfig
from bytelm.model.targets import make_target

ROWS = prompts(6, 2, 9)


def model_of(name, seed=0, **options):
    return ours_of(spread(CASES[name](), seed), **options).model.requires_grad_(False)


def target_of(model):
    return make_target(model, "next", NO_BOS)


def fit_heads(model, unembedding="shared", num_heads=3, steps=120):
    """Draft heads that know what the model says after ``ROWS``."""
    heads = add_draft_heads(model, DraftHeadsConfig(num_heads=num_heads, unembedding=unembedding))
    said = decode(target_of(model), ROWS, max_new=24).symbols
    states, later = [], []
    for row, more in zip(ROWS, said, strict=True):
        text = torch.from_numpy(np.concatenate((row, more)))
        later.append(text[len(row) + 1 :].unfold(0, num_heads, 1))
        states.append(model(text[None, :, None])[0, len(row) - 1 :][: len(later[-1])])
    optimizer = torch.optim.AdamW(heads.parameters(), lr=0.02, weight_decay=0)
    for _ in range(steps):
        logits = heads(torch.cat(states), model.lm_head)
        loss = F.cross_entropy(logits.flatten(0, 1), torch.cat(later).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heads.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def fitted():
    return fit_heads(model_of("llama"))


@pytest.mark.parametrize(("name", "unembedding"), [("llama", "shared"), ("gpt2", "own"), ("gptj", "shared")])
def test_drafts_and_batches_change_nothing_and_save_forwards(name, unembedding):
    model = fit_heads(model_of(name), unembedding)
    for sampling in (Sampling(), Sampling(do_sample=True), Sampling(do_sample=True, temperature=0.7, top_p=0.9)):
        plain = decode(target_of(model), ROWS, max_new=24, sampling=sampling, seed=3)
        for num in (1, 3):
            options = {"max_new": 24, "sampling": sampling, "drafter": HeadsDrafter(num)}
            found = decode(target_of(model), ROWS, seed=3, **options)
            assert [row.tolist() for row in found.symbols] == [row.tolist() for row in plain.symbols]
            for nats, expected in zip(found.nats, plain.nats, strict=True):
                np.testing.assert_allclose(nats, expected, atol=2e-5)
            if sampling.greedy:
                assert min(found.stats.acceptance_at) > 0.7, "they have seen this very text"
                assert found.stats.forwards < plain.stats.forwards / (1 + 0.5 * num)
                for row, prompt in enumerate(ROWS):
                    alone = decode(target_of(model), [prompt], **options).symbols[0]
                    assert alone.tolist() == plain.symbols[row].tolist()


def test_more_symbols_than_heads_are_refused(fitted):
    with pytest.raises(DecodingError, match="'heads': found 4 symbols, expected at most 3 for this model and law"):
        decode(target_of(fitted), ROWS, max_new=3, drafter=HeadsDrafter(4))
    with pytest.raises(DecodingError, match="'heads': found 1 symbols, expected at most 0"):
        decode(target_of(model_of("llama")), ROWS, max_new=3, drafter=HeadsDrafter(1))


@pytest.fixture
def folder(fitted, tmp_path):
    save_draft_heads(tmp_path / "heads", fitted, {"step": 3})
    return tmp_path / "heads"


def heads_of(model):
    return model.draft_heads.state_dict()


def test_a_folder_holds_the_heads_alone_and_gives_them_back(folder, fitted):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").stat().st_size < 3 * 32 * 32 * 4 + 500
    assert json.loads((folder / "config.json").read_text())["provenance"] == {"step": 3}
    model = model_of("llama")
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_draft_heads(folder, model)
    assert model.config == fitted.config
    assert all(torch.equal(tensor, heads_of(fitted)[name]) for name, tensor in heads_of(model).items())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not any(parameter.requires_grad for parameter in model.draft_heads.parameters())
    found, expected = (decode(target_of(m), ROWS, max_new=24, drafter=HeadsDrafter(3)) for m in (model, fitted))
    assert found.stats.accepted_at == expected.stats.accepted_at
    save_draft_heads(folder, model)
    load_draft_heads(folder, model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_model_in_another_float_type_takes_them(folder, dtype):
    model = model_of("llama").to(dtype)
    load_draft_heads(folder, model)
    assert {tensor.dtype for tensor in heads_of(model).values()} == {dtype}
    found = decode(target_of(model), ROWS, max_new=24, drafter=HeadsDrafter(3))
    assert min(found.stats.acceptance_at) > 0.5


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_of("llama", seed=1), r"another model of these sizes: element \d+ of its embedding is"),
        (lambda: model_of("gpt2"), "a model of width 32, expected those of this one, of 24"),
        (lambda: model_of("llama", vocab_size=60), "vocab_size 67, expected those of this one, of 60"),
        (lambda: tiny_model(), "heads for a model of tokens, expected none for one of bytes"),
    ],
)
def test_another_model_does_not_take_them(folder, model, message):
    model = model()
    before = model.config
    with pytest.raises(CheckpointError, match=message) as caught:
        load_draft_heads(folder, model)
    assert str(caught.value).startswith(f"{folder / 'config.json'}: ")
    assert (model.config, model.draft_heads) == (before, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "bytelm"}, "format 'bytelm', version 1, expected 'bytelm-draft-heads', 1"),
        ({"format_version": 2}, "version 2, expected"),
        ({"frozen": None}, "found no fingerprint of the frozen model"),
        ({"draft_heads": {"num_heads": -1}}, r"draft_heads\.num_heads: found -1, expected a number > 0"),
        ({"draft_heads": {"num_heads": 2}}, r"residual\.weight has shape \[96, 32\], expected \[64, 32\]"),
        ({"draft_heads": {"num_heads": 3, "unembedding": "own"}}, r"unembeddings\.0.* is missing"),
    ],
)
def test_damaged_folders_are_refused(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    model = model_of("llama")
    before = model.config
    with pytest.raises(CheckpointError, match=message) as caught:
        load_draft_heads(folder, model)
    assert str(folder) in str(caught.value)
    assert (model.config, model.draft_heads) == (before, None)


@pytest.mark.parametrize("embedding", [[], ["a"] * 64, [float("nan")] * 64, 5])
def test_a_fingerprint_that_is_none_is_refused(folder, embedding):
    config = json.loads((folder / "config.json").read_text())
    config["frozen"]["embedding"] = embedding
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"of another model|found no list of 64 numbers"):
        load_draft_heads(folder, model_of("llama"))


def test_missing_files_are_named(folder, fitted, tmp_path):
    (folder / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_draft_heads(folder, model_of("llama"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        load_draft_heads(folder, model_of("llama"))
    with pytest.raises(CheckpointError, match="none: no such folder"):
        load_draft_heads(tmp_path / "none", model_of("llama"))


def test_a_folder_of_something_else_is_not_replaced(fitted, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        CheckpointError, match="format None, expected 'bytelm-draft-heads' in a folder that is replaced"
    ):
        save_draft_heads(tmp_path, fitted)
    assert (tmp_path / "config.json").read_text() == '{"model_type": "llama"}'
