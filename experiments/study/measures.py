"""What is measured of a trained cell, by commands and functions of the package."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bytelm as package
from bytelm.evaluation.alignment import score_alignments
from bytelm.evaluation.perturbations import PERTURBATIONS, perturb
from bytelm.evaluation.sampled_text import measure_acceptance, measure_undecodable
from bytelm.hub import LanguageModel

from .commands import bytelm
from .texts import Text


@dataclass(frozen=True)
class Trained:
    """A model to measure.

    Attributes:
        folder: of the model.
        scratch: folder for what commands read.
        text: whose ``test`` split is read.
        amounts: how much of it, the settings ``measure`` of the size.
        device: that scores and draws. Speeds are those of the CPU, for prompts and one thread.
    """

    folder: Path
    scratch: Path
    text: Text
    amounts: dict[str, Any]
    device: str = "cpu"

    def load(self) -> LanguageModel:
        """The model."""
        return package.load(self.folder, self.device)

    def pieces(self) -> list[str]:
        """Beginnings of held-out documents, evenly spread over the file, each of at most so many characters."""
        documents = [document for document in self.text.documents("test") if document]
        step = max(1, len(documents) // self.amounts["documents"])
        return [document[: self.amounts["characters"]] for document in documents[::step][: self.amounts["documents"]]]

    def prompts(self, number: int) -> list[str]:
        """Beginnings of held-out documents, to continue."""
        chars = self.amounts["prompt_chars"]
        return [piece[:chars] for piece in self.pieces() if len(piece) > chars][:number]


def _likelihood(trained: Trained) -> dict[str, Any]:
    """Bits, operations, sizes and speeds of every law, by ``bytelm compare`` on the pieces."""
    amounts = trained.amounts
    compare = _compare(trained)
    if trained.device == "cpu":
        found = timed = bytelm(*compare, *_generate(amounts))
    else:
        found = bytelm(*compare, "--prompts", 0, "--device", trained.device)
        timed = bytelm(*compare, "--limit", 4 * amounts["prompts"], *_generate(amounts))
    speeds = _by_law(timed["speeds"])
    fields = ("bits_per_char", "bits_per_byte", "operations_per_char", "positions_per_char")
    laws = {row["law"]: {name: row[name] for name in fields} for row in found["rows"]}
    best = min(laws, key=lambda law: laws[law]["bits_per_char"])
    default = trained.load().law
    return {
        "laws": laws,
        "speeds": speeds,
        "best": {"law": best, **laws[best]},
        "default": {"law": default, **laws[default], **speeds.get(default, {}).get("none", {})},
        "weight_bytes": found["rows"][0]["weight_bytes"],
        "characters": found["characters"],
    }


def _compare(trained: Trained) -> tuple[Any, ...]:
    """The command that scores the pieces, which are written for it."""
    lines, window = trained.scratch / "held_out.jsonl", trained.amounts["window"]
    _write_pieces(lines, trained.pieces())
    return "compare", trained.folder, "--data", lines, "--window", window, "--context", window


def _generate(amounts: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *("--prompts", amounts["prompts"], "--prompt-chars", amounts["prompt_chars"], "--threads", 1),
        *("--max-new-chars", amounts["new_chars"], "--drafts", "none,heads,lookup", "--repeats", amounts["repeats"]),
    )


def _by_law(speeds: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for speed in speeds:
        figures = {name: speed[name] for name in ("chars_per_forward", "chars_per_second")}
        found.setdefault(speed["law"], {})[speed["draft"]] = figures
    return found


def _undecodable(trained: Trained) -> dict[str, Any]:
    """The share of drawn output that is no text, by law."""
    lm, drawn = trained.load(), trained.amounts["drawn"]
    prompts = trained.prompts(drawn["prompts"])
    found = {law: measure_undecodable(lm, prompts, law, max_new_tokens=drawn["symbols"]) for law in lm.laws}
    return {"undecodable": {law: {**asdict(one), "share": one.share} for law, one in found.items()}}


def _disk(trained: Trained) -> dict[str, Any]:
    """Bytes of the files of a model."""
    return {"disk_bytes": sum(path.stat().st_size for path in trained.folder.iterdir())}


def _acceptance(trained: Trained) -> dict[str, Any]:
    """How well drafts hold: laws, drafters, temperatures and rules."""
    amounts = trained.amounts
    prompts = trained.prompts(amounts["prompts"])
    found = measure_acceptance(trained.load(), prompts, max_new_tokens=2 * amounts["new_chars"])
    return {
        "acceptance": {
            f"{one.law}, {one.draft}, T = {one.temperature:g}, {one.verify}": {
                "at": list(one.at[: amounts["places"]]),
                "judged": list(one.judged_at[: amounts["places"]]),
                "symbols_per_forward": one.symbols_per_forward,
                "chars_per_forward": one.chars_per_forward,
            }
            for one in found
        }
    }


def _robustness(trained: Trained) -> dict[str, Any]:
    """Bits of changed texts under the default law, and the bits of a text at every alignment of its patches."""
    lm, pieces = trained.load(), trained.pieces()
    clean = lm.score(pieces).total
    found = {"clean": {"bits_per_char": clean.bits_per_char, "bits_per_original_char": clean.bits_per_char}}
    for name in PERTURBATIONS:
        for rate in trained.amounts["rates"]:
            changed = [text for i, piece in enumerate(pieces) if (text := perturb(name, piece, rate, i))]
            score = lm.score(changed).total
            per_original = score.bits_per_char * score.num_chars / clean.num_chars
            found[f"{name} {rate:.0%}"] = {
                "bits_per_char": score.bits_per_char,
                "bits_per_original_char": per_original,
                "added": per_original - clean.bits_per_char,
            }
    phases = {law: score_alignments(lm, pieces, law) for law in lm.laws}
    spread = {law: (max(bits) - min(bits)) / (sum(bits) / len(bits)) for law, bits in phases.items()}
    return {"robustness": found, "alignments": phases, "alignment_spread": spread}


MEASURES: dict[str, Callable[[Trained], dict[str, Any]]] = {
    "likelihood": _likelihood,
    "undecodable": _undecodable,
    "disk": _disk,
    "acceptance": _acceptance,
    "robustness": _robustness,
}
"""By the names that a study's ``measure`` lists."""


def _write_pieces(path: Path, pieces: list[str]) -> None:
    path.write_text(
        "".join(json.dumps({"text": piece}, ensure_ascii=False) + "\n" for piece in pieces), encoding="utf-8"
    )
