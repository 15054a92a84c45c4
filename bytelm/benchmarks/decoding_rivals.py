"""transformers' ``generate`` beside ours, forward against forward. Imported only when asked."""

import contextlib
import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from bytelm.benchmarks.coders import Skipped
from bytelm.benchmarks.rival_models import build_rival
from bytelm.benchmarks.timing import median_ratio, synchronize, take_turns
from bytelm.hub import LanguageModel

_LOOKUP_TOKENS = 10
"""What the documentation of transformers takes for prompt look-up."""


@dataclasses.dataclass(frozen=True)
class RivalSpeed:
    """One way to run so many forwards, prefill included.

    Attributes:
        name: ``bytelm LAW`` (greedy, without a draft) or ``transformers …``.
        batch: rows, each with the same prompt.
        forwards: of the batch.
        seconds_per_forward: median over the repeats, of wall time over forwards.
        symbols_per_second: of all rows, likewise.
        ratios: for each of our laws, seconds per forward over those of that law; the median of pairs measured in turn.
    """

    name: str
    batch: int
    forwards: int
    seconds_per_forward: float
    symbols_per_second: float
    ratios: dict[str, float]


@dataclasses.dataclass(frozen=True)
class _Run:
    forwards: int
    symbols: int
    seconds: float


def measure_rivals(
    lm: LanguageModel,
    prompt: str,
    *,
    batch: int = 1,
    forwards: int = 160,
    repeats: int = 3,
    compile: bool = False,
    lookup: bool = True,
) -> tuple[list[RivalSpeed], list[Skipped]]:
    """Our laws and ``generate`` of transformers, all greedy, with the same number of forwards after the same symbols.

    Theirs is GPT-J on the same weights where ours is a GPT-J, else a Llama with our width, blocks, heads, feed-forward
    and vocabulary, and random weights; in the type and on the device of ours. It runs with a dynamic cache (eager), a
    static cache, and, for one row, prompt look-up, whose forwards are fewer. All take turns after a warm-up.

    Args:
        lm: our model.
        prompt: continued by every row.
        batch: rows.
        forwards: of ours and of theirs without look-up; fewer where the context does not hold P symbols for each.
        repeats: turns of everybody.
        compile: ours through ``torch.compile``, and a compiled forward with the static cache of theirs beside the
            others.
        lookup: measure theirs with prompt look-up, too.
    Returns:
        Ours, then theirs, and what could not be measured, with the reason.
    """
    ids = lm.tokenizer.encode(prompt)
    forwards = max(1, min(forwards, (lm.config.context - lm.config.patch - len(ids)) // lm.config.patch))
    cases: dict[str, Callable[[], _Run]] = {
        f"bytelm {law}": _ours(lm, law, [prompt] * batch, forwards, compile) for law in lm.laws
    }
    try:
        transformers = importlib.import_module("transformers")
        rival = build_rival(transformers, lm)
    except ImportError as error:
        return [], [Skipped("transformers", f"cannot be imported ({error})")]
    rows = torch.from_numpy(np.tile(ids.astype(np.int64), (batch, 1))).to(lm.model.device)
    skipped = []
    for name, options in _theirs(transformers, batch, compile, lookup):
        if isinstance(options, str):
            skipped.append(Skipped(name, options))
            continue
        try:
            cases[name] = _generation(rival, rows, forwards, options)
        except (RuntimeError, ImportError, TypeError, ValueError) as error:
            skipped.append(Skipped(name, f"fails here ({type(error).__name__}: {str(error).strip():.80})"))
    for case in cases.values():
        case()
    runs = take_turns(cases, repeats)
    bases: dict[str, list[float]] = {law: [_per_forward(run) for run in runs[f"bytelm {law}"]] for law in lm.laws}
    return [_summarise(name, batch, runs[name], bases) for name in cases], skipped


def _theirs(transformers: Any, batch: int, compile: bool, lookup: bool) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Names and options of ``generate``, or why it is not asked."""
    yield "transformers", {}
    yield "transformers static", {"cache_implementation": "static", "disable_compile": True}
    if compile:
        try:
            settings = transformers.CompileConfig()
        except (ImportError, AttributeError) as error:
            yield "transformers static compiled", f"cannot be imported ({error})"
        else:
            settings._compile_all_devices = True  # otherwise it compiles on GPUs only
            yield "transformers static compiled", {"cache_implementation": "static", "compile_config": settings}
    if not lookup:
        return
    if batch == 1:
        yield "transformers lookup", {"prompt_lookup_num_tokens": _LOOKUP_TOKENS}
    else:
        yield "transformers lookup", f"takes one row, found a batch of {batch}"


def _generation(rival: Any, rows: torch.Tensor, forwards: int, options: dict[str, Any]) -> Callable[[], _Run]:
    """A call that generates; how many forwards it takes is counted here, without compiling, for it is always the same.

    Raises:
        RuntimeError: the options do not work here, nor do a few other errors of transformers.
    """
    plain = {name: value for name, value in options.items() if name != "compile_config"}
    if len(plain) < len(options):
        plain["disable_compile"] = True
    num_forwards = 0

    def count(*_: Any) -> None:
        nonlocal num_forwards
        num_forwards += 1

    def generate(chosen: dict[str, Any]) -> Any:
        return rival.generate(
            rows, attention_mask=torch.ones_like(rows), max_new_tokens=forwards, do_sample=False, **chosen
        )

    with _hook(rival, count):
        generate(plain)
    if plain != options:
        generate(options)

    def run() -> _Run:
        synchronize(rows.device)
        began = time.perf_counter()
        found = generate(options)
        synchronize(rows.device)
        return _Run(num_forwards, found[:, rows.shape[1] :].numel(), time.perf_counter() - began)

    return run


@contextlib.contextmanager
def _hook(module: torch.nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _ours(lm: LanguageModel, law: str, prompts: list[str], forwards: int, compile: bool) -> Callable[[], _Run]:
    """A call of our ``generate`` that needs so many forwards: P symbols each under a law of whole patches."""
    num_new = forwards * (1 if law == "next" else lm.config.patch)

    def run() -> _Run:
        began = time.perf_counter()
        out = lm.generate(prompts, max_new_tokens=num_new, law=law, draft="none", eos_token_id=(), compile=compile)
        return _Run(out.stats.forwards, out.stats.symbols, time.perf_counter() - began)

    return run


def _per_forward(run: _Run) -> float:
    return run.seconds / run.forwards


def _summarise(name: str, batch: int, runs: Sequence[_Run], bases: dict[str, list[float]]) -> RivalSpeed:
    per_forward = [_per_forward(run) for run in runs]
    return RivalSpeed(
        name,
        batch,
        runs[0].forwards,
        statistics.median(per_forward),
        statistics.median(run.symbols / run.seconds for run in runs),
        {law: median_ratio(per_forward, base) for law, base in bases.items()},
    )
