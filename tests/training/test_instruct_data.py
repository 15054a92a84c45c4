import json
import logging

import lightning as L
import numpy as np
import pytest
import torch
from support import KINDS, LIGHTNING_ADVICE, tiny_config, tiny_model

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError, CorpusError
from bytelm.hub import LanguageModel
from bytelm.model.byte_lm import cross_entropy
from bytelm.model.ends import NextPatchConfig
from bytelm.tokenizer import Tokenizer
from bytelm.training import ByteLMModule, InstructData, LossConfig, OptimizerConfig
from bytelm.training.loss import TrainingLoss

pytestmark = LIGHTNING_ADVICE
ENCODING = get_encoding("dense-ja")
TOKENIZER = Tokenizer(ENCODING)
PAIRS = [("赤い花は", "椿"), ("海の色は", "青い"), ("山の上の", "雪"), ("犬", "わんと鳴く"), ("猫が", "眠る。")]
OPTIMIZER = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=5)


def write(path, pairs):
    lines = (json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) for p, c in pairs)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def module(**options):
    return ByteLMModule(config=tiny_config("chained"), optimizer=OPTIMIZER, **options)


def batches(data, split="train"):
    data.check(split, module())
    return list(data.train_dataloader() if split == "train" else data._in_order(split))


def test_targets_are_the_bytes_of_completions_and_eos_in_every_phase(tmp_path):
    data = InstructData(write(tmp_path / "p.jsonl", PAIRS * 40), window=64, batch_size=7)
    rows = {p + c: (p, c) for p, c in PAIRS}
    phases = set()
    for batch in batches(data):
        assert batch.bytes_BL.shape[1] % 4 == 0
        for row, counts in zip(batch.bytes_BL.numpy(), batch.counts_BL.numpy(), strict=True):
            text = TOKENIZER.decode(row, skip_controls=True)
            prompt, completion = rows[text]
            counted = row[counts]
            assert counted.tobytes() == ENCODING.encode(completion).tobytes() + ENCODING.controls["<|eos|>"]
            before = row[: counts.argmax()]
            phase = 4 + len(ENCODING.encode(prompt)) - len(before)
            assert before.tobytes() == (ENCODING.controls["<|bos|>"] * 4)[phase:] + ENCODING.encode(prompt).tobytes()
            after = row[len(before) + len(counted) :]
            assert set(after.tobytes()) <= set(ENCODING.controls["<|pad|>"])
            phases.add((prompt, phase))
    assert len(phases) == 4 * len(PAIRS)  # 40 draws for each


def test_without_a_draw_the_patches_begin_where_those_of_generate_do(tmp_path):
    data = InstructData(valid_pairs=write(tmp_path / "p.jsonl", PAIRS), window=64)
    (batch,) = batches(data, "valid")
    assert ((~batch.counts_BL).long().cumprod(1).sum(1) % 4 == 0).all()
    assert data.size("valid").symbols == batch.counts_BL.sum()
    assert data.size("valid").characters == sum(len(c) for _, c in PAIRS)


def test_order_and_phases_are_those_of_seed_and_epoch(tmp_path, monkeypatch):
    path = write(tmp_path / "p.jsonl", PAIRS * 4)

    def first(seed, epoch):
        data = InstructData(path, window=64, batch_size=20, seed=seed)
        data.check("train", module())
        data.trainer = L.Trainer(accelerator="cpu", logger=False)
        monkeypatch.setattr(L.Trainer, "current_epoch", epoch)
        return next(iter(data.train_dataloader())).bytes_BL

    assert torch.equal(first(1, 0), first(1, 0))
    assert not torch.equal(first(1, 0), first(1, 1))
    assert not torch.equal(first(1, 0), first(2, 0))


@pytest.mark.parametrize("options", [{}, {"z_loss": 1e-3}, {"head_weights": (1.0, 0.5, 0.5, 2.0)}], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_labels_of_prompts_never_change_a_gradient_and_those_of_completions_do(kind, options):
    """Labels alone are changed: the bytes that are read stay."""
    model, loss = tiny_model(*kind), TrainingLoss(LossConfig(**options), 4, ENCODING)
    prompt, completion = ENCODING.encode("海の色"), ENCODING.encode("青い")
    row = np.concatenate((TOKENIZER.bos_patch(4), prompt, completion, TOKENIZER.eos))
    row = np.concatenate((row, np.repeat(np.uint8(ENCODING.controls["<|pad|>"][0]), -len(row) % 4)))
    bytes_BL = torch.from_numpy(row)[None]
    places = torch.arange(len(row))
    begin, end = 4 + len(prompt), 4 + len(prompt) + len(completion) + 1
    assert begin % 4  # a patch has bytes of both
    counts = ((places >= begin) & (places < end)).view(1, -1, 4)[:, 1:]

    def gradients(targets):
        h, windows, _ = model.read(bytes_BL)
        logits = model.heads(h, windows, bytes_BL.long().view(1, -1, 4)[:, 1:])
        value, _ = loss.reduce(logits, targets, counts, 0.0)
        return torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad], allow_unused=True)

    targets = bytes_BL.long().view(1, -1, 4)[:, 1:]
    expected = gradients(targets)
    for t, k in (~counts[0]).nonzero().tolist():
        other = targets.clone()
        other[0, t, k] = (other[0, t, k] + 17) % 256
        assert all(a is b or torch.equal(a, b) for a, b in zip(gradients(other), expected, strict=True))
    for t, k in counts[0].nonzero().tolist():
        other = targets.clone()
        other[0, t, k] = (other[0, t, k] + 17) % 256
        assert any(a is not b and not torch.equal(a, b) for a, b in zip(gradients(other), expected, strict=True))


