"""Other decoders under ``bytelm.testing``: what is wrong with them, found by the checks, and ours beside them.

python experiments/other_decoders.py                # five minutes, most of them in transformers
python experiments/other_decoders.py --only ours    # decoders whose name has this in it, and no single numbers

Prints a table of outcomes, one of what was found, one of single numbers, and the outcomes as JSON in the last line.
``transformers`` is left out where it is not installed.
"""

import argparse
import dataclasses
import importlib.util
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from restated_decoders import (
    EvaByte,
    EvaByteCropped,
    Litgpt,
    LitgptRestored,
    Medusa,
    MedusaTypical,
    redraw,
)

import bytelm.testing as kit
from bytelm.testing import Decoder, Job, Report, ToyLaw
from bytelm.testing.checks import make_job
from bytelm.testing.reports import Lacks

CHECKS = ("greedy", "seed identity", "distribution", "stops", "nats", "forwards")
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
LAW = (0.4, 0.3, 0.2, 0.1)
"""The law of the single numbers about acceptance; the drafted symbol is 0."""


class Entry(NamedTuple):
    """A decoder of the table; ``rows`` of each test of its distribution, None for the kit's own number."""

    name: str
    decoder: Decoder
    lacks: Lacks
    rows: int | None = None


class Number(NamedTuple):
    """A single number: what was asked, what came, and what a right decoder gives."""

    name: str
    found: str
    right: str


def entries(rows: int) -> list[Entry]:
    """All decoders, ours first; ``rows`` is for transformers."""
    exact, rejection = kit.Ours(), kit.Ours(verify="rejection")
    found = [Entry("ours, exact", exact, exact.lacks), Entry("ours, rejection", rejection, rejection.lacks)]
    if HAS_TRANSFORMERS:
        from transformers_decoder import KeywordsModel, Transformers

        for name, decoder in (
            ("transformers, assistant", Transformers()),
            ("transformers, assistant, forward(**given)", Transformers(model=KeywordsModel)),
            ("transformers, assistant, stop_strings", Transformers(stop_with="strings")),
            ("transformers, prompt look-up", Transformers("lookup")),
        ):
            plain = decoder in (Transformers(), Transformers("lookup"))
            lacks = (
                decoder.lacks if plain else {**decoder.lacks, "sampling": "the law is tested in the first line of it"}
            )
            found.append(Entry(name, decoder, lacks, rows))
    for name, restated in (
        ("Medusa, redraw", Medusa()),
        ("Medusa, typical", MedusaTypical()),
        ("EvaByte", EvaByte()),
        ("EvaByte, cropped", EvaByteCropped()),
        ("litgpt", Litgpt()),
        ("litgpt, first symbol restored", LitgptRestored()),
    ):
        found.append(Entry(name, restated, restated.lacks))
    return found


def share_of_draft(decoder: Decoder, rows: int) -> list[float]:
    """Shares of the symbols after a draft that always says 0, under the law :data:`LAW`."""
    law = constant(LAW)
    job = Job(
        law=law,
        prompts=((0,),) * rows,
        max_new=2,
        seeds=tuple(range(rows)),
        temperature=1.0,
        num_draft=1,
        proposals=((0, 0, 0),) * rows,
    )
    counts = np.bincount([answer.symbols[1] for answer in decoder(job)], minlength=len(LAW))
    return (counts / rows).tolist()


def constant(law: Sequence[float]) -> ToyLaw:
    """A toy law without context."""
    return ToyLaw(np.tile(np.log(np.maximum(law, 1e-30)), (len(ToyLaw.random(2, 0).table), 1)))


def numbers_of_acceptance(rows: int = 20_000) -> Iterator[Number]:
    """The shares of symbols that rules of acceptance give in so many draws."""
    name, right = "law .4 .3 .2 .1, symbol 0 drafted: shares", shown(LAW)
    for entry, decoder in (
        ("ours", kit.Ours()),
        ("Medusa, redraw", Medusa()),
        ("EvaByte", EvaByteCropped()),
        ("Medusa, typical", MedusaTypical()),
    ):
        yield Number(f"{entry}: {name}", shown(share_of_draft(decoder, rows)), right)
    rng = np.random.default_rng(0)
    drawn = [redraw([0, 1], lambda: int(rng.choice(4, p=LAW)))[0] for _ in range(rows)]
    yield Number(f"Medusa, redraw, two paths: {name}", shown(np.bincount(drawn) / len(drawn)), right)


