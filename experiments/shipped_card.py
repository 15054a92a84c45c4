"""The card of the model of the package, its curves, and what its tests expect, from a run and its results.

python experiments/shipped_card.py RUN EXPORTED RESULTS --minutes 30 --words "Interim weights: ..."

RUN is the folder of ``bytelm fit``, EXPORTED what ``bytelm export --four-bit-tables`` wrote of it, RESULTS what
``shipped_model.py --out`` wrote. The files of the package's model are replaced by those of EXPORTED, with a card;
its table goes into README as well.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

import bytelm
from bytelm.corpus import Corpus
from bytelm.evaluation.plots import plot_loss
from bytelm.hub.shipped import DEFAULT_MODEL
from bytelm.model.config import NgramConfig
from bytelm.training.history import read_history

ROOT = Path(__file__).parent.parent
MODEL, SHIPPED = ROOT / "bytelm" / "models" / DEFAULT_MODEL, ROOT / "experiments" / "shipped"
EXPECTED = ROOT / "tests" / "hub" / "shipped_expected.json"
PROMPT, NUM_NEW = "吾輩は", 24
TEXTS = ["朝の市場では、魚を売る声が遠くまで聞こえた。", "この関数は、二つの整数を受け取り、その和を返します。"]
FILES = ("config.json", "encoding.json", "model.safetensors")
SAMPLING = "generation_config.json"
ALGORITHMS = {"adamw": "AdamW", "muon": "Muon for the hidden matrices and AdamW for all else"}


BEGIN, END = "<!-- figures of bytelm-ja-tiny -->\n", "<!-- end -->\n"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(tables: NgramConfig) -> str:
    """How many rows of n-grams tables have."""
    return f"{len(tables.orders) * tables.rows:,} of n = {', '.join(map(str, tables.orders))}"


def matches(tables: NgramConfig) -> str:
    """What rows for matches there are."""
    found = tables.matches
    if found is None:
        return "nothing else"
    return (
        f"{found.num_rows:,} such rows for the bytes that followed the {found.candidates} longest matches of what was"
        f" written last, {found.lengths[0]} to {found.lengths[-1]} bytes, among the {found.reach:,} bytes before"
        " (`bytelm/nn/matches.py`)"
    )


def facts(run: Path, exported: Path, results: dict[str, Any], minutes: float, words: str) -> dict[str, str]:
    """What the template has in capitals."""
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    data, optimizer, config = settings["data"], settings["model"]["optimizer"], bytelm.load(exported).config
    merger, heads = config.merger.tables, config.heads.tables
    step = json.loads((exported / "config.json").read_text())["provenance"]["step"]
    corpus = Corpus.open(data["train"], verify=False)
    per_character = corpus.manifest.bytes_per_character
    characters = step * data["batch_size"] * data["window"] / per_character
    bits = [f"| {row['model']} | {row['bits_per_char']:.3f} | {row['bytes'] or ''} |" for row in results["rows"]]
    fast = [
        f"| {row['model']} | {row['chars_per_second']:.0f} | {row['chars_per_forward']:.2f} |"
        for row in results["speeds"]
    ]
    table = ["| model, law | bits/char | bytes |", "|---|---|---|", *bits, ""]
    table += ["| model, law, draft; greedy, one thread | chars/s | chars/forward |", "|---|---|---|", *fast]
    return {
        "PARAMETERS": f"{config.num_parameters():,}",
        "PATCH_CHARACTERS": f"{config.patch / per_character:.1f}",
        "PATCH": str(config.patch),
        "BLOCKS": str(config.num_blocks),
        "WIDTH": str(config.width),
        "ROW_WIDTH": str(merger.row_width),
        "MERGER_ROWS": rows(merger),
        "HEAD_ROWS": rows(heads),
        "MATCHES": matches(heads),
        "CONTEXT": f"{config.context:,} bytes, about {config.context / per_character:,.0f} characters",
        "WINDOWS": str(data["batch_size"]),
        "WINDOW": f"{data['window']:,}",
        "PRECISION": f"`{settings['trainer']['precision']}`",
        "BYTES": f"{sum((exported / name).stat().st_size for name in FILES):,}",
        "ALGORITHM": ALGORITHMS[optimizer["algorithm"]],
        "RATE": f"{optimizer['lr']:g}",
        "TABLE_SCALE": f"{optimizer['table_lr_scale']:g}",
        "WARMUP": str(optimizer["warmup_steps"]),
        "COOLDOWN": f"{optimizer['cooldown_steps']:,}",
        "STEPS": f"{step:,}",
        "CHARACTERS": f"{characters / 1e6:.1f} million",
        "SHARE": f"{characters / corpus.manifest.characters:.0%}",
        "MINUTES": f"{minutes:.0f}",
        "CORPUS": digest(Path(data["train"]) / "manifest.json"),
        "TEXTS": f"{corpus.manifest.characters:,} characters, {corpus.manifest.documents:,} documents",
        "HELD_OUT": f"{results['documents']} documents, {results['characters']:,} characters",
        "WORDS": words,
        "TABLE": "\n".join(table),
        "DIGESTS": "\n".join(
            f"{digest(folder / name)}  {name}"
            for folder, names in ((exported, FILES), (SHIPPED, (SAMPLING,)))
            for name in names
        ),
    }


def main() -> None:
    """Write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="processor time of training")
    parser.add_argument("--words", default="", help="what else a reader must know of these weights")
    args = parser.parse_args()
    results = json.loads(args.results.read_text(encoding="utf-8"))
    card = (SHIPPED / "card.in.md").read_text(encoding="utf-8")
    found = facts(args.run, args.exported, results, args.minutes, args.words)
    for name, value in found.items():
        card = card.replace(f"@{name}@", value)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, after = readme.partition(BEGIN)
    table = f"{found['WORDS']}\n\n{found['TABLE']}\n".lstrip("\n")
    (ROOT / "README.md").write_text(before + BEGIN + table + END + after.partition(END)[2], encoding="utf-8")
    MODEL.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(args.exported / name, MODEL / name)
    shutil.copyfile(SHIPPED / SAMPLING, MODEL / SAMPLING)
    (MODEL / "README.md").write_text(card, encoding="utf-8")
    shutil.copyfile(args.run / "metrics.csv", SHIPPED / "metrics.csv")
    if args.results != SHIPPED / "results.json":
        shutil.copyfile(args.results, SHIPPED / "results.json")
    history = read_history(args.run)
    plot_loss(SHIPPED / "curves.png", history.train, history.valid)
    lm = bytelm.load(MODEL)
    greedy = lm.generate([PROMPT], max_new_tokens=NUM_NEW).texts[0]
    expected = {
        "prompt": PROMPT,
        "max_new_tokens": NUM_NEW,
        "greedy": greedy,
        "texts": TEXTS,
        "bits_per_char": lm.score(TEXTS).total.bits_per_char,
    }
    EXPECTED.write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{MODEL}: {sum(path.stat().st_size for path in MODEL.iterdir()):,} bytes; {PROMPT}{greedy}")


if __name__ == "__main__":
    main()
