"""What a round of decoding costs the host beside the model's own operations: CPU time of the thread, by part.

python experiments/host_time.py [--preset tiny] [--rounds 200] [--repeats 15]

`run` is a round on this CPU. `replayed` is one by recordings that compute nothing: what is left is what the host does
beside a GPU, but for the launches themselves (a copy for each input of a recording, and one for its graph).
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bytelm.decoding import Arrival, LookupDrafter, Session
from bytelm.decoding.emitters import Emitters
from bytelm.decoding.generation import Ledger
from bytelm.graphs import Graphs
from bytelm.model.build import build_noise_model
from bytelm.model.byte_lm import ByteLM
from bytelm.model.presets import get_preset
from bytelm.model.targets import NextTarget, PatchTarget, make_target

PARTS = {"forward": (NextTarget, PatchTarget), "emission": (Emitters,), "books": (Ledger,)}
METHODS = {"forward": "advance", "emission": "emit", "books": "record"}
spent = dict.fromkeys(PARTS, 0.0)


def timed(method: Callable[..., Any], part: str) -> Callable[..., Any]:
    """The method, whose time is added to its part."""

    def call(*args: Any, **options: Any) -> Any:
        began = time.thread_time()
        found = method(*args, **options)
        spent[part] += time.thread_time() - began
        return found

    return call


def nothing(call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    """A recording whose replays compute nothing."""
    return (lambda: None), call()


def measure(model: ByteLM, law: Any, draft: str, batch: int, replayed: bool, rounds: int) -> dict[str, float]:
    """Microseconds of each part of a round."""
    unit = 1 if law == "next" else model.config.patch
    target = make_target(model, law, np.full(model.config.patch, 1), graphs=Graphs(nothing) if replayed else None)
    target.asynchronous = replayed
    drafter = LookupDrafter(8, min_match=1) if draft == "lookup" else None
    session = Session(target, drafter=drafter)
    prompts = [np.arange(8) for _ in range(batch)]
    session.admit([Arrival(prompts=prompts, max_new=(rounds + 2) * unit * (9 if draft == "lookup" else 1))])
    session.round()
    spent.update(dict.fromkeys(spent, 0.0))
    began = time.thread_time()
    done = 0
    while session.num_live and done < rounds:
        session.round()
        done += 1
    whole = time.thread_time() - began
    found = {part: seconds / done * 1e6 for part, seconds in spent.items()}
    return {**found, "rest": whole / done * 1e6 - sum(found.values())}


def main() -> None:
    """Print the least of each part over the repeats, all cases in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    for part, classes in PARTS.items():
        for each in classes:
            setattr(each, METHODS[part], timed(getattr(each, METHODS[part]), part))
    config = dataclasses.replace(get_preset(options.preset), context=64 * options.rounds)
    model = build_noise_model(config, torch.float32, torch.device("cpu")).eval()
    cases = [
        (law, draft, batch, replayed)
        for law in ("next", "chain")
        for draft, replayed in (("none", False), ("lookup", False), ("none", True))
        for batch in (1, 8)
    ]
    best: dict[Any, dict[str, float]] = {}
    for _ in range(options.repeats):
        for case in cases:
            found = measure(model, *case, options.rounds)
            best[case] = {part: min(value, best.get(case, found)[part]) for part, value in found.items()}
    print("law    draft   batch            forward  emission     books      rest   µs a round")
    for (law, draft, batch, replayed), found in best.items():
        figures = "".join(f"{value:10.0f}" for value in found.values())
        print(f"{law:6} {draft:7} {batch:5}  {'replayed' if replayed else 'run':9}{figures}")


if __name__ == "__main__":
    main()
