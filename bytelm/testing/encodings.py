"""A kit that property-tests any encoding of text, ours or another, through what Hypothesis makes up. Needs Hypothesis.

An encoding under test is an object with ``encode(text)`` and ``decode(data)``; ``run_encoding_kit(coder)`` runs all
checks. What else it has is found by its name, as of :class:`bytelm.encoding.Encoding`, and checked too: ``controls``,
``decoder``, ``encode_batch`` and ``decode_batch``, ``complete`` and ``char_starts``, ``automaton``, and the modes
``replace`` and ``surrogateescape`` of a parameter ``errors``. Checks return a :class:`~bytelm.testing.Report` whose
message holds the smallest counterexample that was found, and do not raise.

===============  =======================================================================================================
check            what holds
===============  =======================================================================================================
round trip       every text comes back, names of controls in it included
concatenation    the bytes of two texts are those of each: no state between characters
prefix-free      no word, and no control, is equal to another or begins it; at level full, of all of Unicode
canonical        what decodes has been written in the one way in which it is encoded
error positions  an error names the first byte that is not text, and the first character that cannot be encoded
replacement      ``replace`` takes any bytes, gives text its text, and marks the rest with U+FFFD
streaming        bytes in any pieces give what the whole gives; whole characters, each as soon as it is certain
controls         a control is no text, where it stands alone or between texts
batch            a batch is its rows
boundaries       a stream may be cut where ``complete`` says; ``char_starts`` marks every character
escapes          any file comes back by ``surrogateescape``, and without it only text is taken
automaton        ends between two characters after what decodes, and after nothing else
===============  =======================================================================================================

:data:`bytelm.testing.encoding_bugs.ENCODING_BUGS` are encodings with one bug each, which these checks must fail.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Final

from bytelm.testing.coders import NOTHING as NOTHING
from bytelm.testing.coders import Ability as Ability
from bytelm.testing.coders import Coder as Coder
from bytelm.testing.coders import Subject, Without, report_on, shown
from bytelm.testing.reports import Level, Mismatch, Report
from bytelm.testing.text_strategies import byte_strings, characters, short_strings

from hypothesis import strategies as st  # isort: skip (text_strategies says if missing)

_SCALARS: Final = (range(0xD800), range(0xE000, 0x110000))


def run_encoding_kit(coder: Coder, *, lacks: Without = NOTHING, level: Level = "quick") -> list[Report]:
    """Run every check of an encoding.

    Args:
        coder: under test.
        lacks: what it cannot do although it has an attribute of that name, with reasons; reports say what they left
            out.
        level: ``quick`` takes seconds and 60 examples a check, ``full`` minutes, 3,000 and all of Unicode.
    """
    return [check(coder, lacks, level) for check in CHECKS.values()]


def check_round_trip(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """Every text comes back."""

    def body(on: Subject) -> None:
        def comes_back(text: str) -> None:
            data = on.encode(text)
            found = on.decode(data)
            on.findings.require(found == text, f"{text!a}, encoded as {shown(data)}, decodes to {found!a}")

        on.search(on.texts(), comes_back)

    return report_on("round trip", body, coder, lacks, level)


def check_concatenation(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """The bytes of two texts are the bytes of each, one after another."""

    def body(on: Subject) -> None:
        def adds_up(case: tuple[str, str]) -> None:
            left, right = (on.encode(part) for part in case)
            both = on.encode("".join(case))
            message = f"{case[0]!a} is {shown(left)} and {case[1]!a} is {shown(right)}, but both together {shown(both)}"
            on.findings.require(both == left + right, message)

        on.search(st.tuples(on.texts(), on.texts()), adds_up)

    return report_on("concatenation", body, coder, lacks, level)


def check_prefixes(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """No word begins another one."""

    def body(on: Subject) -> None:
        def free(some: list[str]) -> None:
            words = [(on.encode(character), f"U+{ord(character):04X}") for character in some]
            words += [(bytes(word), name) for name, word in on.controls.items()]
            for (one, its), (other, whose) in itertools.pairwise(sorted(words)):
                if other.startswith(one):
                    raise Mismatch(f"the word {shown(one)} of {its} begins {shown(other)} of {whose}")

        on.search(st.lists(characters(), min_size=2, max_size=60, unique=True), free)
        if level == "full":
            free([chr(value) for values in _SCALARS for value in values])

    return report_on("prefix-free", body, coder, lacks, level)


def check_canonical(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """What decodes is what its text is encoded as."""

    def body(on: Subject) -> None:
        def one_form(data: bytes) -> None:
            if on.refusal(on.decode, data) is not None:
                return
            text = on.decode(data)
            on.findings.figures["accepted"] = on.findings.figures.get("accepted", 0) + 1
            again = on.encode(text)
            on.findings.require(again == data, f"{shown(data)} decodes to {text!a}, which is encoded as {shown(again)}")

        for data in short_strings():
            on.findings.case()
            one_form(data)
        on.search(on.data(), one_form)

    return report_on("canonical", body, coder, lacks, level)


def check_errors(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """Errors say where: what stands before is text, and text before moves the place by its length."""

    def body(on: Subject) -> None:
        def decoding(case: tuple[str, bytes]) -> None:
            text, data = case
            error = on.refusal(on.decode, data)
            if error is None:
                return
            at = on.position(error)
            on.findings.require(0 <= at < len(data), f"{shown(data)}: the error is said to be at byte {at}")
            told = f"{shown(data)}: the error is said to be at byte {at}, but "
            on.findings.require(on.refusal(on.decode, data[:at]) is None, f"{told}the bytes before are no text")
            head = on.encode(text)
            later = on.refusal(on.decode, head + data)
            moved = -1 if later is None else on.position(later)
            on.findings.require(moved == len(head) + at, f"{told}after the {len(head)} bytes of {text!a} at {moved}")

        def encoding(case: tuple[str, str, str]) -> None:
            error = on.refusal(on.encode, "".join(case))
            if error is None:
                raise Mismatch(f"{''.join(case)!a} is encoded, expected an error at the lone surrogate")
            at = on.position(error)
            on.findings.require(at == len(case[0]), f"{''.join(case)!a}: the error is said to be at character {at}")

        on.search(st.tuples(on.texts(), on.data()), decoding)
        on.search(st.tuples(on.texts(), st.characters(categories=["Cs"]), on.texts()), encoding)

    return report_on("error positions", body, coder, lacks, level, "offsets")


def check_replacement(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """``replace`` takes anything, and marks what is no text."""

    def body(on: Subject) -> None:
        def marks(data: bytes) -> None:
            replaced = on.decode(data, "replace")
            error = on.refusal(on.decode, data)
            found = f"{shown(data)} with replacement is {replaced!a}, expected "
            if error is None:
                on.findings.require(replaced == on.decode(data), f"{found}its text {on.decode(data)!a}")
                return
            on.findings.require("\ufffd" in replaced, f"{found}U+FFFD for what is no text")
            on.findings.require(len(replaced) <= len(data), f"{found}at most a character for each byte")
            if on.findings.has("offsets"):
                before = on.decode(data[: on.position(error)]) + "\ufffd"
                on.findings.require(replaced.startswith(before), f"{found}it to begin with {before!a}")

        on.search(on.data(), marks)

    return report_on("replacement", body, coder, lacks, level, "replace")


def check_streaming(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """Pieces add up to the whole, and show whole characters as soon as they are certain."""

    def body(on: Subject) -> None:
        def stream(pieces: list[bytes], mode: str) -> str:
            decoder = on.coder.decoder(mode)
            return "".join([decoder.decode(piece) for piece in pieces]) + str(decoder.decode(b"", final=True))

        def adds_up(case: tuple[bytes, list[int], str]) -> None:
            data, places, mode = case
            cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
            pieces = [data[begin:end] for begin, end in itertools.pairwise(cuts)]
            whole, found = (
                on.outcome(on.decode, data, *([] if mode == "strict" else [mode])),
                on.outcome(stream, pieces, mode),
            )
            cut = " | ".join(map(shown, pieces))
            on.findings.require(found == whole, f"{cut} with {mode}: {found}, and the whole: {whole}")

        def promptly(text: str) -> None:
            decoder, data, shown = on.coder.decoder("strict"), on.encode(text), ""
            for byte in data:
                shown += decoder.decode(bytes([byte]))
                on.findings.require(text.startswith(shown), f"{text!a} byte by byte begins {shown!a}")
            on.findings.require(shown == text, f"{text!a} byte by byte: {shown!a} is shown after the last byte")

        on.search(st.tuples(on.data(), st.lists(st.integers(0, 40), max_size=6), st.sampled_from(on.modes())), adds_up)
        on.search(on.texts(), promptly)

    return report_on("streaming", body, coder, lacks, level, "streaming")


def check_controls(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """No control is text."""

    def body(on: Subject) -> None:
        if not on.controls:
            on.findings.skip("there are none")

        def no_text(case: tuple[str, str, str]) -> None:
            left, name, right = case
            data = on.encode(left) + bytes(on.controls[name]) + on.encode(right)
            error = on.refusal(on.decode, data)
            if error is None:
                raise Mismatch(f"{left!a}, {name}, {right!a}: decodes to {on.decode(data)!a}, expected an error")
            if on.findings.has("replace"):
                found = on.decode(data, "replace")
                on.findings.require(
                    found == f"{left}\ufffd{right}", f"{left!a}, {name}, {right!a}: with replacement {found!a}"
                )

        def from_text(text: str) -> None:
            held = [name for name, word in on.controls.items() if on.encode(text) == bytes(word)]
            on.findings.require(not held, f"the text {text!a} is encoded as the control {held}")

        on.search(st.tuples(on.texts(), st.sampled_from([*on.controls]), on.texts()), no_text)
        on.search(on.texts(), from_text)

    return report_on("controls", body, coder, lacks, level, "controls")


def check_batch(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """Batches are their rows."""

    def body(on: Subject) -> None:
        def rows(some: list[str]) -> None:
            alone = [on.encode(text) for text in some]
            found = [bytes(row) for row in on.coder.encode_batch(some)]
            on.findings.require(found == alone, f"{some!a} in a batch: {[*map(shown, found)]}, expected each by itself")
            back = [*on.coder.decode_batch(alone)]
            on.findings.require(back == some, f"{some!a} decoded in a batch: {back!a}")

        on.search(st.lists(on.texts(), max_size=4), rows)

    return report_on("batch", body, coder, lacks, level, "batch")


def check_boundaries(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """``complete`` says where a stream may be cut, ``char_starts`` where characters begin."""

    def body(on: Subject) -> None:
        def starts(text: str) -> None:
            data = on.encode(text)
            found = int(sum(on.coder.char_starts(data)))
            on.findings.require(found == len(text), f"{text!a}: {found} characters begin, expected {len(text)}")
            end = int(on.coder.complete(data))
            on.findings.require(end == len(data), f"{text!a}: complete up to {end} of {len(data)} bytes")

        def cuts(data: bytes) -> None:
            whole = on.decode(data, "replace")
            for size in range(len(data) + 1):
                end = int(on.coder.complete(data[:size]))
                parts = on.decode(data[:end], "replace") + on.decode(data[end:], "replace")
                on.findings.require(parts == whole, f"{shown(data)} cut at {end} is {parts!a}, the whole {whole!a}")

        on.search(on.texts(), starts)
        on.search(on.data(), cuts)

    return report_on("boundaries", body, coder, lacks, level, "boundaries", "replace")


def check_escapes(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """Any file comes back; without the mode, only text is taken."""

    def body(on: Subject) -> None:
        def comes_back(file: bytes) -> None:
            text = file.decode("utf-8", "surrogateescape")
            found = on.decode(on.encode(text, "surrogateescape"), "surrogateescape")
            on.findings.require(found == text, f"the file {shown(file)} comes back as {found!a}, expected {text!a}")
            taken = on.refusal(on.encode, text) is None
            is_text = not any(0xD800 <= ord(character) < 0xE000 for character in text)
            on.findings.require(taken == is_text, f"{text!a} without the mode: taken is {taken}, expected {is_text}")

        on.search(byte_strings(), comes_back)

    return report_on("escapes", body, coder, lacks, level, "escapes")


def check_automaton(coder: Coder, lacks: Without = NOTHING, level: Level = "quick") -> Report:
    """Its state after some bytes is 0 where they are text, and nowhere else."""

    def body(on: Subject) -> None:
        automaton = on.coder.automaton()

        def agrees(data: bytes) -> None:
            ends, is_text = automaton.run(data) == 0, on.refusal(on.decode, data) is None
            on.findings.require(
                ends == is_text, f"{shown(data)}: text for the automaton is {ends}, to decode {is_text}"
            )

        on.search(on.data(), agrees)

    return report_on("automaton", body, coder, lacks, level, "automaton")


CHECKS: Final[Mapping[str, Callable[[Coder, Without, Level], Report]]] = {
    "round trip": check_round_trip,
    "concatenation": check_concatenation,
    "prefix-free": check_prefixes,
    "canonical": check_canonical,
    "error positions": check_errors,
    "replacement": check_replacement,
    "streaming": check_streaming,
    "controls": check_controls,
    "batch": check_batch,
    "boundaries": check_boundaries,
    "escapes": check_escapes,
    "automaton": check_automaton,
}
"""By the name that their reports have."""
