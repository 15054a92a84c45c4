"""``bytelm generate``."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bytelm.cli.arguments import Device, Json, Model, check_text, load_model
from bytelm.cli.console import write_error, write_line, write_result
from bytelm.cli.prompts import Prompt, read_prompts
from bytelm.errors import DecodingError, EncodingError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel
    from bytelm.hub import Output

_DRAFTS: tuple[Literal["auto", "none", "heads"], ...] = ("auto", "none", "heads")


_Prompts = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PROMPT]...", help="Texts to continue; by default, the lines of standard input."),
]
_PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts-file", metavar="FILE", help="A prompt on each line, or a .jsonl file; - for standard input."
    ),
]
_MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", metavar="N", help="The most symbols (bytes of the encoding) per prompt.")
]
_Law = Annotated[
    str | None, typer.Option("--law", metavar="NAME", help="product, chain or next. Default: the model's.")
]
_Draft = Annotated[str, typer.Option("--draft", metavar="NAME", help="auto, none or heads: speed, not text.")]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the sampling noise.")]
_DoSample = Annotated[bool, typer.Option("--do-sample", help="Sample; otherwise the likeliest symbol.")]
_Temperature = Annotated[float | None, typer.Option("--temperature", metavar="T", help="With --do-sample.")]
_TopK = Annotated[int | None, typer.Option("--top-k", metavar="K", help="With --do-sample.")]
_TopP = Annotated[float | None, typer.Option("--top-p", metavar="P", help="With --do-sample.")]
_Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End where this text appears; may be repeated.")
]
_AllowControls = Annotated[
    bool, typer.Option("--allow-controls", help="Control strings such as <|eos|> in prompts become controls.")
]
_Stream = Annotated[bool, typer.Option("--stream", help="Write the text of one prompt as it is generated.")]


def generate(
    model: Model,
    prompts: _Prompts = None,
    prompts_file: _PromptsFile = None,
    max_new_tokens: _MaxNewTokens = 160,
    law: _Law = None,
    draft: _Draft = "auto",
    seed: _Seed = 0,
    do_sample: _DoSample = False,
    temperature: _Temperature = None,
    top_k: _TopK = None,
    top_p: _TopP = None,
    stop: _Stop = None,
    allow_controls: _AllowControls = False,
    stream: _Stream = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue prompts. The continuations go to standard output, figures to standard error.

    JSON fields: command, model, encoding, prompts, texts, finish, nats, law, draft, seed, symbols, characters,
    forwards, drafted, accepted, chars_per_forward, chars_per_second, seconds.
    """
    if not do_sample and (temperature, top_k, top_p) != (None, None, None):
        write_error("warning: --temperature, --top-k and --top-p have no effect without --do-sample")
    chosen_draft = next((known for known in _DRAFTS if known == draft), None)
    if chosen_draft is None:
        raise DecodingError(f"--draft: found {draft!r}, expected one of {', '.join(_DRAFTS)}")
    given = read_prompts(prompts or [], prompts_file)
    for text in stop or []:
        check_text(text, "--stop")
    if stream and len(given) > 1:
        raise DecodingError(f"--stream: found {len(given)} prompts, expected one")
    lm = load_model(model, device)
    controls: Literal["all"] | tuple[str, ...] = "all" if allow_controls else ()
    _check_texts(lm, given, stop or [], controls)
    try:
        output = lm.generate(
            [prompt.text for prompt in given],
            max_new_tokens=max_new_tokens,
            law=law,
            draft=chosen_draft,
            seed=seed,
            do_sample=do_sample,
            temperature=1.0 if temperature is None else temperature,
            top_k=top_k,
            top_p=top_p,
            stop=stop or [],
            streamer=_write_piece if stream else None,
            allowed_controls=controls,
        )
    except DecodingError as error:
        raise _with_place(error, given) from None
    if stream:
        write_line("")
    elif not json:
        _write_texts(given, output)
    write_error(_describe(output))
    write_result(_summary(model, lm, given, seed, output), "", json)


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


def _write_texts(prompts: Sequence[Prompt], output: "Output") -> None:
    if len(prompts) == 1:
        write_line(output.texts[0])
        return
    for prompt, text in zip(prompts, output.texts, strict=True):
        write_line(f"--- {prompt.place}: {prompt.text}\n{text}")


def _describe(output: "Output") -> str:
    stats = output.stats
    drafts = f", {stats.accepted} of {stats.drafted} drafted symbols accepted" if stats.drafted else ""
    return (
        f"law {output.law}, draft {output.draft}: {output.num_chars} characters "
        f"in {stats.forwards} forwards and {stats.seconds:.2f} s: {output.chars_per_forward:.2f} chars/forward, "
        f"{output.chars_per_second:.1f} chars/s{drafts}"
    )


def _summary(
    model: Path, lm: "LanguageModel", prompts: Sequence[Prompt], seed: int, output: "Output"
) -> dict[str, Any]:
    return {
        "command": "generate",
        "model": str(model),
        "encoding": lm.encoding.name,
        "prompts": [prompt.text for prompt in prompts],
        "texts": output.texts,
        "finish": output.finish,
        "nats": [float(nats.sum()) for nats in output.nats],
        "law": output.law,
        "draft": output.draft,
        "seed": seed,
        "symbols": output.stats.symbols,
        "characters": output.num_chars,
        "forwards": output.stats.forwards,
        "drafted": output.stats.drafted,
        "accepted": output.stats.accepted,
        "chars_per_forward": output.chars_per_forward,
        "chars_per_second": output.chars_per_second,
        "seconds": output.stats.seconds,
    }
