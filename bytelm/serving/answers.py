"""Answers in OpenAI's format: what is sent of each row, piece by piece or at once."""

import dataclasses
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from bytelm.serving.engine import RowNews, Ticket
from bytelm.tokenizer import BaseTokenizer


class StopTrimmer:
    """Leaves stop strings out of a text that comes in pieces: what may yet become one is held back.

    Args:
        stops: the strings.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted(stops, key=len, reverse=True)
        self._held = ""

    def feed(self, text: str, *, stopped: bool, ended: bool) -> str:
        """The characters that can be sent.

        Args:
            text: new ones.
            stopped: whether the row ended by a stop; if that was one of the strings, the text ends with it.
            ended: whether the row ended.
        """
        text, self._held = self._held + text, ""
        if stopped:
            return text[: len(text) - max((len(s) for s in self._stops if text.endswith(s)), default=0)]
        if ended:
            return text
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` with which ``stop`` begins; never all of it."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Answers:
    """The answers to one request as they come.

    Args:
        ticket: of the request.
        model: name of the model.
        tokenizer: of the model.
    Attributes:
        num_symbols: emitted so far, over all rows.
    """

    def __init__(self, ticket: Ticket, model: str, tokenizer: BaseTokenizer[Any]) -> None:
        self._ticket, request = ticket, ticket.request
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"bytelm-{tokenizer.digest[:12]}",
        }
        self._rows = [
            _Answer(
                request.prompts[row // request.num_sequences] if request.echo else "",
                StopTrimmer(request.stops),
                tokenizer.decoder("replace") if request.logprobs else None,
            )
            for row in range(request.num_rows)
        ]
        self.num_symbols = 0

    def read(self, news: Mapping[int, RowNews]) -> list[dict[str, Any]]:
        """A choice for each row that has something to send."""
        choices = []
        for index, row in sorted(news.items()):
            self.num_symbols += sum(map(len, row.symbols))
            text, logprobs = self._rows[index].read(row)
            reason = "stop" if row.finish == "stop" else row.finish
            if text or logprobs is not None or reason is not None:
                choices.append({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason})
        return choices

    @property
    def usage(self) -> dict[str, int]:
        """Symbols of prompts, each prompt once and without BOS, and of answers."""
        prompt = self._ticket.num_prompt_symbols
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.num_symbols,
            "total_tokens": prompt + self.num_symbols,
        }

    def body(self, choices: Sequence[Mapping[str, Any]], **extra: Any) -> dict[str, Any]:
        """A response, or a piece of one."""
        return {**self._head, "choices": list(choices), **extra}


@dataclasses.dataclass
class _Answer:
    """One row: what was sent."""

    echo: str
    trimmer: StopTrimmer
    decoder: Any
    offset: int = 0

    def read(self, news: RowNews) -> tuple[str, dict[str, Any] | None]:
        text = self.trimmer.feed(news.text, stopped=news.finish == "stop", ended=news.finish is not None)
        text, self.echo = self.echo + text, ""
        return text, None if self.decoder is None else self._logprobs(news)

    def _logprobs(self, news: RowNews) -> dict[str, Any]:
        """Of each symbol: the text that it made certain, log p under the law, where that text begins, and its id."""
        ids = [int(symbol) for symbols in news.symbols for symbol in symbols]
        tokens = [self.decoder.decode([symbol]) for symbol in ids]
        offsets = []
        for token in tokens:
            offsets.append(self.offset)
            self.offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [-float(nats) for part in news.nats for nats in part],
            "top_logprobs": None,
            "text_offset": offsets,
            "ids": ids,
        }


def merge_choices(pieces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pieces of each row as one choice, in the order of the rows."""
    whole: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        known = whole.setdefault(piece["index"], {**piece, "text": "", "logprobs": None})
        known["text"] += piece["text"]
        known["finish_reason"] = piece["finish_reason"]
        if piece["logprobs"] is not None:
            before = known["logprobs"] or {name: [] for name in piece["logprobs"]}
            known["logprobs"] = {
                name: None if part is None else before[name] + part for name, part in piece["logprobs"].items()
            }
    return [whole[index] for index in sorted(whole)]


def sse(data: Mapping[str, Any] | str) -> bytes:
    """A server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()
