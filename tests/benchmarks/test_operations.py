"""Operations against torch's own counter, cached numbers against a cache, weights against the tensors."""

from dataclasses import replace

import pytest
import torch
from support import BOS, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bytelm.benchmarks.operations import cache_bytes, model_bytes, operations_per_symbol, positions_per_symbol
from bytelm.decoding import decode
from bytelm.model import ModelConfig, build_model
from bytelm.model.ends import MLPMergerConfig, NextPatchConfig
from bytelm.model.targets import make_target
from bytelm.nn.four_bit import FourBitLinear, FourBitWeight, code_book
from bytelm.nn.kv_cache import CacheView

TOKENS = {
    "width": 24,
    "num_blocks": 2,
    "attention": {"num_heads": 4, "num_kv_heads": 4, "head_width": 6},
    "feedforward": {"kind": "gelu", "inner": 40, "bias": True},
    "merger": {"kind": "token", "num_rows": 71},
    "heads": {"kind": "lm", "num_rows": 71, "bias": True},
    "patch": 1,
    "vocab_size": 64,
    "context": 128,
}
MIXED_TOKENS = {**TOKENS["heads"], "mixed": True, "inner": 20, "tables": {"orders": [1], "rows": 31, "row_width": 6}}
GROUPED = {"attention": {"num_heads": 4, "num_kv_heads": 2, "head_width": 8}, "feedforward": {"inner": 40}}


def narrow(part):
    """A merger or heads whose n-gram rows are projected."""
    found = getattr(tiny_config("chained", True), part)
    return replace(found, tables=replace(found.tables, row_width=6))


CONFIGS = {
    "chained": lambda: tiny_config("chained"),
    "chained with tables and next patch": lambda: tiny_config("chained", True, next_patch=NextPatchConfig()),
    "chained with narrow tables": lambda: tiny_config("chained", merger=narrow("merger"), heads=narrow("heads")),
    "chained that mix": lambda: tiny_config("chained", heads=replace(narrow("heads"), mixed=True)),
    "independent": lambda: tiny_config("independent"),
    "mlp merger": lambda: tiny_config("independent", merger=MLPMergerConfig(byte_width=12, inner=20)),
    "gptj": lambda: ModelConfig.from_dict({**TOKENS, "wiring": "parallel", "norm": {"kind": "layer"}}),
    "llama": lambda: ModelConfig.from_dict({**TOKENS, **GROUPED}),
    "gpt2": lambda: ModelConfig.from_dict({**TOKENS, "position": {"kind": "learned"}}),
    "tokens that mix": lambda: ModelConfig.from_dict({**TOKENS, "heads": MIXED_TOKENS}),
    "btlm": lambda: ModelConfig.from_dict({**TOKENS, "position": {"kind": "alibi"}}),
}
CASES = [(name, law) for name, config in CONFIGS.items() for law in config().laws]


def counted(call):
    """Operations that torch counts; its fused attention on the CPU would go uncounted."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def one_position(model, law, slots):
    """Read one window at the last of so many slots, then ask the heads of the law."""
    patch = model.config.patch
    window = torch.zeros(1, 1, patch, dtype=torch.int64)
    view = CacheView(model.new_cache(1, slots), None, torch.tensor([[slots - 1]]), slots)
    h = model(window, view)
    for n in range(1 if law == "next" else patch):
        model.heads.step(h, window, window[..., :n])


@pytest.mark.parametrize("slots", [1, 13])
@pytest.mark.parametrize(("name", "law"), CASES)
def test_operations_are_those_that_torch_counts(name, law, slots):
    config = CONFIGS[name]()
    model = build_model(config)
    positions = positions_per_symbol(config, law)
    found = operations_per_symbol(config, law, slots * config.patch)
    assert found / positions == counted(lambda: one_position(model, law, slots))


@pytest.mark.parametrize(("name", "law"), [case for case in CASES if case[0] in ("chained", "independent", "llama")])
def test_decoding_costs_so_much_for_each_symbol(name, law):
    config = CONFIGS[name]()
    model = build_model(config).eval()
    bos = BOS if config.patch == 4 else BOS[:0]
    prompt = torch.arange(36).numpy().astype("uint8")
    few, many = 4, 28

    def run(num):
        return counted(lambda: decode(make_target(model, law, bos), [prompt], max_new=num))

    # The first symbols come from the prefill and the last are not read; half-way stand 36 + 16 symbols.
    per_symbol = (run(many) - run(few)) / (many - few)
    before = len(bos) + len(prompt) + (few + many) / 2
    assert per_symbol == pytest.approx(operations_per_symbol(config, law, before), rel=0.02)


@pytest.mark.parametrize(("name", "law"), CASES)
def test_cache_bytes_are_those_of_a_cache(name, law):
    config = CONFIGS[name]()
    model = build_model(config).to(torch.bfloat16)
    target = make_target(model, law, BOS if config.patch == 4 else BOS[:0])
    sizes = []
    for length in (16, 96):
        with torch.no_grad():
            target.start([torch.zeros(length, dtype=torch.uint8).numpy()], 4, 0)
        sizes.append(target.cache.num_bytes)
    assert sizes[1] - sizes[0] == cache_bytes(config, law, 80, 2)


def test_weights_are_all_tensors_once():
    model = build_model(ModelConfig.from_dict({**TOKENS, "position": {"kind": "alibi"}}))
    assert model_bytes(model) == 4 * (model.config.num_parameters() + 4), "and the slopes of four heads"
    assert model_bytes(model.to(torch.bfloat16)) == 2 * (model.config.num_parameters() + 4)
    heads = {**TOKENS["heads"], "bias": False, "tied": True}
    tied = build_model(ModelConfig.from_dict({**TOKENS, "heads": heads}))
    assert model_bytes(tied) == 4 * tied.config.num_parameters()


def test_weights_in_four_bits_are_what_they_take():
    packed, scales = torch.zeros(64 * 8 // 2, dtype=torch.uint8), torch.ones(8)
    weight = FourBitWeight(packed, scales, code_book("nf4"), 64, (8, 64), "nf4", torch.float32)
    assert model_bytes(FourBitLinear(weight)) == weight.num_bytes == 256 + 4 * (8 + 16)
