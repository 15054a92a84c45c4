from pathlib import Path

import numpy as np
import pytest
import torch
from slow_families import btlm_logits
from toy_checkpoints import TOKENS, read, write_btlm, write_impostor

from bytelm.decoding import decode
from bytelm.errors import CheckpointError
from bytelm.hub.import_weights import export_tensors, import_model
from bytelm.model.targets import make_target

transformers = pytest.importorskip("transformers")

VOCAB = 67


class InMemory:
    """Tensors of a state dict, as if they lay in a file."""

    def __init__(self, state):
        self.state = state

    @property
    def names(self):
        return self.state.keys()

    def shape(self, name):
        return tuple(self.state[name].shape)

    def dtype(self, name):
        return self.state[name].dtype

    def read(self, name, dtype=None):
        return self.state[name].to(dtype)

    def where(self, name):
        return Path("weights")


def gptj(**changes):
    options = {"vocab_size": VOCAB, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8}
    return transformers.GPTJForCausalLM(transformers.GPTJConfig(**options, **changes))


def gpt2(**changes):
    options = {"vocab_size": VOCAB, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**options, **changes))


def llama(**changes):
    options = {"vocab_size": VOCAB, "max_position_embeddings": 40, "hidden_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 50}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**options, **heads, **changes))


CASES = {
    "gptj": gptj,
    "gpt2": gpt2,
    "gpt2 untied": lambda: gpt2(tie_word_embeddings=False),
    "llama": llama,
    "llama tied": lambda: llama(tie_word_embeddings=True),
    "llama wide heads": lambda: llama(head_dim=12),
}


def spread(model, seed=0):
    """Weights so large that every part matters, and biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise * (0.5 if parameter.shape[0] == VOCAB else 1.5 / parameter.shape[-1] ** 0.5))
    return model.eval()


@pytest.fixture(params=CASES, name="theirs")
def fixture_theirs(request):
    return spread(CASES[request.param]())


def state_of(model):
    """What ``save_pretrained`` writes: tied tensors once."""
    tied = model.config.tie_word_embeddings
    return {name: t for name, t in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def ours_of(model, **options):
    return import_model(model.config.to_dict(), InMemory(state_of(model)), **options)


@torch.no_grad()
def test_logits_are_those_of_transformers(theirs):
    model = ours_of(theirs).model
    ids = torch.randint(0, VOCAB, (3, 17), generator=torch.Generator().manual_seed(1))
    logits = model.heads.step(model(ids[..., None]), ids[..., None], ids[..., None][..., :0])
    expected = theirs(ids).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_transformers(theirs):
    imported = ours_of(theirs)
    model = imported.model.train()
    ids = torch.randint(0, VOCAB, (2, 11), generator=torch.Generator().manual_seed(1))
    logits = model.heads.step(model(ids[..., None]), ids[..., None], ids[..., None][..., :0])
    targets = torch.randint(0, VOCAB, (2 * 11,), generator=torch.Generator().manual_seed(2))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets).backward()
    torch.nn.functional.cross_entropy(theirs(ids).logits.flatten(0, 1), targets).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found = dict(export_tensors(model, imported.family))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_export_is_the_inverse_to_the_bit(theirs):
    imported, state = ours_of(theirs), state_of(theirs)
    found = dict(export_tensors(imported.model, imported.family))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and found[name].is_contiguous() for name in state)


def test_parameters_are_counted_as_in_the_files(theirs):
    imported = ours_of(theirs)
    assert imported.model.config.num_parameters() == sum(t.numel() for t in state_of(theirs).values())
    assert imported.model.config.num_parameters() == sum(p.numel() for p in imported.model.parameters())


def refused(config, state, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        import_model(config, InMemory(state))
    assert "\n" not in str(caught.value)


def test_a_tensor_that_is_missing_extra_or_misshapen():
    theirs = gptj()
    config, state = theirs.config.to_dict(), state_of(theirs)
    key = "transformer.h.1.attn.k_proj.weight"
    refused(config, {n: t for n, t in state.items() if n != key}, f"tensor {key} is missing")
    refused(
        config, {**state, "transformer.h.1.attn.extra.weight": state[key]}, "attn.extra.weight has no place in a gptj"
    )
    refused(config, {**state, key: state[key][:-1]}, rf"{key} has shape \[31, 32\], expected \[32, 32\]")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox' with tensors such as lm_head.bias, expected gptj"),
        ({"model_type": "llama"}, "model_type 'llama' with"),
        ({"model_type": "gpt_jx", "architectures": ["GPTJXForCausalLM"]}, "model_type 'gpt_jx' with"),
        ({"activation_function": "relu"}, "activation_function: found 'relu', expected 'gelu_new' or"),
        ({"n_embd": "wide"}, "n_embd: found 'wide', expected int"),
        ({"n_head": 5}, "expected"),
    ],
)
def test_other_configs_are_refused(changes, match):
    theirs = gptj()
    refused({**theirs.config.to_dict(), **changes}, state_of(theirs), match)


def with_masks(state, value, blocks=(0, 1)):
    """Buffers as old checkpoints carry them."""
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 40, 40).tril().bool() for i in range(2)}
    for i in blocks:
        masks[f"transformer.h.{i}.attn.bias"] = torch.full((1, 1, 40, 40), value, dtype=torch.bool)
    return {**state, **masks, **{f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e9) for i in range(2)}}


def test_mask_buffers_are_read_and_dropped():
    theirs = gptj()
    config, state = theirs.config.to_dict(), state_of(theirs)
    assert import_model(config, InMemory(with_masks(state, True, ()))).model.config.prompt == "causal"
    assert import_model(config, InMemory(with_masks(state, True))).model.config.prompt == "prefix"
    refused(config, with_masks(state, True, (1,)), r"h\.1\.attn\.bias shows later positions, that of .*h\.0.* does not")


def test_published_sizes_on_the_meta_device():
    """GPT-J: 6,050,882,784 by its layout; BTLM's card counts its 32 slopes, which are computed here."""
    from bytelm.hub.families import recognise
    from bytelm.model import build_model

    gptj_names = ["transformer.h.0.attn.q_proj.weight"]
    config = recognise({"model_type": "gptj"}, gptj_names).config(transformers.GPTJConfig().to_dict())
    btlm = {
        "model_type": "btlm", "activation_function": "swiglu", "n_embd": 2560, "n_head": 32, "n_inner": 6826,
        "n_layer": 32, "n_positions": 8192, "vocab_size": 50257, "position_embedding_type": "alibi",
        "mup_embeddings_scale": 14.6, "mup_output_alpha": 2.22, "mup_width_scale": 0.1,
        "mup_scale_qk_dot_by_d": True,
    }  # fmt: skip
    for found, expected in (
        (config, 6_050_882_784),
        (recognise(btlm, ["h.0.mlp.c_fc2.weight"]).config(btlm), 2_646_255_744),
    ):
        assert found.num_parameters() == expected
        assert sum(p.numel() for p in build_model(found, device="meta").parameters()) == expected


@pytest.mark.parametrize(("spelling", "kind"), [("mup", "btlm"), ("old", "btlm"), ("mup", "gpt_jx")])
@torch.no_grad()
def test_btlm_is_the_plain_formulas(spelling, kind, tmp_path):
    """transformers has no BTLM: logits against an independent forward in numpy, and the way back to the bit."""
    weights, config = read(write_btlm(tmp_path / "m", spelling=spelling, model_type=kind))
    state = {name: torch.from_numpy(weight).float() for name, weight in weights.items()}
    imported = import_model(config, InMemory(state))
    ids = torch.randint(0, TOKENS, (21,), generator=torch.Generator().manual_seed(1))
    model, windows = imported.model, ids[None, :, None]
    logits = model.heads.step(model(windows), windows, windows[..., :0])[0]
    expected = btlm_logits(weights, config, ids.numpy())
    torch.testing.assert_close(logits, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)
    found = dict(export_tensors(model, imported.family))
    assert found.keys() == {name for name in state if not name.endswith("slopes")}
    assert all(torch.equal(found[name], state[name]) for name in found)


def test_btlm_slopes_that_are_not_those_of_the_formula(tmp_path):
    weights, config = read(write_btlm(tmp_path / "m"))
    state = {name: torch.from_numpy(weight).float() for name, weight in weights.items()}
    state["transformer.relative_pe.slopes"] *= 1.1
    refused(config, state, r"relative_pe\.slopes holds .* expected the slopes")


@pytest.mark.parametrize("kind", ["SabiYarn", "gpt_jx"])
def test_who_only_calls_itself_gptjx_is_refused(kind, tmp_path):
    weights, config = read(write_impostor(tmp_path / "m", model_type=kind))
    refused(config, {n: torch.from_numpy(w) for n, w in weights.items()}, f"model_type '{kind}' with")


def btlm_with(tmp_path, scaling):
    """A toy BTLM with this ``alibi_scaling``, its arrays and its config."""
    weights, config = read(write_btlm(tmp_path / "m", alibi_scaling=scaling))
    state = {name: torch.from_numpy(weight).float() for name, weight in weights.items()}
    return import_model(config, InMemory(state)).model, weights, config


@torch.no_grad()
def logits_of(model, ids):
    windows = ids[None, :, None]
    return model.heads.step(model(windows), windows, windows[..., :0])[0]


@pytest.mark.parametrize("scaling", [{"type": "linear", "factor": 2.0}, {"factor": 2, "train_seq_len": 10}])
def test_alibi_for_a_longer_context(tmp_path, scaling):
    model, weights, config = btlm_with(tmp_path, scaling)
    ids = torch.arange(40)
    expected = btlm_logits(weights, config, ids.numpy(), alibi_factor=2.0)
    torch.testing.assert_close(logits_of(model, ids), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)


def test_alibi_whose_ratio_grows_with_the_position(tmp_path):
    """Up to the length of training nothing changes; then each position has the ratio of a text that ends there."""
    model, weights, config = btlm_with(tmp_path, {"train_seq_len": 16})
    ids = torch.arange(60)
    ratios = np.maximum(1, np.arange(1, 61) / 16)[:, None]
    expected = torch.from_numpy(btlm_logits(weights, config, ids.numpy(), alibi_factor=ratios)).float()
    torch.testing.assert_close(logits_of(model, ids), expected, atol=1e-5, rtol=1e-5)
    plain = btlm_logits(weights, config, ids.numpy())
    np.testing.assert_allclose(plain[:16], expected[:16], atol=1e-6)
    assert np.abs(plain[20:] - expected[20:].numpy()).max() > 1e-3
    torch.testing.assert_close(logits_of(model, ids[:30]), expected[:30], atol=1e-5, rtol=1e-5)
    found = decode(make_target(model, "next", np.zeros(0, np.int64)), [ids[:20].numpy()], max_new=30)
    whole = torch.cat((ids[:20], torch.from_numpy(found.symbols[0])))
    nats = torch.nn.functional.cross_entropy(logits_of(model, whole)[19:-1], whole[20:], reduction="none")
    np.testing.assert_allclose(found.nats[0], nats, atol=1e-5)


@pytest.mark.parametrize(
    "scaling", [{}, {"factor": 0.5}, {"train_seq_len": 0}, {"type": "dynamic", "factor": 2.0}, 2.0, {"factor": "2"}]
)
def test_alibi_scaling_that_is_none(tmp_path, scaling):
    weights, config = read(write_btlm(tmp_path / "m", alibi_scaling=scaling))
    refused(
        config, {n: torch.from_numpy(w) for n, w in weights.items()}, r"^config\.json: (alibi_scaling|factor): found"
    )
