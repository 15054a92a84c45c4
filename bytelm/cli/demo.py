"""``bytelm demo``: the whole path on the embedded default text, from corpus to pictures."""

import json
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from bytelm.benchmarks import DecodingSpeed, decoding_ways, measure_decoding
from bytelm.cli.bench_report import format_speeds
from bytelm.cli.console import format_table, shows_progress, working
from bytelm.corpus import DEFAULT_PROMPTS, build_corpus, split_default_texts
from bytelm.encoding import get_encoding
from bytelm.evaluation import CharacterNgram
from bytelm.evaluation.plots import plot_head_bits, plot_loss, plot_text
from bytelm.hub import LanguageModel, Output, load, save_checkpoint
from bytelm.hub.shipped import DEFAULT_MODEL, shipped_folder
from bytelm.model import build_model
from bytelm.model.config import NgramConfig
from bytelm.model.ends import ChainedHeadsConfig, MergerConfig
from bytelm.model.presets import get_preset
from bytelm.tokenizer import Tokenizer
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig
from bytelm.training.history import read_history
from bytelm.training.quiet import quiet_lightning

ENCODING = "dense-ja"
NUM_STEPS = 500
BATCH_SIZE, WINDOW = 16, 512
NUM_VALIDATIONS = 10
MEASURED_BYTES, SAMPLED_BYTES = 96, 160


@dataclass(frozen=True)
class DemoReport:
    """The figures of the demo's table; ``bits_per_char`` are of the same held-out text."""

    held_out_documents: int
    held_out_characters: int
    bits_per_char: dict[str, float]
    decoding: dict[str, list[DecodingSpeed]]
    beats_trigram: bool
    train_seconds: float
    total_seconds: float
    pictures: list[str]


def run_demo(out: Path, console: Console, steps: int = NUM_STEPS) -> DemoReport:
    """Build a corpus, train, score, generate, draw; everything is written below ``out``.

    Args:
        out: folder for corpora, run, model and pictures; made if need be, files of an earlier demo are replaced.
        console: where progress and tables go.
        steps: optimiser steps.
    """
    began = time.perf_counter()
    quiet_lightning()
    train_texts, held_out = split_default_texts()
    data = _build_corpora(out, train_texts, held_out, console)
    module, trained_in = _train(out, data, steps)
    encoding = get_encoding(ENCODING)
    before = LanguageModel(build_model(module.config, seed=module.seed), Tokenizer(encoding))
    lm = LanguageModel(module.model, Tokenizer(encoding))
    save_checkpoint(out / "model", module.model, encoding, {"step": steps, "text": "embedded default"})
    shipped = load(DEFAULT_MODEL) if shipped_folder(DEFAULT_MODEL) else None
    with working("scoring"):
        bits = _bits_per_char(before, lm, train_texts, held_out)
        if shipped is not None:
            bits[f"{DEFAULT_MODEL}, {shipped.law}"] = shipped.score(held_out).total.bits_per_char
    with working("measuring decoding"):
        ways = decoding_ways(lm, drafts=("none", "heads"))
        speeds = {
            name: measure_decoding(
                lm, DEFAULT_PROMPTS, ways=ways, temperature=temperature, max_new_tokens=MEASURED_BYTES, repeats=2
            )
            for name, temperature in (("greedy", 0.0), ("sampled", 1.0))
        }
    with working("generating and drawing"):
        samples = _sample(lm)
        texts = {"the trained model": samples.texts}
        if shipped is not None:
            texts[f"{DEFAULT_MODEL}, which comes with the package"] = _sample(shipped).texts
        pictures = _draw(out, lm, samples)
    best = min(value for name, value in bits.items() if name.startswith("after"))
    report = DemoReport(
        held_out_documents=len(held_out),
        held_out_characters=sum(map(len, held_out)),
        bits_per_char=bits,
        decoding=speeds,
        beats_trigram=best < bits["trigram"],
        train_seconds=trained_in,
        total_seconds=time.perf_counter() - began,
        pictures=pictures,
    )
    (out / "report.json").write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _print(console, report, texts, out)
    return report


def _sample(lm: LanguageModel) -> Output:
    return lm.generate(
        DEFAULT_PROMPTS, max_new_tokens=SAMPLED_BYTES, do_sample=True, temperature=0.8, top_p=0.9, seed=0
    )


