"""The body of ``POST /v1/completions``: what is understood, and what is refused by its name."""

import dataclasses
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from bytelm.serving.errors import RequestError, bad_request
from bytelm.serving.limits import Limits

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
_DEFAULT_MAX_TOKENS = 16
_Default = TypeVar("_Default")
_SHOWN = 60
_MOST_PENALTY, _MOST_BIAS = 2, 100
_DIGITS = 12
_NEUTRAL: dict[str, tuple[Any, ...]] = {"suffix": (None, "")}
"""Fields of the API without a counterpart here, and the values of them that ask for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request that is well-formed.

    Attributes:
        prompts: texts to continue.
        options: of :class:`bytelm.hub.GenerationOptions`, those of rows.
        law: to decode under; None for the server's.
        stops: of ``options``, which an answer leaves out.
        stream: whether text is sent as it comes.
        include_usage: whether a stream ends with the usage.
        echo: whether an answer begins with its prompt.
        logprobs: whether an answer has the log-probability of each symbol.
    """

    prompts: tuple[str, ...]
    options: Mapping[str, Any]
    law: str | None = None
    stops: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    logprobs: bool = False

    @property
    def num_sequences(self) -> int:
        """Answers for each prompt."""
        return int(self.options["num_return_sequences"])

    @property
    def num_rows(self) -> int:
        """Answers."""
        return len(self.prompts) * self.num_sequences


def parse_completion(body: bytes, model: str, limits: Limits, vocab_size: int) -> CompletionRequest:
    """The request that a body of JSON makes.

    Args:
        body: as it was sent.
        model: the name of the model that is served.
        limits: of the server.
        vocab_size: of the model.
    Raises:
        RequestError: a field that is unknown, unsupported, or has a wrong value; names it.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"body: found no JSON ({error}), expected an object") from None
    if not isinstance(data, dict):
        raise RequestError(400, f"body: found {type(data).__name__}, expected an object")
    fields = _Fields(data)
    _check_model(fields, model)
    prompts, stops = _prompts(fields, limits), _stops(fields)
    sequences = fields.whole("n", 1, 1)
    if (best_of := fields.take("best_of")) not in (None, sequences):
        raise bad_request("best_of", f"found {_shown(best_of)}, expected n = {sequences}: no answer is left out")
    if len(prompts) * sequences > limits.max_batch:
        raise bad_request("n", f"found {len(prompts) * sequences} answers to give, expected at most {limits.max_batch}")
    stream = fields.flag("stream")
    request = CompletionRequest(
        prompts=prompts,
        options={
            "max_new_tokens": fields.whole("max_tokens", 1, _DEFAULT_MAX_TOKENS),
            "num_return_sequences": sequences,
            "stop": list(stops),
            "seed": _seed(fields),
            **_sampling(fields),
            **_processing(fields, vocab_size),
        },
        law=fields.text("law"),
        stops=stops,
        stream=stream,
        include_usage=_include_usage(fields, stream),
        echo=fields.flag("echo"),
        logprobs=_logprobs(fields),
    )
    fields.text("user")  # named by clients for their own books
    for name, neutral in _NEUTRAL.items():
        if not any(fields.peek(name) == value for value in neutral):
            raise bad_request(name, f"found {_shown(fields.peek(name))}; this server does not support it")
        fields.take(name)
    if request.echo and request.logprobs:
        raise bad_request("logprobs", "found echo beside it; the symbols of a prompt are not scored: bytelm score does")
    fields.finish()
    return request


class _Fields:
    """The fields of a body that have not been looked at."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = dict(data)

    def peek(self, name: str) -> Any:
        return self._data.get(name)

    def take(self, name: str) -> Any:
        return self._data.pop(name, None)

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise bad_request(name, f"found {_shown(value)}, expected true or false")
        return bool(value)

    def whole(self, name: str, least: int, default: _Default) -> int | _Default:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise bad_request(name, f"found {_shown(value)}, expected a whole number of at least {least}")
        return value

    def number(self, name: str) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise bad_request(name, f"found {_shown(value)}, expected a number")
        return value

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise bad_request(name, f"found {_shown(value)}, expected a string")
        return value

    def finish(self) -> None:
        """Refuse what is left."""
        for name in self._data:
            raise bad_request(str(name)[:_SHOWN], "unknown field, which this server does not support")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _check_model(fields: _Fields, model: str) -> None:
    asked = fields.text("model")
    if asked not in (None, model):
        message = f"model: found {_shown(asked)}, expected {model!r}, which is what this server serves"
        raise RequestError(404, message, param="model", code="model_not_found")


