"""The measurements of ``bytelm bench decode``, with their progress."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bytelm.cli.bench_report import DecodingReport, LayersReport
from bytelm.cli.console import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

    from bytelm.benchmarks import Bandwidth, DecodingSpeed, ForwardCost, RivalSpeed, Skipped, Way
    from bytelm.hub import LanguageModel


@dataclass(frozen=True)
class Options:
    """How it is measured.

    Attributes:
        repeats: turns.
        seed: of the first row.
        compile: decode through ``torch.compile``.
        rivals: measure transformers.
        int8: measure plain steps of a copy with weights in int8, too.
    """

    repeats: int
    seed: int
    compile: bool
    rivals: bool
    int8: bool


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        prompts: continued in turn; the first alone by plain steps and by rivals.
        ways: laws and drafters.
        batches, temperatures: each with each.
        max_new_tokens: symbols of a row.
        options: how.
    """

    prompts: list[str]
    ways: "list[Way]"
    batches: list[int]
    temperatures: list[float]
    max_new_tokens: int
    options: Options


def measure(lm: "LanguageModel", plan: Plan) -> DecodingReport:
    """Measure all of it, with a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from bytelm.benchmarks import describe_rival

    with progress_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        memory, cache, costs = _measure_machine(lm, plan, bar)
        layers = _measure_layers(lm, plan, bar)
        speeds = _measure_speeds(lm, plan, bar)
        rivals, skipped = _measure_rivals(lm, plan, bar) if plan.options.rivals else ([], [])
    rounded = layers[1] if plan.options.int8 else None
    return DecodingReport(memory, cache, layers[0], costs, speeds, describe_rival(lm.config), rivals, skipped, rounded)


def _measure_layers(lm: "LanguageModel", plan: Plan, bar: "Progress") -> list[LayersReport]:
    """A plain step and the linear layers of the model and, where it is asked for, of its copy in int8."""
    from bytelm.benchmarks import measure_linear

    task = bar.add_task("linear layers", total=1)
    found = measure_linear(
        [lm, _in_int8(lm)] if plan.options.int8 else [lm],
        plan.prompts[0],
        steps=plan.max_new_tokens,
        repeats=plan.options.repeats,
        compile=plan.options.compile,
    )
    bar.advance(task)
    return [LayersReport(step, linear) for step, linear in found]


def _in_int8(lm: "LanguageModel") -> "LanguageModel":
    from bytelm.hub import LanguageModel
    from bytelm.hub.int8 import int8_copy

    return LanguageModel(int8_copy(lm.model), lm.tokenizer, lm.family)


def _measure_machine(
    lm: "LanguageModel", plan: Plan, bar: "Progress"
) -> "tuple[Bandwidth, Bandwidth, list[ForwardCost]]":
    """Bandwidths of memory and of what holds the model, and the cost of forwards."""
    from bytelm.benchmarks import measure_bandwidth, measure_forwards, weight_bytes
    from bytelm.benchmarks.bandwidth import LARGE_BUFFER

    laws = list(dict.fromkeys(way.law for way in plan.ways))
    compiled = [False, True] if plan.options.compile else [False]
    task = bar.add_task("memory and forwards", total=2 + len(compiled))
    found = []
    for size in (LARGE_BUFFER, min(LARGE_BUFFER, weight_bytes(lm.model, lm.law))):
        found.append(measure_bandwidth(size, lm.model.device))
        bar.advance(task)
    costs = []
    for mode in compiled:
        costs += measure_forwards(lm, laws=laws, repeats=5 * plan.options.repeats, compiled=mode)
        bar.advance(task)
    return found[0], found[1], costs


def _measure_speeds(lm: "LanguageModel", plan: Plan, bar: "Progress") -> "list[DecodingSpeed]":
    from bytelm.benchmarks import measure_decoding

    settings = [(batch, temperature) for batch in plan.batches for temperature in plan.temperatures]
    task = bar.add_task("ways of decoding", total=len(settings))
    speeds = []
    for batch, temperature in settings:
        speeds += measure_decoding(
            lm,
            plan.prompts,
            ways=plan.ways,
            batch=batch,
            temperature=temperature,
            max_new_tokens=plan.max_new_tokens,
            repeats=plan.options.repeats,
            compile=plan.options.compile,
            seed=plan.options.seed,
        )
        bar.advance(task)
    return speeds


def _measure_rivals(lm: "LanguageModel", plan: Plan, bar: "Progress") -> "tuple[list[RivalSpeed], list[Skipped]]":
    from bytelm.benchmarks import measure_rivals

    task = bar.add_task("transformers", total=len(plan.batches))
    found: list[RivalSpeed] = []
    skipped: list[Skipped] = []
    for batch in plan.batches:
        speeds, missing = measure_rivals(
            lm,
            plan.prompts[0],
            batch=batch,
            forwards=plan.max_new_tokens,
            repeats=plan.options.repeats,
            compile=plan.options.compile,
            lookup=any(way.draft == "lookup" for way in plan.ways),
        )
        found += speeds
        skipped += [entry for entry in missing if entry not in skipped]
        bar.advance(task)
    return found, skipped
