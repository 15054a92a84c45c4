"""Automata of patterns against ``re.fullmatch``, over all short texts, all short byte strings, and texts at random."""

import functools
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.encoding import ILLEGAL, control_start, get_encoding, pattern_automaton, valid_text_automaton
from bytelm.encoding.expression import character_automaton
from bytelm.errors import DecodingError, EncodingError

NAMES = ["utf8", "utf16", "dense-ja", "ranked2"]
EXPRESSIONS = [
    "",
    "a",
    "a*|b",
    "(a*|b)あ",
    "(a|b)*abb",
    "(あ|い)*い(あ|い){2}",
    "(a?){3}b+",
    "(a*b?)*?あ",
    "a{2,}|[^a]{,3}",
    "((a|)b|あ{2}){1,2}",
    "(?:a(?:b|)){2,3}|",
    ".*",
    "(?s:.)a.",
    "[^b\n]*",
    "[ぁ-んa]+",
    "(?i)[A-B]+あ?",
    "(?i:A)b(?-i:B)?|a",
    r"\w{2}\W?",
    r"[\W\D]a|\S+\s",
    r"(?a:\w+)あ",
    r"[^\w\n]|\d",
    r"(?x) a b  # comment",
    "(?P<name>a)|b",
    "(?:){5}a(?:|){3}",
    "[\\]\\-^a]+",
    "a|\ud800",
    r"\x61[\u3042]\n?",
]
ALPHABET = "abAあい\n😀"


@functools.cache
def cached(name, expression):
    return pattern_automaton(get_encoding(name), expression)


def accepts(automaton, data: bytes) -> bool:
    state = automaton.run(data)
    return state != ILLEGAL and bool(automaton.accepting[state])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_all_short_texts(expression):
    compiled = re.compile(expression)
    texts = ["".join(letters) for length in range(5) for letters in itertools.product(ALPHABET, repeat=length)]
    matches = {text: compiled.fullmatch(text) is not None for text in texts}
    for name in NAMES:
        encoding = get_encoding(name)
        automaton = cached(name, expression)
        words = {letter: encoding.encode(letter).tobytes() for letter in ALPHABET}
        states = {}
        for text in texts:
            state = states[text[:-1]] if text else 0
            if text and state != ILLEGAL:
                state = automaton.run(words[text[-1]], state)
            states[text] = state
            if state == ILLEGAL:
                assert not matches[text]
                continue
            assert bool(automaton.accepting[state]) == matches[text]
            eos = automaton.run(encoding.controls["<|eos|>"], state)
            assert (eos != ILLEGAL) == matches[text], "EOS exactly where it matches"


def legal_strings(automaton, data, length):
    """All byte strings up to a length that are legal, by way of the states' own legal bytes, and their states."""
    layers = [{b"": 0}]
    for _ in range(length):
        longer = {}
        for string, state in layers[-1].items():
            row = automaton.transitions[state].tolist()
            longer.update((string + bytes([byte]), row[byte]) for byte in data if row[byte] != ILLEGAL)
        layers.append(longer)
    return {string: state for layer in layers for string, state in layer.items()}


def all_codes(encoding, data, length):
    """The code of every text, up to a length, of characters whose code words consist of ``data``."""
    words = {}
    for scalar in map(int, np.flatnonzero(np.isin(encoding.words.astype(">u4") >> 24, list(data)))):
        if not 0xD800 <= scalar < 0xE000 and data.issuperset(word := encoding.encode(chr(scalar)).tobytes()):
            words[chr(scalar)] = word
    codes = {"": b""}
    layer = codes
    while layer:
        layer = {
            text + letter: code + word
            for text, code in layer.items()
            for letter, word in words.items()
            if len(code) + len(word) <= length
        }
        codes = codes | layer
    return codes


@pytest.mark.parametrize("name", NAMES)
def test_all_short_byte_strings(name):
    """Over the bytes of three letters and EOS: what is accepted is the code of what matches, and EOS words after it."""
    length = 6
    encoding = get_encoding(name)
    eos = encoding.controls["<|eos|>"]
    data = {*encoding.encode("abあ").tolist(), *eos}
    codes = all_codes(encoding, data, length)
    for expression in ("(a|あ)*", "[あ-う]?b|aa+", "(?s:.){0,2}", "あ{1,2}"):
        automaton = cached(name, expression)
        strings = legal_strings(automaton, data, length)
        accepted = {string for string, state in strings.items() if automaton.accepting[state]}
        matching = [code for text, code in codes.items() if re.fullmatch(expression, text) is not None]
        expected = {code + eos * count for code in matching for count in range(length + 1)}
        assert accepted == {string for string in expected if len(string) <= length}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_no_dead_ends_and_no_states_that_nothing_reaches(name, expression):
    automaton = cached(name, expression)
    legal = automaton.transitions != ILLEGAL
    assert legal.any(axis=1).all()
    targets = np.where(legal, automaton.transitions, 0)
    ends, reached = automaton.accepting, np.arange(len(automaton)) == 0
    before = -1
    while before != ends.sum() + reached.sum():
        before = ends.sum() + reached.sum()
        ends = ends | (legal & ends[targets]).any(axis=1)
        reached[automaton.transitions[reached][legal[reached]]] = True
    assert ends.all()
    assert reached.all()


