"""``bytelm generate``."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bytelm.cli import completions
from bytelm.cli.arguments import Attention, Device, Dtype, FourBit, Int8, Json, Revision, check_text, load_model
from bytelm.cli.console import count_progress, shows_progress, write_error, write_line, write_note, write_result
from bytelm.cli.interactive import SAMPLED, talk
from bytelm.cli.prompts import Prompt, find_model, read_prompts, split_model
from bytelm.cli.trace import write_trace
from bytelm.errors import DecodingError, EncodingError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel, Output

_OF_THE_COMMAND = (
    "arguments",
    "model",
    "revision",
    "dtype",
    "four_bit",
    "int8",
    "device",
    "prompts_file",
    "allow_controls",
    "interactive",
    "stream",
    "trace",
    "json",
)

_Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] [PROMPT]...",
        help="A first argument that is a folder, or is written like a name, a path or an id (ASCII without spaces), is "
        "the model, which is otherwise bytelm-ja-tiny, if the package has it; the others are texts to continue, by "
        "default the lines of standard input.",
    ),
]
_Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="The model; then all arguments are texts to continue.")
]
_PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts-file", metavar="FILE", help="A prompt on each line, or a .jsonl file; - for standard input."
    ),
]
_Law = Annotated[
    str | None,
    typer.Option(
        "--law",
        metavar="NAME",
        help="product, chain or next. Default: the model's.",
        autocompletion=completions.laws,
    ),
]
_Draft = Annotated[
    str,
    typer.Option(
        "--draft",
        metavar="NAME",
        help="auto, none, heads, lookup, or a small model or draft heads in a folder: speed, not text.",
        autocompletion=completions.drafts,
    ),
]
_Verify = Annotated[
    str,
    typer.Option(
        "--verify",
        metavar="NAME",
        help="exact; for study rejection, or typical, which is lossy.",
        autocompletion=completions.verify_rules,
    ),
]
_Interactive = Annotated[
    bool, typer.Option("--interactive", help="Continue each line that is typed, as it is typed; /help explains.")
]
_Pattern = Annotated[
    str | None, typer.Option("--pattern", metavar="REGEX", help="What each whole continuation must match.")
]
_Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End where this text appears; may be repeated.")
]
_DoSample = Annotated[
    bool | None,
    typer.Option(
        "--do-sample/--greedy",
        help="Sample, or the likeliest symbol. Default: as the model's generation_config.json says, else greedy.",
        show_default=False,
    ),
]
_AllowControls = Annotated[
    bool, typer.Option("--allow-controls", help="Control strings such as <|eos|> in prompts become controls.")
]


def _whole(name: str, help: str) -> Any:
    return typer.Option(name, metavar="N", help=help)


def _number(name: str, help: str) -> Any:
    return typer.Option(name, metavar="X", help=help)


def generate(
    arguments: _Arguments = None,
    model: _Model = None,
    prompts_file: _PromptsFile = None,
    max_new_tokens: Annotated[int, _whole("--max-new-tokens", "The most symbols (bytes or tokens) each.")] = 160,
    min_new_tokens: Annotated[int, _whole("--min-new-tokens", "Symbols before which a text cannot end.")] = 0,
    max_new_chars: Annotated[int | None, _whole("--max-new-chars", "The most characters each.")] = None,
    max_time: Annotated[float | None, _number("--max-time", "Seconds after which texts end as they are.")] = None,
    law: _Law = None,
    attention: Attention = None,
    draft: _Draft = "auto",
    num_draft_tokens: Annotated[int | None, _whole("--num-draft-tokens", "The most symbols to draft.")] = None,
    verify: _Verify = "exact",
    seed: Annotated[int, _whole("--seed", "Of the sampling noise.")] = 0,
    num_return_sequences: Annotated[int, _whole("--num-return-sequences", "Continuations of each prompt.")] = 1,
    do_sample: _DoSample = None,
    temperature: Annotated[float | None, _number("--temperature", "With --do-sample.")] = None,
    top_k: Annotated[int | None, _whole("--top-k", "With --do-sample.")] = None,
    top_p: Annotated[float | None, _number("--top-p", "With --do-sample.")] = None,
    min_p: Annotated[float | None, _number("--min-p", "With --do-sample.")] = None,
    typical_p: Annotated[float | None, _number("--typical-p", "With --do-sample.")] = None,
    repetition_penalty: Annotated[float, _number("--repetition-penalty", "Above 1: what stood before, less.")] = 1.0,
    frequency_penalty: Annotated[float, _number("--frequency-penalty", "Less of a symbol per use before.")] = 0.0,
    presence_penalty: Annotated[float, _number("--presence-penalty", "Less of a symbol once it was used.")] = 0.0,
    no_repeat_ngram_size: Annotated[int, _whole("--no-repeat-ngram-size", "No run of N symbols twice.")] = 0,
    valid_text: Annotated[bool, typer.Option("--valid-text", help="Mask all that is no text of the encoding.")] = False,
    pattern: _Pattern = None,
    stop: _Stop = None,
    allow_controls: _AllowControls = False,
    interactive: _Interactive = False,
    stream: Annotated[bool, typer.Option("--stream", help="Write the text of one prompt as it is generated.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Colour the text by where each symbol came from.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile: a minute at first, then faster.")] = False,
    dtype: Dtype = None,
    four_bit: FourBit = "dequantise",
    int8: Int8 = False,
    revision: Revision = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue prompts. The texts go to standard output, figures to standard error.

    JSON fields: command, model, family, encoding, prompts, texts, finish, nats, law, attention, draft, verify, exact,
    seed, symbols, characters, utf8_bytes, forwards, drafted, accepted, acceptance_at, by_drafter, chars_per_forward,
    chars_per_second, seconds, seconds_by_part.
    """
    options = _checked({name: x for name, x in locals().items() if name not in _OF_THE_COMMAND and x is not None})
    source, prompts = split_model(arguments or [], model)
    given = _no_prompts(prompts, prompts_file, trace, json) if interactive else read_prompts(prompts, prompts_file)
    _check_stream(stream, len(given) * num_return_sequences)
    lm = load_model(find_model(source), device, dtype=dtype, four_bit=four_bit, revision=revision, int8=int8)
    options, told = _sampling(source, revision, options)
    options |= {"allowed_controls": "all" if allow_controls else (), "draft": _open_draft(draft, lm, device, dtype)}
    _check_texts(lm, given, stop or [], options["allowed_controls"])
    if interactive:
        return talk(lm, options)
    output = _decode(lm, given, stream, options)
    if not stream and not json:
        _write_texts(given, output, num_return_sequences, trace)
    return _write_figures(_describe(source, output) + told, _summary(source, lm, given, seed, output), json)


