"""Tiny models, and the plain ways to get from committed bytes to a law's logits, without cache or block."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from bytelm.cli.bench_model import stand_in
from bytelm.decoding import warp
from bytelm.decoding.noise import GumbelNoise, row_seeds
from bytelm.encoding import get_encoding
from bytelm.hub import LanguageModel
from bytelm.model import ModelConfig, build_model
from bytelm.model.build import build_noise_model
from bytelm.model.byte_lm import soft_cross_entropy
from bytelm.model.ends import NextPatchConfig
from bytelm.model.presets import get_preset
from bytelm.tokenizer import Tokenizer

BOS = np.array([249, 249, 249, 249], np.uint8)
"""A BOS patch; its values do not matter to a model that was not trained."""

LIGHTNING_ADVICE = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory"),
]
"""Marks of tests that train for a moment: what Lightning advises for longer runs is no warning there."""

TEXTS = [
    "朝の港に白い船が三隻ならび、市場には魚を選ぶ人の声がひびいた。",
    "山のふもとの小さな駅で、電車は二十分ほど雪が止むのを待っていた。",
    "祖母の台所には、乾いた昆布と古い時計と、夏の終わりの匂いがあった。",
    "図書館の窓から見える川は、雨のあとだけ少し速く流れる。",
]
"""Sentences to train on for a moment."""

KINDS = [
    ("independent", False),
    ("independent", True),
    ("chained", False),
    ("chained", True),
]
"""Head kinds, without and with n-gram tables (at the merger, and in the heads that can have them)."""

LAWS = [
    ("product", "independent", False),
    ("next", "independent", False),
    ("chain", "chained", False),
    ("next", "chained", False),
    ("chain", "chained", True),
    ("next", "chained", True),
]
"""Every law of every kind of heads (independent heads have no tables)."""


def tiny_config(kind="chained", tables=False, **changes) -> ModelConfig:
    """Width 32, 2 blocks; ``changes`` replace fields of the model."""
    ngrams = {"orders": [2, 3, 4], "rows": 61} if tables else None
    heads = {"kind": kind} if kind == "independent" else {"kind": kind, "byte_width": 16, "inner": 16, "tables": ngrams}
    config = ModelConfig.from_dict(
        {
            "width": 32,
            "num_blocks": 2,
            "attention": {"num_heads": 2, "num_kv_heads": 1, "head_width": 16},
            "feedforward": {"inner": 48},
            "merger": {"byte_width": 16, "tables": ngrams},
            "heads": heads,
            "context": 256,
        }
    )
    return dataclasses.replace(config, **changes)


def tiny_model(kind="chained", tables=False, seed=0, scale=8.0, **changes):
    """A model with random weights, so large (``scale``) that all parts of it matter and predictions are not flat."""
    model = build_model(tiny_config(kind, tables, **changes), seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
            else:
                parameter.copy_(torch.linspace(0.5, 1.5, len(parameter)))
    return model


@functools.cache
def trained_model(kind, steps=80, lr=1e-2, next_patch=False):
    """A tiny model (chained: with tables) that has read ``TEXTS`` in dense-ja for a moment, and its encoding."""
    encoding = get_encoding("dense-ja")
    data = encoding.encode("".join(TEXTS) * 4)
    changes = {"next_patch": NextPatchConfig(byte_width=6, inner=20, depth=2)} if next_patch else {}
    model = build_model(tiny_config(kind, kind == "chained", **changes), 0).train()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    text = torch.from_numpy(data.astype(np.int64))
    for _ in range(steps):
        begins = torch.randint(len(text) - 52, (6, 1), generator=generator)
        windows = text[begins + torch.arange(52)]
        loss = model.patch_nats(windows).mean()
        if next_patch:
            h, patches, targets = model.read(windows)
            logits = model.heads(h, patches, targets)
            for n, ahead in enumerate(model.predict_ahead(h, patches, targets), 1):
                loss = loss + soft_cross_entropy(ahead, logits[:, n:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), encoding


def trained_lm(kind, **options):
    """The model of :func:`trained_model` as a language model."""
    model, encoding = trained_model(kind, **options)
    return LanguageModel(model, Tokenizer(encoding))


class Uncached:
    """The logits of one row by a full forward of all its bytes. States are remembered: they do not depend on a law."""

    def __init__(self, model):
        self.model, self.states = model, {}

    @torch.inference_mode()
    def logits(self, law, committed, start, prefix=None):
        """Logits of the byte after ``committed`` (BOS included).

        ``start``: where ``product`` and ``chain`` align their patches. ``prefix``: bytes of the patch that the heads
        are told on top (``next``: the guess of head len(prefix) + 1, as when drafting).
        """
        patch = self.model.config.patch
        into_patch = 0 if law == "next" else (len(committed) - start) % patch
        prefix = list(committed[len(committed) - into_patch :]) if prefix is None else list(prefix)
        body = bytes(
            committed[len(committed) % patch if law == "next" else start % patch : len(committed) - into_patch]
        )
        if body not in self.states:
            windows = torch.tensor(list(body)).view(1, -1, patch)
            self.states[body] = self.model(windows)[:, -1], self.model.windows_of_heads(windows)[:, -1]
        h, window = self.states[body]
        return self.model.heads.step(h, window, torch.tensor([prefix], dtype=torch.int64).view(1, -1))[0]


@torch.inference_mode()
def naive_generate(model, law, prompts, sampling, max_new, seed=0, bos=BOS):
    """One byte at a time, one row at a time, no cache, no block, no draft: symbols and nats of each row."""
    symbols, nats, uncached = [], [], Uncached(model)
    for row, prompt in enumerate(prompts):
        committed = [*bos.tolist(), *prompt.tolist()]
        start = len(committed)
        noise = GumbelNoise(row_seeds(seed, len(prompts))[row : row + 1])
        row_nats = []
        for i in range(max_new):
            logits = uncached.logits(law, committed, start)[None]
            if sampling.greedy:
                symbol = int(logits.argmax())
            else:
                symbol = int((warp(logits, sampling) + noise(np.array([i]), 1, 256)[:, 0]).argmax())
            row_nats.append(-float(logits[0].double().log_softmax(-1)[symbol]))
            committed.append(symbol)
        symbols.append(np.array(committed[start:], np.uint8))
        nats.append(np.array(row_nats))
    return symbols, nats


def random_bytes(length, seed=0):
    """Bytes that text of no encoding in particular has."""
    return np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8)


def gptj_config(*, tied=False) -> ModelConfig:
    """The preset ``gptj-toy``; with ``tied``, its head uses the embedding's table."""
    config = get_preset("gptj-toy")
    return dataclasses.replace(config, heads=dataclasses.replace(config.heads, tied=tied))


def gptj_toy(dtype, *, tied=False) -> LanguageModel:
    """A GPT-J with random weights and a made-up vocabulary."""
    config = gptj_config(tied=tied)
    return LanguageModel(build_noise_model(config, dtype).eval(), stand_in(config.vocab_size))


def bytes_kept(module, call):
    """Bytes of the storages that autograd keeps of a call, weights of the module left out."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result.requires_grad  # and it lives until here
    return sum(storage.nbytes() for storage in kept.values())
