"""Bytes that come in pieces decode to what the whole decodes to, however they are cut, in every mode."""

import copy
import itertools

import pytest
from byte_strategies import ENCODINGS, byte_classes, encodings_and_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bytelm.encoding import StreamingDecoder
from bytelm.encoding.reference import reference_coder
from bytelm.errors import EncodingError

MODES = ("strict", "replace", "surrogateescape")
with_both_kernels = pytest.mark.usefixtures("kernel")


def outcome(decode, *args) -> str:
    """A text, or the message of the error."""
    try:
        return "text " + decode(*args)
    except EncodingError as error:
        return f"error {error}"


def stream(encoding, pieces, errors) -> str:
    decoder = encoding.decoder(errors)
    text = "".join([decoder.decode(piece) for piece in pieces]) + decoder.decode(final=True)
    assert decoder.pending == b""
    assert decoder.offset == sum(map(len, pieces))
    return text


def fed(state, data: bytes, **options):
    """What a decoder has said and a copy of it after ``data``; or the message of its first error."""
    if isinstance(state, str):
        return state
    said, decoder = state[0], copy.copy(state[1])
    try:
        return said + decoder.decode(data, **options), decoder
    except EncodingError as error:
        return f"error {error}"


def visible(state):
    """All of a state, to be compared."""
    return state if isinstance(state, str) else (state[0], {name: str(part) for name, part in vars(state[1]).items()})


@pytest.mark.parametrize("errors", MODES)
def test_all_strings_of_up_to_three_bytes_of_every_class(encoding, slow, errors):
    """Every cut of every string gives what the whole gives, and that is what the reference says.

    A cut is a cut of a beginning and a last piece, and all cuts of the beginning have left the same state.
    """
    classes = [members[len(members) // 2] for members in byte_classes(encoding)]
    states = {b"": ("", encoding.decoder(errors))}
    for length in range(4):
        for string in itertools.product(classes, repeat=length):
            data = bytes(string)
            state = states[data] = fed(states[b""], data)
            for cut in range(1, length):
                assert visible(fed(states[data[:cut]], data[cut:])) == visible(state)
            whole = outcome(encoding.decode, data, errors)
            expected = outcome(slow.decode, data, errors)
            assert whole.split(":")[0] == expected.split(":")[0]  # the text, or "error byte offset N"
            end = fed(state, b"", final=True)
            if isinstance(end, str):
                assert end == whole
            else:
                assert (f"text {end[0]}", end[1].pending, end[1].offset) == (whole, b"", length)


@with_both_kernels
@given(encodings_and_bytes(), st.sampled_from(MODES), st.data())
@settings(deadline=None, max_examples=200)
def test_any_cut_of_any_bytes(case, errors, data):
    encoding, string = case
    ends = sorted(data.draw(st.lists(st.integers(0, len(string)), max_size=8)))
    pieces = [string[a:b] for a, b in itertools.pairwise([0, *ends, len(string)])]
    assert outcome(stream, encoding, pieces, errors) == outcome(encoding.decode, string, errors)


@with_both_kernels
@given(encodings_and_bytes(), st.sampled_from(MODES))
@settings(deadline=None, max_examples=200)
def test_the_whole_is_what_the_reference_says(case, errors):
    encoding, string = case
    whole, expected = (
        outcome(encoding.decode, string, errors),
        outcome(reference_coder(encoding).decode, string, errors),
    )
    assert whole.split(":")[0] == expected.split(":")[0]


def test_after_an_error_the_decoder_is_as_before(encoding):
    decoder = encoding.decoder()
    assert decoder.decode(encoding.encode("月")) == "月"
    before = decoder.offset
    with pytest.raises(EncodingError, match=rf"byte offset {before}: .*<\|eos\|>"):
        decoder.decode(encoding.controls["<|eos|>"])
    assert decoder.offset == before
    assert decoder.decode(encoding.encode("火"), final=True) == "火"


def test_an_unknown_mode_is_refused(encoding):
    with pytest.raises(EncodingError, match="errors: found 'drop', expected one of 'strict', 'replace', "):
        encoding.decoder("drop")


class Streaming(RuleBasedStateMachine):
    """A decoder fed piece by piece shows, at any time, what the bytes so far make certain."""

    @initialize(encoding=st.sampled_from(ENCODINGS))
    def start(self, encoding):
        self.encoding, self.decoder = encoding, StreamingDecoder(encoding, "replace")
        self.data, self.shown = b"", ""

    @rule(data=st.binary(max_size=5))
    def feed_bytes(self, data):
        self._feed(data)

    @rule(text=st.text(max_size=3), cut=st.integers(0, 3))
    def feed_text(self, text, cut):
        data = self.encoding.encode(text).tobytes()
        self._feed(data[: len(data) - cut])

    @rule(index=st.integers(0, 7))
    def feed_control(self, index):
        self._feed(list(self.encoding.controls.values())[index])

    def _feed(self, data):
        self.data += data
        self.shown += self.decoder.decode(data)

    @invariant()
    def shown_is_certain(self):
        if hasattr(self, "data"):
            whole = self.encoding.decode(self.data, "replace")
            pending = self.decoder.pending
            assert self.data.endswith(pending)
            assert self.shown == self.encoding.decode(self.data[: len(self.data) - len(pending)], "replace")
            assert whole == self.shown + self.encoding.decode(pending, "replace")

    def teardown(self):
        if hasattr(self, "data"):
            final = self.shown + self.decoder.decode(final=True)
            assert final == self.encoding.decode(self.data, "replace")


TestStreaming = Streaming.TestCase
TestStreaming.settings = settings(deadline=None, max_examples=30, stateful_step_count=20)