def _no_prompts(*others: Any) -> list[Prompt]:
    """None, where nothing is given that does not go with --interactive."""
    if any(others):
        raise DecodingError("--interactive: found prompts, --trace or --json with it, expected none of them")
    return []


def _sampling(source: str, revision: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The options, with those of sampling that the model's folder has where none is given; and words about these."""
    from bytelm.hub.sampling_defaults import sampling_defaults
    from bytelm.hub.source import find_folder

    if any(name in options for name in ("do_sample", *SAMPLED)):
        return {"do_sample": False, **options}, ""
    found = sampling_defaults(find_folder(source, revision))
    told = ", ".join(f"{name} {value:g}" for name, value in found.items() if name != "do_sample")
    words = f"; sampled as generation_config.json says ({told or 'temperature 1'})" if found else ""
    return {"do_sample": False, **options, **found}, words


def _open_draft(draft: str, lm: "LanguageModel", device: str, dtype: str | None) -> "str | LanguageModel":
    """A drafter by its name, or what its folder holds: heads, which the model gets, or a small model."""
    from bytelm.hub.draft_heads import is_draft_heads, load_draft_heads

    folder = Path(draft)
    if draft in completions.DRAFTS:
        return draft
    if not folder.is_dir() or not is_draft_heads(folder):
        return load_model(folder, device, dtype=dtype)
    load_draft_heads(folder, lm.model)
    return "heads"


def _decode(lm: "LanguageModel", prompts: Sequence[Prompt], stream: bool, options: dict[str, Any]) -> "Output":
    texts = [prompt.text for prompt in prompts]
    try:
        if stream:
            output = lm.generate(texts, streamer=_write_piece, **options)
            write_line("")
            return output
        if not shows_progress():
            return lm.generate(texts, **options)
        with count_progress("generating", unit="characters") as advance:
            return lm.generate(texts, streamer=lambda _, text: advance(len(text)), **options)
    except DecodingError as error:
        raise _with_place(error, prompts) from None


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, of which some can be refused before anything is loaded."""
    useless = [f"--{name.replace('_', '-')}" for name in SAMPLED if name in options]
    if useless and not options.get("do_sample"):
        write_error(f"warning: {', '.join(useless)} without --do-sample: no effect")
    for text in options.get("stop", ()):
        check_text(text, "--stop")
    if "pattern" in options:
        check_text(options["pattern"], "--pattern")
    draft = options["draft"]
    if draft not in completions.DRAFTS and "/" not in draft and not Path(draft).is_dir():
        raise DecodingError(
            f"--draft: found {draft!r}, expected one of {', '.join(completions.DRAFTS)}, or the folder of a model"
        )
    return options


def _write_figures(note: str, result: Mapping[str, Any], as_json: bool) -> None:
    write_note(note)
    write_result(result, "", as_json)


def _check_stream(stream: bool, num_texts: int) -> None:
    if stream and num_texts > 1:
        raise DecodingError(f"--stream: found {num_texts} texts to write, expected one")


def _check_texts(
    lm: "LanguageModel", prompts: Sequence[Prompt], stops: Sequence[str], controls: Literal["all"] | tuple[str, ...]
) -> None:
    """Refuse a text that the model's tokenizer refuses, by its place."""
    for place, text, allowed in [
        *((prompt.place, prompt.text, controls) for prompt in prompts),
        *(("--stop", text, ()) for text in stops),
    ]:
        try:
            lm.tokenizer.encode(text, allowed_controls=allowed)
        except EncodingError as error:
            raise EncodingError(f"{place}: {error}") from None


def _with_place(error: DecodingError, prompts: Sequence[Prompt]) -> DecodingError:
    """The error, where it begins with the index of a prompt, with the place of that prompt instead."""
    match = re.match(r"prompt (\d+): ", str(error))
    if match is None:
        return error
    return DecodingError(f"{prompts[int(match[1])].place}: {str(error)[match.end() :]}")


def _write_piece(row: int, text: str) -> None:
    write_line(text, end="")


def _write_texts(prompts: Sequence[Prompt], output: "Output", per_prompt: int, trace: bool) -> None:
    for row in range(len(output.texts)):
        prompt = prompts[row // per_prompt]
        if len(output.texts) > 1:
            write_line(f"--- {prompt.place}: {prompt.text}")
        if trace:
            write_trace(output, row)
        else:
            write_line(output.texts[row])


def _describe(model: str, output: "Output") -> str:
    stats = output.stats
    drafts = f", {stats.accepted} of {stats.drafted} drafted symbols accepted" if stats.drafted else ""
    lossy = "" if stats.exact else " (lossy)"
    return (
        f"{model}: law {output.law}, draft {output.draft}, {stats.verify}{lossy}: {output.num_chars} characters "
        f"in {stats.forwards} forwards and {stats.seconds:.2f} s: {output.chars_per_forward:.2f} chars/forward, "
        f"{output.chars_per_second:.1f} chars/s{drafts}"
    )


def _summary(model: str, lm: "LanguageModel", prompts: Sequence[Prompt], seed: int, output: "Output") -> dict[str, Any]:
    stats = output.stats
    return {
        "command": "generate",
        "model": model,
        "family": lm.family,
        "encoding": lm.tokenizer.name,
        "prompts": [prompt.text for prompt in prompts],
        "texts": output.texts,
        "finish": output.finish,
        "nats": [float(nats.sum()) for nats in output.nats],
        "law": output.law,
        "attention": output.attention,
        "draft": output.draft,
        "verify": stats.verify,
        "exact": stats.exact,
        "seed": seed,
        "symbols": stats.symbols,
        "characters": output.num_chars,
        "utf8_bytes": output.num_utf8_bytes,
        "forwards": stats.forwards,
        "drafted": stats.drafted,
        "accepted": stats.accepted,
        "acceptance_at": list(stats.acceptance_at),
        "by_drafter": {name: list(counts) for name, counts in stats.by_drafter.items()},
        "chars_per_forward": output.chars_per_forward,
        "chars_per_second": output.chars_per_second,
        "seconds": stats.seconds,
        "seconds_by_part": dataclasses.asdict(stats.parts),
    }
