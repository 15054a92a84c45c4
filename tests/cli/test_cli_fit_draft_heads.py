"""``bytelm fit`` on a frozen model of tokens, from the training of a toy model to its decoding with draft heads."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toy_checkpoints import write_gpt2, write_llama
from toy_tokenizer import with_tokenizer

import bytelm
from bytelm.decoding import HeadsDrafter, Sampling, decode
from bytelm.errors import CheckpointError
from bytelm.hub.checkpoint import load_checkpoint
from bytelm.hub.draft_heads import load_draft_heads
from bytelm.hub.family_folder import load_family
from bytelm.hub.import_weights import export_tensors
from bytelm.model.build import add_draft_heads
from bytelm.model.byte_lm import cross_entropy
from bytelm.model.ends import DraftHeadsConfig
from bytelm.model.targets import make_target

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

CONFIG = Path(__file__).parents[2] / "experiments" / "configs" / "draft_heads.yaml"
NUM_HEADS = 3
WHO = ("the baker", "a sailor", "my neighbour", "the old captain", "a tired painter")
DOES = ("carries", "is looking for", "repairs", "has forgotten", "sells")
WHAT = ("three lanterns", "the green boat", "a basket of plums", "seven letters", "the broken clock")
WHERE = ("near the harbour", "behind the mill", "on a Sunday morning", "under the bridge")


def sentences(num, seed):
    """Sentences of a small language, each drawn on its own."""
    rng = np.random.default_rng(seed)
    words = ([rng.choice(part) for part in (WHO, DOES, WHAT, WHERE)] for _ in range(num))
    return [" ".join(parts).capitalize() + "." for parts in words]


def train(folder, steps):
    """Let the model in a folder read the small language for a moment, in its own tokens."""
    found = load_family(folder)
    tokens = torch.from_numpy(found.tokenizer.encode("\n".join(sentences(400, seed=1))))
    optimizer = torch.optim.AdamW(found.model.parameters(), lr=4e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        begins = torch.randint(len(tokens) - 49, (16, 1), generator=generator)
        loss = cross_entropy(*found.model.predict(tokens[begins + torch.arange(49)])).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(found.model.parameters(), 1.0)
        optimizer.step()
    save_file(dict(export_tensors(found.model, found.family)), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The folder of a small LLaMA that knows the language."""
    return train(with_tokenizer(write_llama(tmp_path_factory.mktemp("frozen") / "llama")), 150)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of text of the language for training and for validation."""
    folder = tmp_path_factory.mktemp("texts")
    for name, seed in (("train", 2), ("valid", 3)):
        (folder / f"{name}.txt").write_text("\n".join(sentences(300, seed)), encoding="utf-8")
    return folder


@pytest.fixture
def options(frozen, texts, tmp_path):
    """The options of a short run of the shipped configuration, by dotted key."""
    return {
        "--config": CONFIG,
        "--model.frozen": frozen,
        "--model.draft_heads.num_heads": NUM_HEADS,
        "--model.optimizer.lr": 3e-2,
        "--model.optimizer.warmup_steps": 5,
        "--data.train": texts / "train.txt",
        "--data.valid": texts / "valid.txt",
        "--data.window": 48,
        "--data.batch_size": 16,
        "--data.valid_windows": 64,
        "--trainer.precision": "32-true",
        "--trainer.accelerator": "cpu",
        "--trainer.max_steps": 120,
        "--trainer.val_check_interval": 120,
        "--trainer.num_sanity_val_steps": 0,
        "--trainer.enable_progress_bar": "false",
        "--trainer.logger": "false",
        "--trainer.default_root_dir": tmp_path,
    }


@pytest.fixture
def fit(run, options):
    def call(*more, command="fit", **changes):
        chosen = {**options, **{f"--{key.replace('__', '.')}": value for key, value in changes.items()}}
        flat = [part for name, value in chosen.items() if value is not None for part in (name, value)]
        return run(command, *flat, *more, "--json")

    return call


def decoded(model, rows, num=0, **options):
    target = make_target(model, "next", np.zeros(0, np.int64))
    return decode(target, rows, drafter=HeadsDrafter(num) if num else None, **options)


@torch.no_grad()
def hits(model, rows):
    """For each prompt and head, whether the first draft after it is what the model goes on to say (greedy)."""
    said = np.stack(decoded(model, rows, max_new=NUM_HEADS + 1).symbols)[:, 1:]
    logits = [model.predict_drafts(torch.from_numpy(row)[None])[0][0, -1] for row in rows]
    return torch.stack(logits).argmax(-1).numpy() == said, said


def p_value(wins, losses):
    """Of a one-sided exact sign test (McNemar 1947): so many wins among wins and losses, were both equally likely."""
    num = wins + losses
    return sum(math.comb(num, i) for i in range(wins, num + 1)) / 2**num


def p_over_chance(right, said):
    """For each head, against the one token that is best to guess always, chosen in hindsight for these very prompts."""
    values = []
    for k in range(NUM_HEADS):
        constant = said[:, k] == np.bincount(said[:, k]).argmax()
        values.append(p_value(int((right[:, k] & ~constant).sum()), int((constant & ~right[:, k]).sum())))
    return values


def test_heads_fitted_on_a_frozen_model_draft_above_chance_and_change_nothing(run, fit, frozen, texts):
    before = {path.name: path.read_bytes() for path in frozen.iterdir()}
    result = fit().json
    assert set(result) == {"command", "run", "model", "step", "epoch", "metrics"}
    assert {path.name: path.read_bytes() for path in frozen.iterdir()} == before
    found = load_family(frozen)
    model, tokenizer = found.model, found.tokenizer
    load_draft_heads(Path(result["model"]), model)

    # One state of each of 200 texts that were drawn on their own. Heads no better than the best constant would have a
    # p-value below 1e-6 once in a million seeds, each.
    rng = np.random.default_rng(4)
    rows = [row[: rng.integers(8, 36)] for row in map(tokenizer.encode, sentences(200, seed=5))]
    right, said = hits(model, rows)
    assert max(p_over_chance(right, said)) < 1e-6
    untrained = load_family(frozen).model
    add_draft_heads(untrained, DraftHeadsConfig(num_heads=NUM_HEADS))
    never, _ = hits(untrained, rows)
    assert min(p_over_chance(never, said)) > 0.01, "untrained heads are not above chance: the test can tell"

    for sampling in (Sampling(), Sampling(do_sample=True, temperature=0.8)):
        plain = decoded(model, rows[:6], max_new=24, sampling=sampling, seed=7)
        found = decoded(model, rows[:6], NUM_HEADS, max_new=24, sampling=sampling, seed=7)
        assert [row.tolist() for row in found.symbols] == [row.tolist() for row in plain.symbols]
        poor = decoded(untrained, rows[:6], NUM_HEADS, max_new=24, sampling=sampling, seed=7)
        assert [row.tolist() for row in poor.symbols] == [row.tolist() for row in plain.symbols]
        assert found.stats.symbols_per_forward > poor.stats.symbols_per_forward + 0.5

    lm = bytelm.load(frozen, draft_heads=result["model"])
    prompts = [text[:20] for text in sentences(4, seed=6)]
    plain, found = (lm.generate(prompts, max_new_tokens=24, draft=draft) for draft in ("none", "heads"))
    assert found.texts == plain.texts
    assert found.stats.forwards < plain.stats.forwards
    said = run("generate", frozen, *prompts, "--max-new-tokens", 24, "--draft", result["model"], "--json").json
    assert (said["texts"], said["draft"], said["forwards"]) == (plain.texts, "heads", found.stats.forwards)
    heads = ["--draft-heads", f"toy={result['model']}", "--window", 12, "--context", 12, "--max-new-chars", 8]
    few = ["--limit", 3, "--prompts", 2, "--prompt-chars", 8, "--repeats", 1]
    speeds = run("compare", f"toy={frozen}", "--data", texts / "valid.txt", *heads, *few, "--json").json["speeds"]
    per_forward = {speed["draft"]: speed["chars_per_forward"] for speed in speeds}
    assert per_forward["heads"] > per_forward["none"]
    wrong = ["--draft-heads", f"other={result['model']}"]
    run("compare", f"toy={frozen}", "--data", texts / "valid.txt", *wrong).refused("--draft-heads: found 'other=")

    metrics = result["metrics"]
    for k in range(1, NUM_HEADS + 1):
        assert metrics[f"val/acceptance_head_{k}"] > metrics[f"val/constant_head_{k}"] + 0.05
        assert metrics[f"val/acceptance_head_{k}"] > metrics[f"val/untrained_head_{k}"] + 0.05


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """The folder of a small GPT-2 in bfloat16 that knows nothing."""
    return with_tokenizer(write_gpt2(tmp_path_factory.mktemp("frozen") / "gpt2", dtype=torch.bfloat16))


def test_checkpoints_hold_the_heads_alone_and_are_measured_again(fit, gpt2, frozen, tmp_path):
    short = {
        "model__frozen": gpt2,
        "model__draft_heads__unembedding": "own",
        "trainer__max_steps": 4,
        "trainer__val_check_interval": 4,
    }
    fitted = fit(**short).json["metrics"]
    path = max(tmp_path.rglob("*.ckpt"))
    saved = torch.load(path, weights_only=True)
    weights = saved["state_dict"]
    assert {name.split(".")[1] for name in weights} == {"draft_heads"}
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    (optimizer,) = saved["optimizer_states"]
    assert len(optimizer["state"]) == len(weights) == 1 + NUM_HEADS
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == len(weights)
    kept = {name for name in fitted if name.startswith("val/")}
    again = fit("--ckpt_path", path, command="validate", **short).json["metrics"]
    assert again == pytest.approx({name: fitted[name] for name in kept}, abs=1e-6)
    fresh = fit(command="validate", **short).json["metrics"]
    assert fresh.keys() == kept
    for k in range(1, NUM_HEADS + 1):
        assert fresh[f"val/acceptance_head_{k}"] == pytest.approx(fresh[f"val/untrained_head_{k}"], abs=0.02)
    validated = fit("--ckpt_path", path, command="validate", **{**short, "model__frozen": frozen})
    validated.refused("checkpoint: found draft heads of another model of these sizes")
    fewer = fit("--ckpt_path", path, command="validate", **{**short, "model__draft_heads__num_heads": 2})
    fewer.refused("checkpoint: found the draft heads", "'num_heads': 3", "expected", "'num_heads': 2")


def test_heads_of_bfloat16_weights_learn_in_float32(fit, gpt2):
    result = fit(model__frozen=gpt2, trainer__max_steps=2, trainer__val_check_interval=2).json
    model = load_family(gpt2).model
    load_draft_heads(Path(result["model"]), model)
    assert model.draft_heads.residual.weight.dtype == torch.bfloat16
    assert json.loads((Path(result["model"]) / "config.json").read_text())["provenance"]["step"] == 2
    with pytest.raises(CheckpointError, match=r"config\.json: format 'bytelm-draft-heads', expected 'bytelm'"):
        load_checkpoint(Path(result["model"]))
    fit(model__frozen=result["model"]).refused(result["model"])


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model__frozen": "/nonexistent"}, ("/nonexistent: no such folder",)),
        ({"model__draft_heads__num_heads": 0}, ("model.draft_heads.num_heads: found 0",)),
        ({"model__draft_heads__unembedding": "tied"}, ("model.draft_heads.unembedding: found 'tied'", "'own'")),
        ({"model__encoding": "utf8"}, ("model.encoding: unknown option",)),
        ({"model__dtype": "int8"}, ("model.dtype: found int8", "bfloat16")),
        ({"data__window": 65}, ("data.window: found 65", "more than the 3 tokens", "context of 64")),
        ({"data__window": 3}, ("data.window: found 3", "more than the 3 tokens")),
        ({"data__batch_size": 0}, ("data.batch_size: found 0",)),
        ({"data__train": "/nonexistent.txt"}, ("/nonexistent.txt: no such file",)),
        ({"data__train": "null"}, ("data.train: missing, expected files or folders of text",)),
        ({"data__max_tokens": 20}, ("data.train: found 20 tokens, expected at least one window of 48",)),
        ({"trainer__callbacks": "bytelm.training.callbacks.LogSamples"}, ("LogSamples", "byte model only")),
    ],
)
def test_what_is_refused(fit, gpt2, changes, parts):
    fit(**{"model__frozen": gpt2, **changes}).refused(*parts)


def test_options_of_draft_heads_are_helped_with(run, gpt2):
    status, out, _ = run("fit", "--model.frozen", gpt2, "--help")
    assert status == 0
    assert "--model.draft_heads" in out
    assert "--data.max_tokens" in out
