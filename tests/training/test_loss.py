import dataclasses

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import KINDS, LIGHTNING_ADVICE, TEXTS, tiny_config, tiny_model

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.model.byte_lm import cross_entropy, soft_cross_entropy
from bytelm.model.ends import NextPatchConfig
from bytelm.tokenizer import Tokenizer
from bytelm.training import ByteLMModule, CorpusData, LossConfig, OptimizerConfig
from bytelm.training.loss import TrainingLoss, num_trained_heads

pytestmark = LIGHTNING_ADVICE
ENCODING = get_encoding("dense-ja")


def stream(encoding=ENCODING):
    """Documents as a corpus has them: BOS patch, text, EOS."""
    bos, eos = encoding.controls["<|bos|>"], encoding.controls["<|eos|>"]
    parts = [bos * (4 // len(bos)) + encoding.encode(text).tobytes() + eos for text in [*TEXTS, "", "月", *TEXTS]]
    return np.frombuffer(b"".join(parts), np.uint8)


def windows(num=5, length=52):
    data = stream()
    return torch.from_numpy(np.stack([data[i * 31 : i * 31 + length] for i in range(num)]))


def gradients(loss, model):
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}


def loss_of(model, batch, progress=0.0, encoding=ENCODING, **config):
    return TrainingLoss(LossConfig(**config), model.config.patch, encoding)(model, batch, progress)


def nats_of(model, batch):
    """Nats of each byte and log Z of its logits, in float64: (B, T, K) each."""
    with torch.no_grad():
        logits, targets = model.predict(batch)
    log_z = np.log(np.exp(logits.double().numpy()).sum(-1))
    return log_z - np.take_along_axis(logits.double().numpy(), targets.numpy()[..., None], -1)[..., 0], log_z


@pytest.mark.parametrize("kind", [*KINDS, ("chained", False, "next_patch")], ids=str)
def test_by_default_loss_and_gradients_are_to_the_bit_those_of_the_plain_mean(kind):
    changes = {"next_patch": NextPatchConfig(byte_width=6, inner=20)} if len(kind) > 2 else {}
    model, batch = tiny_model(*kind[:2], scale=2.0, **changes), windows()
    h, patches, targets = model.read(batch)
    logits = model.heads(h, patches, targets)
    expected = nats = cross_entropy(logits, targets).mean()
    if changes:
        ahead = model.predict_ahead(h, patches, targets)
        drafts = torch.stack([soft_cross_entropy(guess, logits[:, n:]).mean() for n, guess in enumerate(ahead, 1)])
        expected = nats + drafts.mean()
    found, figures = loss_of(model, batch, 0.3)
    assert torch.equal(found, expected)
    assert torch.equal(figures["nats_per_byte"], nats)
    assert figures.keys() == {"nats_per_byte", *(["next_patch_nats"] if changes else [])}
    wanted = gradients(expected, model)
    assert all(torch.equal(g, wanted[n]) for n, g in gradients(found, model).items())
    weighed, figures = loss_of(model, batch, head_weights=(2.0,) * 4)
    torch.testing.assert_close(weighed, expected)
    assert torch.equal(figures["nats_per_byte"], nats)


@pytest.mark.parametrize("kind", ["independent", "chained"])
def test_head_weights_are_those_of_a_weighted_mean(kind):
    model, batch = tiny_model(kind), windows()
    by_head = nats_of(model, batch)[0].mean((0, 1))
    for weights in [(1.0, 0.5, 0.25, 0.125), (1.0, 0.0, 0.0, 0.0), (3.0, 1.0, 1.0, 5.0)]:
        loss, figures = loss_of(model, batch, head_weights=weights)
        assert loss.item() == pytest.approx(np.average(by_head, weights=weights), rel=1e-5)
        assert figures["loss"].item() == loss.item()
        assert figures["nats_per_byte"].item() == pytest.approx(by_head.mean(), rel=1e-5)


@given(st.floats(0, 10), st.sampled_from(["independent", "chained"]))
def test_z_loss_is_the_squared_logarithm_of_the_normaliser(coefficient, kind):
    model, batch = tiny_model(kind), windows(2)
    nats, log_z = nats_of(model, batch)
    assert np.abs(log_z).max() > 6  # so that the term is no small one
    loss, figures = loss_of(model, batch, z_loss=coefficient)
    assert loss.item() == pytest.approx((nats + coefficient * log_z**2).mean(), rel=1e-5)
    assert figures["nats_per_byte"].item() == pytest.approx(nats.mean(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_detached_heads_learn_as_ever_and_the_body_from_head_1_alone(kind):
    model, batch = tiny_model(*kind), windows()
    full, plain = gradients(loss_of(model, batch)[0], model), loss_of(model, batch)[0]
    first = gradients(cross_entropy(*model.predict(batch))[..., 0].mean() / 4, model)
    loss, _ = loss_of(model, batch, detach_heads=True)
    torch.testing.assert_close(loss, plain)
    for name, found in gradients(loss, model).items():
        expected = full if name.startswith("heads.") else first
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6)
        if not name.startswith("heads."):
            assert (found - full[name]).abs().max() > 1e-4, name


def test_heads_come_in_at_equal_stages():
    stages = [num_trained_heads(4, 1.0, step / 100) for step in range(101)]
    assert stages == [1] * 25 + [2] * 25 + [3] * 25 + [4] * 26
    stages = [num_trained_heads(4, 0.5, step / 80) for step in range(81)]
    assert stages == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 51
    assert {num_trained_heads(4, 0.0, step / 100) for step in range(101)} == {4}
    assert {num_trained_heads(1, 1.0, step / 100) for step in range(101)} == {1}


@given(st.integers(1, 8), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_heads_that_came_in_stay(num_heads, curriculum, a, b):
    fewer, more = (num_trained_heads(num_heads, curriculum, progress) for progress in sorted((a, b)))
    assert 1 <= fewer <= more <= num_heads
    assert num_trained_heads(num_heads, curriculum, 1.0) == num_heads


@pytest.mark.parametrize("kind", ["independent", "chained"])
@pytest.mark.parametrize(("progress", "trained"), [(0.0, 1), (0.3, 2), (0.6, 3), (0.9, 4)])
def test_a_stage_trains_the_heads_that_have_come_in(kind, progress, trained):
    model, batch = tiny_model(kind), windows()
    by_head, weights = nats_of(model, batch)[0].mean((0, 1)), (4.0, 3.0, 2.0, 1.0)
    loss, _ = loss_of(model, batch, progress, curriculum=1.0)
    assert loss.item() == pytest.approx(by_head[:trained].mean(), rel=1e-5)
    found = gradients(loss, model)
    for j in range(4):
        if kind == "independent":
            grad = found["heads.unembedding.weight"][256 * j : 256 * (j + 1)]
        else:
            grad = found[f"heads.unembeddings.{j}.weight"]
        assert bool(grad.any()) == (j < trained)
    weighed, _ = loss_of(model, batch, progress, curriculum=1.0, head_weights=weights)
    assert weighed.item() == pytest.approx(np.average(by_head[:trained], weights=weights[:trained]), rel=1e-5)


def own_bytes(encoding):
    """Of each byte of the stream, whether it belongs to PAD or BOS, by cutting the whole stream into words."""
    data = stream(encoding)
    values, starts = encoding.parse(data)
    return np.repeat(np.isin(values, (-1, -2)), np.diff([*starts, len(data)]))


@pytest.mark.parametrize("name", ["dense-ja", "dense-mul", "utf8"])
def test_masked_controls_are_no_targets_at_whatever_byte_a_window_begins(name):
    encoding, model = get_encoding(name), tiny_model("chained", scale=3.0)
    data, own = stream(encoding), own_bytes(encoding)
    assert own.sum() == 4 * 10
    for begin in [0, 1, 2, 3, *range(len(data) // 2, len(data) // 2 + 3), len(data) - 200]:
        places = begin + np.arange(40)[None] + np.array([[0], [97]])
        batch, masked = torch.from_numpy(data[places]), own[places][:, 4:].reshape(2, 9, 4)
        nats = nats_of(model, batch)[0]
        loss, figures = loss_of(model, batch, mask_controls=True, encoding=encoding)
        assert loss.item() == pytest.approx(nats[~masked].mean(), rel=1e-5)
        assert figures["nats_per_byte"].item() == pytest.approx(nats.mean(), rel=1e-5)
        if masked.any():
            assert loss.item() != pytest.approx(nats.mean(), rel=1e-6)


def test_the_mask_is_of_pad_and_bos_and_neither_text_nor_end():
    loss = TrainingLoss(LossConfig(mask_controls=True), 4, ENCODING)
    assert loss.masked_V.nonzero().flatten().tolist() == sorted(
        ENCODING.controls[name][0] for name in ("<|pad|>", "<|bos|>")
    )
    assert not loss.masked_V[torch.from_numpy(ENCODING.encode("".join(TEXTS)).astype(np.int64))].any()
    assert Tokenizer(ENCODING).bos_token == "<|bos|>"


def test_a_batch_of_nothing_but_masked_targets_is_no_step():
    model, batch = tiny_model("chained"), torch.full((2, 12), ENCODING.controls["<|pad|>"][0], dtype=torch.uint8)
    loss, _ = loss_of(model, batch, mask_controls=True, z_loss=1e-4)
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, model).values())


def test_options_add_up():
    model, batch = tiny_model("chained"), windows()
    weights = (4.0, 3.0, 2.0, 1.0)
    nats, log_z = nats_of(model, batch)
    counted = ~np.isin(batch.numpy()[:, 4:].reshape(nats.shape), [0xF8, 0xF9])
    shares = np.array(weights) * counted * (np.arange(4) < 3)
    loss, _ = loss_of(
        model, batch, 0.6, head_weights=weights, curriculum=1.0, z_loss=1e-3, detach_heads=True, mask_controls=True
    )
    assert loss.item() == pytest.approx(np.average(nats + 1e-3 * log_z**2, weights=shares), rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head_weights", ()),
        ("head_weights", (0.0, 1.0)),
        ("head_weights", (1.0, -1.0)),
        ("head_weights", (1.0, float("inf"))),
        ("head_weights", (1.0, float("nan"))),
        ("curriculum", -0.1),
        ("curriculum", 1.1),
        ("z_loss", -1.0),
        ("z_loss", float("nan")),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(ConfigError, match=rf"^loss\.{field}: found .*, expected"):
        LossConfig.from_dict({field: value}, "loss")


def test_what_does_not_fit_the_model_or_its_encoding_is_refused():
    with pytest.raises(
        ConfigError, match=r"^model\.loss\.head_weights: found 3 numbers, expected 4, one for each head"
    ):
        ByteLMModule(config=tiny_config(), loss=LossConfig(head_weights=(1.0, 1.0, 1.0)))
    for name in ("utf16", "utf32", "ranked2"):
        with pytest.raises(ConfigError, match=rf"^model\.loss\.mask_controls: found encoding '{name}', expected one"):
            ByteLMModule(config=tiny_config(), encoding=name, loss=LossConfig(mask_controls=True))


class Watcher(L.Callback):
    """Which unembeddings each step of the optimiser changed, and what was logged."""

    def __init__(self):
        self.changed, self.logged, self.before = [], [], None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        now = [head.weight.detach().clone() for head in module.model.heads.unembeddings]
        if self.before is not None and trainer.global_step > len(self.changed):
            self.changed.append([not torch.equal(a, b) for a, b in zip(now, self.before, strict=True)])
        self.before = now
        self.logged.append({n for n in trainer.callback_metrics if n.startswith("train/")})

    def on_train_start(self, trainer, module):
        self.before = [head.weight.detach().clone() for head in module.model.heads.unembeddings]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_curriculum_follows_the_steps_of_a_run(accumulate, corpora, tmp_path):
    optimizer = OptimizerConfig(lr=1e-3, warmup_steps=1, weight_decay=0.0)
    module = ByteLMModule(config=tiny_config(), optimizer=optimizer, loss=LossConfig(curriculum=1.0))
    watcher = Watcher()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=8,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        callbacks=[watcher],
    )
    trainer.fit(module, CorpusData(corpora["train"], window=48, batch_size=4))
    assert [sum(heads) for heads in watcher.changed] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(sorted(heads, reverse=True) == heads for heads in watcher.changed)
    assert watcher.logged[-1] == {"train/nats_per_byte", "train/loss"}


def test_the_module_keeps_nothing_of_the_loss_in_a_checkpoint():
    plain = ByteLMModule(config=tiny_config())
    config = dataclasses.replace(LossConfig(), head_weights=(1.0, 0.5, 0.5, 0.5), mask_controls=True)
    other = ByteLMModule(config=tiny_config(), loss=config)
    assert plain.state_dict().keys() == other.state_dict().keys()
