"""The default text: Japanese documents written for this package, and a generator that varies templates."""

import random
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

DEFAULT_PROMPTS: tuple[str, str, str] = (
    "北の町の名物一覧:\n1. ",
    "五月十二日、晴れ。祖母と",
    "「すみません、少しお尋ねします。このバスは",
)
"""Three prompts in the style of the default text: the start of a numbered list, of a diary entry, of a dialogue."""

MIN_CHARS, MAX_CHARS = 100, 800
_TARGET_BYTES = 430_000  # UTF-8 bytes of all documents; generation stops when they are reached
_MARKER = re.compile(r"\{([^{}]*)\}")  # an innermost marker
_NUMBER = re.compile(r"(~?)(\d+)-(\d+)(?::(\d+))?")
_SLOT = re.compile(r"([a-z]+)\d*")
_KANJI = "〇一二三四五六七八九"
_SENTENCE = re.compile(r"(?<=[。？！])(?!」)|\n")

_Entry = Mapping[str, str]
_Steps = tuple[tuple[str, ...], ...]


def default_texts(seed: int = 0) -> list[str]:
    """Return the default text as documents in an order drawn from `seed`.

    Every handwritten document appears once, whatever the seed; the generated ones are drawn from the templates. No
    document appears twice, each has 100 to 800 characters, and together they are 300 to 500 kB of UTF-8.
    """
    rng = random.Random(seed)
    documents = list(_written())
    seen = set(documents)
    size = sum(len(text.encode()) for text in documents)
    plans = list(_grammar().plans)
    while size < _TARGET_BYTES:
        rng.shuffle(plans)
        for plan in plans:
            text = _Writer(rng).write(_grammar().plans[plan])
            if MIN_CHARS <= len(text) <= MAX_CHARS and text not in seen:
                seen.add(text)
                documents.append(text)
                size += len(text.encode())
    rng.shuffle(documents)
    return documents


def split_default_texts(seed: int = 0, held_out: float = 0.1) -> tuple[list[str], list[str]]:
    """Split `default_texts(seed)` by document into (train, held-out); `held_out` is the held-out share, in (0, 1).

    The two parts share no document, and so no handwritten passage; generated documents of both parts come from the
    same templates. Raises ValueError for a share outside (0, 1).
    """
    if not 0.0 < held_out < 1.0:
        raise ValueError(f"held_out: {held_out}, expected a share between 0 and 1")
    documents = default_texts(seed)
    count = max(1, round(held_out * len(documents)))
    return documents[count:], documents[:count]


def written_passages() -> list[str]:
    """Return the handwritten sentences and list lines, in the order of the data file."""
    return [part.strip() for text in _written() for part in _SENTENCE.split(text) if part.strip()]


class _Grammar:
    """The templates: `slots` name -> entries, `fragments` name -> alternatives, `plans` name -> steps."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.slots: dict[str, list[_Entry]] = {
            name: [_entry(["", *slot["fields"]], value) for value in slot["values"].split()]
            for name, slot in data["slots"].items()
        }
        self.fragments: dict[str, list[str]] = {name: text.split("｜") for name, text in data["fragments"].items()}
        self.plans: dict[str, _Steps] = {
            name: tuple(tuple(line.split("｜")) for line in text.splitlines()) for name, text in data["plans"].items()
        }


class _Writer:
    """Writes one document: a slot that was drawn once keeps its entry to the end."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.kept: dict[str, _Entry] = {}

    def write(self, steps: _Steps) -> str:
        text = "".join(self._expand(self.rng.choice(alternatives)) for alternatives in steps)
        return text.replace("↵", "\n").strip()

    def _expand(self, template: str) -> str:
        while match := _MARKER.search(template):
            template = template[: match.start()] + self._fill(match[1]) + template[match.end() :]
        return template

    def _fill(self, marker: str) -> str:
        if "|" in marker:
            return self.rng.choice(marker.split("|"))
        if marker.startswith("@"):
            return self.rng.choice(_grammar().fragments[marker[1:]])
        if number := _NUMBER.fullmatch(marker):
            return self._number(*number.groups())
        name, _, field = marker.partition(".")
        if name not in self.kept:
            self.kept[name] = self._draw(name)
        return self.kept[name][field]

    def _number(self, kanji: str, low: str, high: str, step: str | None) -> str:
        value = self.rng.randrange(int(low), int(high) + 1, int(step or 1))
        return _kanji(value) if kanji else str(value).zfill(len(low))

    def _draw(self, name: str) -> _Entry:
        match = _SLOT.fullmatch(name)
        assert match is not None, f"not the name of a slot: {name!r}"
        taken = {value for entry in self.kept.values() for value in entry.values()}
        seasons = [entry["season"] for entry in self.kept.values() if "season" in entry]
        return self.rng.choice(
            [
                entry
                for entry in _grammar().slots[match[1]]
                if entry[""] not in taken and all(set(entry.get("season", season)) & set(season) for season in seasons)
            ]
        )


def _entry(fields: list[str], value: str) -> _Entry:
    return dict(zip(fields, value.split("/"), strict=True))


def _kanji(value: int) -> str:
    """Kanji numeral of 0..99."""
    tens, ones = divmod(value, 10)
    if tens == 0:
        return _KANJI[ones]
    return ("" if tens == 1 else _KANJI[tens]) + "十" + ("" if ones == 0 else _KANJI[ones])


@cache
def _written() -> tuple[str, ...]:
    return tuple(_load("default_text.yaml")["written"])


@cache
def _grammar() -> _Grammar:
    return _Grammar(_load("default_text_plans.yaml"))


def _load(name: str) -> Mapping[str, Any]:
    """Parse a data file of this package, by libyaml where it is there (ten times faster)."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = resources.files("bytelm.corpus").joinpath(name).read_text(encoding="utf-8")
    loaded = yaml.load(text, Loader=loader)
    assert isinstance(loaded, dict), name
    return loaded
