"""Is a row's output the same alone, in a batch and with drafts? In float32 it must be; in bfloat16 this counts.

python experiments/precision_identity.py MODEL --prompts-file experiments/prompts.jsonl
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import bytelm
from bytelm.hub import LanguageModel, Output
from bytelm.testing import check_near_ties

CONDITIONS = {
    "batch": (True, "none"),
    "lookup": (False, "lookup"),
    "heads": (False, "heads"),
    "batch, lookup": (True, "lookup"),
    "batch, heads": (True, "heads"),
}


def drafts_with_heads(lm: LanguageModel, law: str) -> bool:
    """Whether the model has heads that draft under the law."""
    return law == "next" or lm.model.next_patch is not None


def rows_of(outs: list[Output]) -> list[np.ndarray]:
    """Symbols of every row."""
    return [ids for out in outs for ids in out.ids]


def first_difference(found: np.ndarray, plain: np.ndarray) -> int | None:
    """Where two rows part."""
    shortest = min(len(found), len(plain))
    unequal = np.flatnonzero(found[:shortest] != plain[:shortest])
    if len(unequal):
        return int(unequal[0])
    return None if len(found) == len(plain) else shortest


def compare(lm: LanguageModel, law: str, prompts: list[str], options: dict[str, object]) -> list[dict[str, object]]:
    """One entry for each condition: rows, those equal to plain decoding alone, where the others part, near ties."""
    seeds = list(range(len(prompts)))

    def generate(together: bool, draft: str) -> list[np.ndarray]:
        groups = [(prompts, seeds)] if together else [([p], [s]) for p, s in zip(prompts, seeds, strict=True)]
        return rows_of([lm.generate(texts, seed=s, law=law, draft=draft, **options) for texts, s in groups])

    plain = generate(together=False, draft="none")
    found = []
    for name, (together, draft) in CONDITIONS.items():
        if draft == "heads" and not drafts_with_heads(lm, law):
            continue
        rows = generate(together, draft)
        differences = [first_difference(row, alone) for row, alone in zip(rows, plain, strict=True)]
        parted = [at for at in differences if at is not None]
        entry: dict[str, object] = {
            "condition": name,
            "rows": len(rows),
            "equal": len(rows) - len(parted),
            "first": min(parted, default=None),
        }
        if not options["do_sample"]:
            dtype = next(lm.model.parameters()).dtype
            report = check_near_ties(
                lm.make_target(law), [lm.tokenizer.encode(p) for p in prompts], rows, dtype=dtype, ulps=8.0
            )
            entry |= {"near_ties": report.outcome, **{f"tie_{key}": value for key, value in report.figures.items()}}
        found.append(entry)
    return found


def main() -> None:
    """Print a table, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts-file", type=Path, required=True)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--copies", type=int, default=3, help="of every prompt, each with a seed of its own")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--laws", nargs="+", help="default: all of the model")
    given = parser.parse_args()
    lines = given.prompts_file.read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["text"] for line in lines] * given.copies
    lm, results = bytelm.load(given.model), []
    print("| precision | law | | condition | rows | equal | first part at | symbols not the argmax | worst, ulps |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in given.precisions:
        lm.model.to(getattr(torch, name))
        for law in given.laws or lm.laws:
            for sampled in (False, True):
                options = {"max_new_tokens": given.max_new_tokens, "do_sample": sampled, "eos_token_id": ()}
                for entry in compare(lm, law, prompts, options):
                    kind = "sampled" if sampled else "greedy"
                    ties = f"{entry.get('tie_not_argmax', 0):.0f} of {entry['tie_cases']:.0f}" if not sampled else ""
                    worst = f"{entry['tie_worst_ulps']:.2f}" if not sampled else ""
                    first = "" if entry["first"] is None else entry["first"]
                    cells = [name, law, kind, entry["condition"], entry["rows"], entry["equal"], first, ties, worst]
                    print("|", " | ".join(map(str, cells)), "|", flush=True)
                    results.append({"dtype": name, "law": law, "sampled": sampled, **entry})
    print(json.dumps({"command": "precision_identity", "results": results}))


if __name__ == "__main__":
    main()