def _prompts(fields: _Fields, limits: Limits) -> tuple[str, ...]:
    value = fields.take("prompt")
    prompts = [value] if isinstance(value, str) else value
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise bad_request("prompt", f"found {_shown(value)}, expected a string or a list of strings (no ids)")
    size = sum(len(prompt.encode("utf-8", "surrogatepass")) for prompt in prompts)
    if size > limits.max_prompt_bytes:
        found = f"found {size} UTF-8 bytes, expected at most {limits.max_prompt_bytes}"
        raise bad_request("prompt", found, "prompt_too_long")
    return tuple(prompts)


def _stops(fields: _Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops) or len(stops) > MAX_STOPS:
        raise bad_request("stop", f"found {_shown(value)}, expected a string or at most {MAX_STOPS} of them")
    for stop in stops:
        if not 0 < len(stop) <= MAX_STOP_CHARACTERS:
            raise bad_request("stop", f"found {len(stop)} characters, expected 1 to {MAX_STOP_CHARACTERS}")
    return tuple(stops)


def _seed(fields: _Fields) -> int:
    seed = fields.take("seed")
    if seed is None:
        return secrets.randbits(64)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise bad_request("seed", f"found {_shown(seed)}, expected a whole number from 0 to 2**64 - 1")
    return seed


def _sampling(fields: _Fields) -> dict[str, Any]:
    """Options of sampling; their ranges are checked where they are used."""
    temperature = fields.number("temperature")
    options = {
        "top_p": fields.number("top_p"),
        "min_p": fields.number("min_p"),
        "top_k": fields.whole("top_k", 1, None),
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {"do_sample": True, "temperature": 1.0 if temperature is None else temperature, **given}


def _processing(fields: _Fields, vocab_size: int) -> dict[str, Any]:
    """Options that change logits by what was generated, or always."""
    options: dict[str, Any] = {}
    for name in ("frequency_penalty", "presence_penalty"):
        value = fields.number(name) or 0.0
        if abs(value) > _MOST_PENALTY:
            raise bad_request(
                name, f"found {_shown(value)}, expected a number from -{_MOST_PENALTY} to {_MOST_PENALTY}"
            )
        options[name] = value
    if biases := _biases(fields, vocab_size):
        options["sequence_bias"] = biases
    return options


def _biases(fields: _Fields, vocab_size: int) -> dict[int, float]:
    """What is added to the logit of each symbol."""
    given = fields.take("logit_bias")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise bad_request("logit_bias", f"found {_shown(given)}, expected an object of symbols and numbers")
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and len(key) < _DIGITS and int(key) < vocab_size):
            found = f"found the key {_shown(key)}"
            raise bad_request("logit_bias", f"{found}, expected a symbol from 0 to {vocab_size - 1}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST_BIAS <= value <= _MOST_BIAS:
            found = f"found {_shown(value)} for {key}"
            raise bad_request("logit_bias", f"{found}, expected a number from -{_MOST_BIAS} to {_MOST_BIAS}")
    return {int(key): float(value) for key, value in given.items()}


def _include_usage(fields: _Fields, stream: bool) -> bool:
    options = fields.take("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict) or not stream:
        raise bad_request("stream_options", f"found {_shown(options)}, expected an object, and stream to be true")
    inner = _Fields(options)
    wanted = inner.flag("include_usage")
    inner.flag("include_obfuscation")  # padding against eavesdroppers, which a plain connection does not withstand
    inner.finish()
    return wanted


def _logprobs(fields: _Fields) -> bool:
    value = fields.take("logprobs")
    if value is None or value is False:
        return False
    if isinstance(value, bool) or value != 0:
        raise bad_request("logprobs", f"found {_shown(value)}, expected 0: the emitted symbols, without alternatives")
    return True