def _build_corpora(out: Path, train_texts: list[str], held_out: list[str], console: Console) -> CorpusData:
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in (("train", train_texts), ("held_out", held_out)):
        source = out / f"{name}.jsonl"
        source.write_text(
            "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
        )
        manifest = build_corpus(source, get_encoding(ENCODING), out / "corpus" / name, overwrite=True)
        console.print(
            f"corpus {name}: {manifest.documents} documents, {manifest.characters} characters,"
            f" {manifest.utf8_bytes} UTF-8 bytes, {manifest.bytes} bytes in {ENCODING}"
            f" ({manifest.bytes_per_character:.2f} per character)"
        )
    folder = out / "corpus"
    return CorpusData(
        folder / "train",
        folder / "held_out",
        window=WINDOW,
        batch_size=BATCH_SIZE,
        windows_per_epoch=NUM_STEPS * BATCH_SIZE,
    )


def _train(out: Path, data: CorpusData, steps: int) -> tuple[ByteLMModule, float]:
    tiny = get_preset("tiny")
    tables = NgramConfig(orders=(2, 3, 4), rows=4_096)
    config = replace(
        tiny,
        merger=MergerConfig(byte_width=tiny.width // 4, tables=tables),
        heads=ChainedHeadsConfig(byte_width=32, inner=tiny.width, tables=tables),
    )
    L.seed_everything(0, verbose=False)
    optimizer = OptimizerConfig(lr=3e-3, min_lr=1e-4, warmup_steps=30)
    module = ByteLMModule(config=config, encoding=ENCODING, optimizer=optimizer)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        gradient_clip_val=1.0,
        log_every_n_steps=5,
        val_check_interval=max(1, steps // NUM_VALIDATIONS),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=CSVLogger(out, name="run", version=""),
        callbacks=[RichProgressBar()] if shows_progress() else [],
        enable_progress_bar=shows_progress(),
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, data)
    return module, time.perf_counter() - began


def _bits_per_char(
    before: LanguageModel, after: LanguageModel, train_texts: list[str], held_out: list[str]
) -> dict[str, float]:
    bits = {f"before training, {before.law}": before.score(held_out).total.bits_per_char}
    for name, order in (("unigram", 1), ("trigram", 3)):
        bits[name] = CharacterNgram(order).fit(train_texts).bits_per_char(held_out)
    for law in after.laws:
        bits[f"after training, {law}"] = after.score(held_out, law=law).total.bits_per_char
    return bits


def _draw(out: Path, lm: LanguageModel, samples: Output) -> list[str]:
    history = read_history(out / "run")
    paths = [out / name for name in ("loss.png", "head_bits.png", "text.png")]
    plot_loss(paths[0], history.train, history.valid)
    plot_head_bits(paths[1], history.head_bits)
    rows = [
        (prompt, ids, trace.forward, trace.offset)
        for prompt, ids, trace in zip(DEFAULT_PROMPTS, samples.ids, samples.trace, strict=True)
    ]
    plot_text(paths[2], get_encoding(ENCODING), rows)
    return [str(path) for path in paths]


def _print(console: Console, report: DemoReport, texts: dict[str, list[str]], out: Path) -> None:
    def say(text: str, end: str = "\n") -> None:
        console.print(text, end=end, markup=False, highlight=False, soft_wrap=True)

    rows = [(name, f"{value:.3f}") for name, value in report.bits_per_char.items()]
    say(f"\nheld-out text, {report.held_out_characters} characters:")
    say(format_table(("model", "bits per character"), rows, "lr"))
    say("\ndecoding, one prompt at a time; plain one-byte decoding is next without a draft:")
    say(format_speeds([speed for speeds in report.decoding.values() for speed in speeds]))
    verdict = "better" if report.beats_trigram else "NOT better"
    say(f"\nThe trained model is {verdict} than the trigram model on the held-out text.")
    for name, written in texts.items():
        say(f"\nwritten by {name}:")
        for prompt, text in zip(DEFAULT_PROMPTS, written, strict=True):
            say(f"\n[{prompt}] {text}")
    say(f"\npictures: {', '.join(Path(p).name for p in report.pictures)} in {out}")
    say(f"trained in {report.train_seconds:.0f} s, all in {report.total_seconds:.0f} s")


def demo_json(report: DemoReport) -> dict[str, Any]:
    """The report as plain values."""
    return asdict(report)
