"""The model of the package beside n-grams, compressors and a BPE twin: bits per character, size and speed.

python experiments/shipped_model.py --train ja_large.jsonl.xz --before ja_train.jsonl.xz --test ja_test.jsonl.xz \\
    --twin RUN/model --plain RUN/model --out results.json

Documents of the test file are scored from BOS, as ``bytelm score`` does. ``--plain`` is the same model before it was
rounded. The twin's matrices are rounded in memory by the same rule, rows of n-grams to four bits and others to int8;
its size is that of its codes, scales, keys and tokenizer. n-gram models are of characters with modified Kneser-Ney
smoothing, counted on ``--train``. xz and zstd have ``--before`` ahead of the text: zstd -19 as a dictionary, xz as the
difference of two sizes. Speed is greedy, batch 1, one thread, all models in turn.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import bytelm
from bytelm.benchmarks.generation_speed import measure_generation
from bytelm.cli.console import format_table
from bytelm.corpus import iter_documents
from bytelm.evaluation.compressors import bits_per_char, xz_bytes, zstd_bytes
from bytelm.evaluation.kneser_ney import KneserNey
from bytelm.hub import LanguageModel
from bytelm.hub.compact import four_bit_names, pack, unpack
from bytelm.hub.shipped import DEFAULT_MODEL, shipped_folder

Row = dict[str, Any]


def read(path: Path) -> list[str]:
    """Texts of a file."""
    return [document.text for document in iter_documents(path)]


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def round_weights(lm: LanguageModel) -> int:
    """Round rows of n-gram tables to four bits, other matrices to int8, and back, in place; bytes of all tensors."""
    packed = pack(lm.model.state_dict(), four_bit_names(lm.model))
    lm.model.load_state_dict(unpack(packed))
    return sum(tensor.nbytes for tensor in packed.values())


def score(name: str, lm: LanguageModel, texts: list[str], size: int | None) -> list[Row]:
    """A row for each law of a model."""
    rows = []
    for law in lm.laws:
        total = lm.score(texts, law=law).total
        rows.append({"model": f"{name}, {law}", "bits_per_char": total.bits_per_char, "bytes": size})
    return rows


def ngrams(train: Iterable[str], texts: list[str]) -> list[Row]:
    """Trigrams and 5-grams."""
    train = list(train)
    return [
        {
            "model": f"{order}-gram of characters, Kneser-Ney",
            "bits_per_char": KneserNey(order).fit(train).bits_per_char(texts),
            "bytes": None,
        }
        for order in (3, 5)
    ]


def compressors(before: list[str], texts: list[str]) -> list[Row]:
    """xz and zstd, with and without a text before."""
    rows = []
    for name, compress in (("xz -9e", xz_bytes), ("zstd -19", zstd_bytes)):
        for what, known in (("", []), (" after the text before", before)):
            bits = bits_per_char(compress, texts, known)
            rows.append({"model": name + what, "bits_per_char": bits, "bytes": None})
    return rows


def speeds(models: dict[str, LanguageModel], texts: list[str], repeats: int) -> list[Row]:
    """Characters per second of each law without a draft, greedy, on the beginnings of documents."""
    prompts = [text[:64] for text in texts if len(text) > 64][:4]
    measured = measure_generation(
        {name: (lm, lm.laws) for name, lm in models.items()},
        prompts,
        drafts=("none", "auto"),
        max_new_chars=96,
        repeats=repeats,
    )
    return [
        {
            "model": f"{speed.model}, {speed.law}, {speed.draft}",
            "chars_per_second": speed.chars_per_second,
            "chars_per_forward": speed.chars_per_forward,
        }
        for speed in measured
    ]


def measured(args: argparse.Namespace, models: dict[str, LanguageModel], texts: list[str]) -> list[Row]:
    """Rows of the model, of the same before rounding, and of the twin, which is put to the models."""
    size = folder_bytes(shipped_folder(args.model) or Path(args.model))
    found = score(args.model, models[args.model], texts, size)
    if args.plain:
        found += score("before rounding", bytelm.load(args.plain), texts, folder_bytes(args.plain))
    if args.twin:
        models["BPE twin"] = twin = bytelm.load(args.twin)
        others = sum(path.stat().st_size for path in args.twin.iterdir() if path.suffix != ".safetensors")
        found += score("BPE twin", twin, texts, round_weights(twin) + others)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", type=Path, required=True, help="what is scored")
    parser.add_argument("--train", type=Path, help="what n-grams are counted on")
    parser.add_argument("--before", type=Path, help="what compressors have ahead of the text")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="by default, that of the package")
    parser.add_argument("--plain", type=Path, help="the same before rounding")
    parser.add_argument("--twin", type=Path, help="folder of the BPE twin")
    parser.add_argument("--rivals", type=Path, help="--out of an earlier call with --train and --before")
    parser.add_argument("--only-rivals", action="store_true", help="no model: n-grams and compressors")
    parser.add_argument("--limit", type=int, help="documents of the test file")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each speed; 0: none")
    parser.add_argument("--out", type=Path, help="where all figures go, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts = read(args.test)[: args.limit]
    models = {} if args.only_rivals else {args.model: bytelm.load(args.model)}
    found = [] if args.only_rivals else measured(args, models, texts)
    if args.rivals:
        earlier = json.loads(args.rivals.read_text(encoding="utf-8"))
        assert earlier["characters"] == sum(map(len, texts)), "figures of another text"
        found += earlier["rows"]
    found += ngrams(read(args.train), texts) if args.train else []
    found += compressors(read(args.before), texts) if args.before else []
    characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    for row in found:
        row["bits_per_utf8_byte"] = row["bits_per_char"] * characters / size
    fast = speeds(models, texts, args.repeats) if args.repeats and models else []
    table = [
        (
            row["model"],
            f"{row['bits_per_char']:.3f}",
            f"{row['bits_per_utf8_byte']:.3f}",
            f"{row['bytes']:,}" if row["bytes"] else "",
        )
        for row in found
    ]
    print(f"{len(texts)} documents, {characters:,} characters, {size:,} UTF-8 bytes")
    print(format_table(("model", "bits/char", "bits/UTF-8 byte", "bytes"), table, "lrrr"))
    rows = [(row["model"], f"{row['chars_per_second']:.0f}", f"{row['chars_per_forward']:.2f}") for row in fast]
    print(format_table(("model, law, draft", "chars/s", "chars/forward"), rows, "lrr"))
    if args.out:
        result = {"documents": len(texts), "characters": characters, "utf8_bytes": size, "rows": found, "speeds": fast}
        args.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