def numbers_of_litgpt() -> Iterator[Number]:
    """A greedy draft that is not the target's choice, and the symbol that is lost."""
    p, q = constant((0.4, 0.6, 0.0)), constant((0.36, 0.33, 0.31))
    job = Job(law=p, prompts=((0,),), max_new=6, seeds=(0,), num_draft=1, draft_law=q)
    yield Number("litgpt: greedy, p = .4 .6 0, q = .36 .33 .31", told(LitgptRestored(), job), told(kit.Ours(), job))
    law = ToyLaw.random(17, seed=1)
    job = make_job(law, 1, 6)
    yield Number("litgpt: first six symbols", told(Litgpt(), job), told(kit.Ours(), job))


def numbers_of_transformers() -> Iterator[Number]:
    """Stops inside a step of prompt look-up, forwards with a drafter that is always right, and what is refused."""
    from transformers_decoder import KeywordsModel, Transformers

    # Greedy decoding of this law goes round in 12 symbols, so that no step of 11 ends where the stop does.
    law, lookup = ToyLaw.random(17, seed=3), Transformers("lookup")
    text = kit.Ours()(make_job(law, 1, 120))[0].symbols
    job = Job(law=law, prompts=(text[:60],), max_new=60, seeds=(0,))
    job = dataclasses.replace(job, stops=(text[60:63],))
    drafted = dataclasses.replace(job, num_draft=10)
    right = f"{len(lookup(job)[0].symbols)} without a draft"
    for stop_with in ("criterion", "strings"):
        found = Transformers("lookup", stop_with=stop_with)(drafted)[0]
        yield Number(
            f"transformers, look-up: symbols up to a stop of three, {stop_with}", str(len(found.symbols)), right
        )
    one = dataclasses.replace(drafted, stops=(text[62:63],))
    plain = len(Transformers(stop_with="eos")(one.plain())[0].symbols)
    found = Transformers("lookup", stop_with="eos")(one)[0]
    yield Number(
        "transformers, look-up: symbols up to an eos_token_id", str(len(found.symbols)), f"{plain} without a draft"
    )
    job = dataclasses.replace(make_job(law, 1, 31), num_draft=4)
    oracle = dataclasses.replace(job, proposals=kit.proposals("1", [kit.Ours()(job.plain())[0].symbols], law.vocab))
    for given, decoder in (("attention_mask", Transformers()), ("**given", Transformers(model=KeywordsModel))):
        forwards = str(decoder(oracle)[0].forwards)
        yield Number(f"transformers, drafts all right: forwards for 31, forward({given})", forwards, "7")
    try:
        refused = str(len(Transformers()(dataclasses.replace(oracle, prompts=((1, 2), (3, 4))))))
    except ValueError as error:
        refused = str(error)
    yield Number("transformers, assistant: two rows", refused, "2")


def told(decoder: Decoder, job: Job) -> str:
    """The symbols of the first row."""
    return " ".join(map(str, decoder(job)[0].symbols))


def shown(shares: Sequence[float]) -> str:
    """Numbers with three places."""
    return " ".join(f"{share:.3f}" for share in shares)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in (head, rule, *lines))


def outcomes(reports: Sequence[Report]) -> list[str]:
    """The outcome of every check, and the distance from the law."""
    by_name = {report.check: report for report in reports}
    figures = by_name["distribution"].figures
    distance = f"{figures['tv']:.3f} ({figures['tv_by_chance']:.3f})" if "tv" in figures else ""
    return [*(by_name[check].outcome.replace("failed", "**failed**") for check in CHECKS), distance]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000, help="of each test of the distribution of transformers")
    parser.add_argument("--only", default="", help="part of the names of decoders; leaves out the numbers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if HAS_TRANSFORMERS:
        import transformers

        transformers.logging.set_verbosity_error()
        print(f"transformers {transformers.__version__}\n")
    chosen = [entry for entry in entries(given.rows) if given.only in entry.name]
    found = {e.name: kit.run_kit(e.decoder, lacks=e.lacks, rows=e.rows) for e in chosen}
    print(
        table(("decoder", *CHECKS, "TV (by chance)"), [(name, *outcomes(r)) for name, r in found.items()]), end="\n\n"
    )
    messages = [(name, r.check, r.outcome, r.message) for name, rs in found.items() for r in rs if r.message]
    print(table(("decoder", "check", "", "found"), messages), end="\n\n")
    numbers = [] if given.only else [*numbers_of_acceptance(), *numbers_of_litgpt()]
    numbers += numbers_of_transformers() if HAS_TRANSFORMERS and not given.only else ()
    print(table(("number", "found", "right"), numbers), end="\n\n")
    reports = {name: [dataclasses.asdict(r) for r in rs] for name, rs in found.items()}
    print(json.dumps({"reports": reports, "numbers": [n._asdict() for n in numbers]}))


if __name__ == "__main__":
    main()
