"""What the requests of lm-evaluation-harness are to a language model: ids, limits, options. Imports no lm_eval."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import ConfigError, DecodingError, EncodingError
from bytelm.hub import LanguageModel

Windows = Literal["overlap", "harness"]
"""How a text longer than the context is read: by halves, as ``score`` does, or end to end, as the harness's own class
for transformers does."""

WINDOWS: tuple[Windows, ...] = ("overlap", "harness")


@dataclasses.dataclass
class Counts:
    """What had to be done otherwise than asked, in requests.

    Attributes:
        requests: so far, of every kind.
        truncated: whose context was cut at its left to fit the model's.
        straddled: of models of tokens, where a token of the joint text reaches over the boundary of context and
            continuation, so that the harness's split is no split of the text.
        apart: those of them whose continuation would have had no token at all, and was encoded by itself.
    """

    requests: int = 0
    truncated: int = 0
    straddled: int = 0
    apart: int = 0


@dataclasses.dataclass(frozen=True)
class Pair:
    """Ids of a context, without BOS, and of what follows it."""

    context: NDArray[Any]
    continuation: NDArray[Any]


def split_pair(lm: LanguageModel, context: str, continuation: str, counts: Counts, place: str) -> Pair:
    """The ids of context and continuation.

    Models of bytes: of each by itself, which is exact, for a text has the same bytes wherever it is cut. Models of
    tokens: what the harness's class for transformers does, that is, white space at the end of the context goes to the
    continuation, both are encoded together, and as many ids as the context has by itself are the context's. Where that
    leaves the continuation without ids, it is encoded by itself.

    Args:
        lm: whose ids.
        context: may be empty; models of tokens then read BOS.
        continuation: what is scored.
        counts: of the boundaries that a token reaches over.
        place: names the request in errors.
    Raises:
        EncodingError: a lone surrogate or, with a model of bytes, a control string.
    """
    if lm.tokenizer.context_free:
        return Pair(encode(lm, context, f"{place}, context"), encode(lm, continuation, f"{place}, continuation"))
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    whole = encode(lm, kept + continuation, place)
    head = encode(lm, kept, f"{place}, context")
    tail = whole[len(head) :]
    if not np.array_equal(whole[: len(head)], head):
        counts.straddled += 1
        if not len(tail):
            counts.apart += 1
            tail = encode(lm, continuation, f"{place}, continuation")
    return Pair(head, tail)


def encode(lm: LanguageModel, text: str, place: str) -> NDArray[Any]:
    """The ids of a text, in which a control string is never a control.

    Raises:
        EncodingError: a lone surrogate or, with a model of bytes, a control string; names ``place``.
    """
    try:
        return lm.tokenizer.encode(text)
    except EncodingError as error:
        raise EncodingError(f"{place}: {error}") from None


def cut_left(ids: NDArray[Any], room: int, counts: Counts, what: str) -> NDArray[Any]:
    """The last ``room`` ids; what is cut is counted.

    Raises:
        DecodingError: there is no room at all; ``what`` says for what.
    """
    if room < 1:
        raise DecodingError(f"{what}: found no room for a context before it, expected less, or a longer context")
    if len(ids) > room:
        counts.truncated += 1
    return ids[-room:]


def generation_options(lm: LanguageModel, normalized: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``generate`` that the keywords of a request stand for.

    Args:
        lm: a model of bytes writes a patch for each "token" of ``max_gen_toks``.
        normalized: the keywords as ``lm_eval.models.utils.normalize_gen_kwargs`` gives them.
        given: the keywords as the task has them.
    Raises:
        DecodingError: a limit below 1, or a stop that is no string.
    """
    options = dict(normalized)
    until, limit = options.pop("until"), options.pop("max_gen_toks")
    for stop in until:
        if not isinstance(stop, str):
            raise DecodingError(f"until: found {stop!r}, expected strings")
    if limit < 1:
        raise DecodingError(f"max_gen_toks: found {limit}, expected at least 1")
    options["do_sample"] = bool(options.get("do_sample")) and options.get("temperature", 1.0) != 0
    if not options["do_sample"]:
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p"):
            options.pop(name, None)
    elif "temperature" not in given:
        options.pop("temperature", None)
    options["stop"] = [stop for stop in until if stop]
    options["max_new_tokens"] = limit * lm.config.patch
    return options


def before_stops(text: str, stops: Sequence[str]) -> str:
    """The text before the first of each stop."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text


def check_windows(lm: LanguageModel, windows: str) -> Windows:
    """The scheme of this name.

    Raises:
        ConfigError: an unknown one; or ``harness`` for a model of bytes, which reads whole patches of BOS.
    """
    for known in WINDOWS:
        if windows == known:
            if known == "harness" and lm.config.patch != 1:
                raise ConfigError(
                    f"windows: found 'harness' for a model of {lm.config.patch} bytes, expected 'overlap'"
                )
            return known
    raise ConfigError(f"windows: found {windows!r}, expected one of {', '.join(WINDOWS)}")
