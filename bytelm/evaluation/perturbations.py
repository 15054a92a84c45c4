"""Texts as people mangle them: seeded changes of characters, for scoring a model on what it has seldom read."""

import random
import unicodedata
from collections.abc import Callable

from bytelm.errors import ConfigError

_EMOJI = "😀😂😊😭🙏🎉🍣🌸🗻🚃🐱🔥💡⭐☕🎌"
_SCRIPTS = ("русский", "ελληνικά", "한국어", "עברית", "ไทย", "हिन्दी", "العربية", "English", "español")
_RARE = tuple(chr(code) for block in ((0x3400, 0x4DB6), (0x20000, 0x2A6D7)) for code in range(*block))
"""Extensions A and B of the unified ideographs: kanji that few texts have."""


def swap_neighbours(text: str, rate: float, seed: int) -> str:
    """Typos of order: a character changes places with the next one. Length and characters stay."""
    return _in_pairs(text, rate, seed, lambda a, b: b + a)


def drop_characters(text: str, rate: float, seed: int) -> str:
    """Typos of omission. What is left is a subsequence."""
    return _each(text, rate, seed, lambda character, rng: "")


def repeat_characters(text: str, rate: float, seed: int) -> str:
    """Typos of repetition: a character comes twice."""
    return _each(text, rate, seed, lambda character, rng: character * 2)


def toggle_width(text: str, rate: float, seed: int) -> str:
    """Half-width variants in the place of full-width ones, and the other way round: ASCII, katakana, marks.

    A voiced katakana becomes two characters. NFKC of both texts is the same; characters without a variant stay.
    """
    return _each(text, rate, seed, lambda character, rng: _VARIANTS.get(character, character))


def rare_kanji(text: str, rate: float, seed: int) -> str:
    """A kanji becomes one of extensions A and B. Length stays, and so do all characters that are no kanji."""
    return _each(text, rate, seed, lambda character, rng: rng.choice(_RARE) if _is_kanji(character) else character)


def insert_emoji(text: str, rate: float, seed: int) -> str:
    """An emoji behind a character. The text is a subsequence."""
    return _each(text, rate, seed, lambda character, rng: character + rng.choice(_EMOJI))


def mix_scripts(text: str, rate: float, seed: int) -> str:
    """A word of another script behind a character. The text is a subsequence."""
    return _each(text, rate, seed, lambda character, rng: character + rng.choice(_SCRIPTS))


PERTURBATIONS: dict[str, Callable[[str, float, int], str]] = {
    "swapped": swap_neighbours,
    "dropped": drop_characters,
    "repeated": repeat_characters,
    "width": toggle_width,
    "rare kanji": rare_kanji,
    "emoji": insert_emoji,
    "scripts": mix_scripts,
}
"""``(text, rate, seed) -> text`` by name. ``rate`` is the chance of each character that can change; 0 changes none."""


def perturb(name: str, text: str, rate: float, seed: int) -> str:
    """A text with one kind of change; a function of its arguments alone.

    Args:
        name: one of :data:`PERTURBATIONS`.
        text: any.
        rate: chance of each character that can change, from 0 to 1.
        seed: of the choice.
    Raises:
        ConfigError: an unknown name, or a rate that is no chance.
    """
    if name not in PERTURBATIONS:
        raise ConfigError(f"perturbation: found {name!r}, expected one of {', '.join(PERTURBATIONS)}")
    if not 0 <= rate <= 1:
        raise ConfigError(f"rate: found {rate}, expected a number from 0 to 1")
    return PERTURBATIONS[name](text, rate, seed)


def _each(text: str, rate: float, seed: int, change: Callable[[str, random.Random], str]) -> str:
    rng = random.Random(seed)
    return "".join(change(character, rng) if rng.random() < rate else character for character in text)


def _in_pairs(text: str, rate: float, seed: int, change: Callable[[str, str], str]) -> str:
    rng, out, i = random.Random(seed), [], 0
    while i < len(text):
        if i + 1 < len(text) and rng.random() < rate:
            out.append(change(text[i], text[i + 1]))
            i += 2
        else:
            out.append(text[i])
            i += 1
    return "".join(out)


def _is_kanji(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _width_variants() -> dict[str, str]:
    """From each character to its variant of the other width: one or two characters of the same NFKC."""
    variants = {}
    for code in range(0xFF01, 0xFFEF):
        character = chr(code)
        if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>")):
            plain = unicodedata.normalize("NFKC", character)
            if len(plain) == 1:
                variants[character] = plain
                variants.setdefault(plain, character)
    marks = {"\u3099": "\uff9e", "\u309a": "\uff9f"}
    for code in range(0x30A1, 0x30FB):
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) == 2 and parts[0] in variants:
            variants[chr(code)] = variants[parts[0]] + marks[parts[1]]
    return variants


_VARIANTS = _width_variants()