def test_the_loss_is_the_mean_over_the_bytes_that_count():
    model = tiny_model("chained", next_patch=NextPatchConfig(byte_width=6, inner=20))
    bytes_BL = torch.randint(0, 256, (3, 32), generator=torch.Generator().manual_seed(1)).byte()
    counts_BL = torch.rand(3, 32, generator=torch.Generator().manual_seed(2)) < 0.3
    loss, figures = TrainingLoss(LossConfig(), 4, ENCODING)(model, bytes_BL, 0.0, counts_BL)
    nats = cross_entropy(*model.predict(bytes_BL))
    counted = nats[counts_BL.view(3, -1, 4)[:, 1:]]
    torch.testing.assert_close(figures["loss"], counted.mean())
    torch.testing.assert_close(figures["nats_per_byte"], counted.mean())
    torch.testing.assert_close(loss, figures["loss"] + figures["next_patch_nats"])


def fit(model, data, folder, epochs):
    trainer = L.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        check_val_every_n_epoch=epochs,
        gradient_clip_val=1.0,
    )
    trainer.fit(model, datamodule=data)
    return trainer


def test_completions_are_learned_and_generated(tmp_path):
    """Of a model that saw each prompt end in either of two ways, it is the one of the pairs that comes."""
    path, once = write(tmp_path / "p.jsonl", PAIRS * 24), write(tmp_path / "once.jsonl", PAIRS)
    trained = module(seed=1)
    data = InstructData(path, once, window=64, batch_size=8)
    before = LanguageModel(trained.model, TOKENIZER).generate([p for p, _ in PAIRS], max_new_tokens=24)
    trained.train()
    trainer = fit(trained, data, tmp_path, 12)
    assert before.texts != [c for _, c in PAIRS]
    assert float(trainer.callback_metrics["val/bits_per_char"]) < 0.5
    lm = LanguageModel(trained.model, TOKENIZER)
    for law in lm.laws:
        out = lm.generate([p for p, _ in PAIRS], max_new_tokens=24, law=law)
        assert out.texts == [c for _, c in PAIRS], law
        assert set(out.finish) == {"stop"}


def test_a_pair_that_is_too_long_is_said_counted_and_left_out(tmp_path, caplog):
    pairs = [PAIRS[0], ("長い話を", "む" * 80), *PAIRS[1:3], ("き" * 90, "短い")]
    data = InstructData(write(tmp_path / "p.jsonl", pairs), window=64, batch_size=8)
    with caplog.at_level(logging.WARNING):
        (batch,) = batches(data)
    assert len(batch.bytes_BL) == 3
    assert data.num_too_long == {"train": 2}
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"data.pairs: {tmp_path / 'p.jsonl'}:2: a pair of ")
    assert "p.jsonl:5: " in said[1]
    assert said[-1] == "data.pairs: 2 of 5 pairs are left out"


BAD = [
    ('{"prompt": "あ"}', "found 'prompt', expected a JSON object with a string field 'completion'"),
    ('{"completion": "あ"}', "found 'completion', expected a JSON object with a string field 'prompt'"),
    ('{"prompt": ["あ"], "completion": "い"}', "found a list as 'prompt'"),
    ('{"prompt": "あ", "completion": null}', "found null as 'completion'"),
    ('{"prompt": "あ" "completion": "い"}', "found no JSON"),
    ('{"prompt": "\\\\ud83d", "completion": "い"}'.replace("\\\\", "\\"), "lone surrogate"),
    ('{"prompt": "あ<|eos|>", "completion": "い"}', "prompt: text index 1: found the control string <|eos|>"),
    ("[]", "found a list"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_line_is_one_error_with_file_and_line(tmp_path, line, message):
    path = write(tmp_path / "p.jsonl", PAIRS[:2])
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError) as error:
        InstructData(path, window=64).check("train", module())
    assert str(error.value).startswith(f"{path}:4: ")
    assert message in str(error.value)


def test_what_has_no_pairs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.valid_pairs: missing"):
        InstructData().check("valid", module())
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.txt: found plain text"):
        InstructData(tmp_path / "a.txt").check("train", module())
    path = write(tmp_path / "long.jsonl", [("長" * 90, "い")])
    with pytest.raises(CorpusError, match="found no pair that fits, expected at least one of at most 68 bytes"):
        InstructData(path, window=64).check("train", module())
    with pytest.raises(ConfigError, match="window: found 63"):
        InstructData(path, window=63)