@pytest.mark.parametrize("expression", [r"(?i)[^\Wa-j\d]", r"\w|[一-龯。]|[\U0001F600-\U0010FFFF]"])
def test_every_character_of_a_class_is_in_it(expression):
    automaton = character_automaton(expression)
    scalars = [*range(0xD800), *range(0xE000, 0x110000)]
    state = automaton.transitions[0, automaton.classes[scalars]]
    fullmatch = re.compile(expression).fullmatch
    assert ((state != ILLEGAL) == [fullmatch(chr(scalar)) is not None for scalar in scalars]).all()
    assert automaton.accepting[state[state != ILLEGAL]].all()


@given(st.sampled_from(NAMES), st.data())
def test_texts_at_random(name, data):
    encoding = get_encoding(name)
    expression = data.draw(
        st.sampled_from([r"[0-9]{4}年[0-9]{1,2}月", r"[ぁ-んー]+", r"(はい|いいえ)。?", r"\w+( \w+)*"])
    )
    automaton = cached(name, expression)
    texts = st.one_of(st.from_regex(expression, fullmatch=True), st.text("はいえ。年月0 9aー", max_size=9), st.text())
    text = data.draw(texts)
    matches = re.fullmatch(expression, text) is not None
    assert accepts(automaton, encoding.encode(text).tobytes()) == matches


def test_valid_text_is_what_the_automaton_of_the_encoding_allows(encoding):
    """Walk both from the start; they differ only after EOS."""
    plain = encoding.automaton(controls=["<|eos|>"])
    automaton = valid_text_automaton(encoding)
    after_eos = automaton.run(encoding.controls["<|eos|>"])
    pairs, waiting = {(0, 0)}, [(0, 0)]
    while waiting:
        state, other = waiting.pop()
        assert (automaton.allowed[state] == plain.allowed[other]).all()
        assert automaton.accepting[state] == (other == 0)
        following = zip(automaton.transitions[state], plain.transitions[other], strict=True)
        new = {(int(a), int(b)) for a, b in following if a != ILLEGAL and a != after_eos} - pairs
        pairs |= new
        waiting += new
    eos = encoding.controls["<|eos|>"]
    assert automaton.run(eos) == automaton.run(eos * 3) == after_eos
    assert automaton.accepting[after_eos]
    assert automaton.allowed[after_eos].sum() == 1, "after EOS only EOS"


def test_the_start_of_a_control_is_of_no_word(encoding):
    automaton = encoding.automaton()
    for control, word in encoding.controls.items():
        start = control_start(encoding, control)
        assert word.startswith(start)
        assert automaton.run(start) == ILLEGAL
        assert automaton.run(start[:-1]) != ILLEGAL
    with pytest.raises(EncodingError, match=r"control: found '<\|stop\|>', expected one of"):
        control_start(encoding, "<|stop|>")


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("[", "unterminated character set at position 0"),
        ("a**", "multiple repeat at position 2"),
        ("a{3,2}", "min repeat greater than max repeat"),
        ("a{99999999999}", "the repetition number is too large"),
        ("^a", "found an anchor or boundary"),
        (r"a\b", "found an anchor or boundary"),
        (r"(a)\1", "found a back reference"),
        ("(a)?(?(1)b)", "found a conditional group"),
        ("(?=a)b", "found a lookaround"),
        ("(?:(?!a))*", "found a lookaround"),
        ("(?>a)", "found an atomic group"),
        ("a++", "found a possessive repetition"),
        (r"[^\s\S]", "found no text that it matches"),
        ("\ud800", "found no text that it matches"),
        (".{20000}", "found too many states"),
        ("(a|b)*a(a|b){18}", "found too many states"),
        ("([ぁ-ん][一-龯]){5000}", "found too many states"),
        ("(" * 5000 + ")" * 5000, "found too many groups in each other"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(expression, reason):
    with pytest.raises(DecodingError, match=re.escape(reason)) as caught:
        pattern_automaton(get_encoding("dense-ja"), expression)
    assert str(caught.value).startswith("pattern '")
    assert "\n" not in str(caught.value)
