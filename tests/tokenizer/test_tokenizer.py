"""Tokenizer: text to ids and back with controls, batches, refusal of control strings, ids that are not whole text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.encoding import CONTROL_NAMES, ESCAPES, INVALID, get_encoding
from bytelm.errors import EncodingError
from bytelm.tokenizer import Batch, Tokenizer

TOKENIZERS = [Tokenizer(get_encoding(name)) for name in ("utf8", "utf16", "utf32", "ranked2", "dense-ja")]
any_tokenizer = st.sampled_from(TOKENIZERS)
parts = st.lists(st.text(max_size=6) | st.sampled_from([*CONTROL_NAMES, "<|", "|>", "<|eos|", "<|user9|>"]), max_size=8)


@pytest.fixture(params=TOKENIZERS, ids=lambda tokenizer: tokenizer.encoding.name)
def tokenizer(request) -> Tokenizer:
    return request.param


# Text and controls


@given(any_tokenizer, st.text().filter(lambda text: "<|" not in text))
@settings(deadline=None)
def test_text_without_controls_is_the_encoding_alone(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint8
    assert np.array_equal(ids, tokenizer.encoding.encode(text))
    assert tokenizer.decode(ids) == text


@given(any_tokenizer, parts)
@settings(deadline=None, max_examples=300)
def test_text_with_allowed_controls_round_trips(tokenizer, pieces):
    text = "".join(pieces)
    ids = tokenizer.encode(text, allowed_controls="all")
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, errors="replace") == text
    bare = text
    expected = b""
    while bare:  # the reference: the leftmost control string, by plain search
        found = min(((bare.find(c), c) for c in CONTROL_NAMES if c in bare), default=(len(bare), ""))
        expected += tokenizer.encoding.encode(bare[: found[0]]).tobytes()
        expected += tokenizer.encoding.controls.get(found[1], b"")
        bare = bare[found[0] + len(found[1]) :]
    assert ids.tobytes() == expected
    skipped = tokenizer.decode(ids, skip_controls=True)
    values = tokenizer.encoding.parse(ids)[0]
    assert skipped == "".join(map(chr, values[values >= 0]))


def test_a_control_string_is_refused_unless_its_own_name_is_allowed(tokenizer):
    text = "終わり<|eos|>次<|pad|>"
    with pytest.raises(EncodingError, match=r"^text index 3: found the control string <\|eos\|>"):
        tokenizer.encode(text)
    with pytest.raises(EncodingError, match=r"^text index 11: found the control string <\|pad\|>"):
        tokenizer.encode(text, allowed_controls=["<|eos|>"])
    ids = tokenizer.encode(text, allowed_controls={"<|eos|>", "<|pad|>"})
    assert tokenizer.decode(ids, skip_controls=True) == "終わり次"
    assert tokenizer.decode(tokenizer.encoding.encode(text)) == text  # as plain text, by the encoding


def test_only_known_controls_can_be_allowed(tokenizer):
    with pytest.raises(EncodingError, match=r"allowed_controls: found '<\|end\|>', expected some of <\|pad\|>"):
        tokenizer.encode("a", allowed_controls=["<|end|>"])
    with pytest.raises(EncodingError, match="expected 'all' or a collection"):
        tokenizer.encode("a", allowed_controls="<|eos|>")


def test_a_lone_surrogate_is_refused_with_its_index_in_the_whole_text(tokenizer):
    with pytest.raises(EncodingError, match=r"text index 9: .*U\+DFFF"):
        tokenizer.encode("あ<|bos|>い\udfff<|eos|>", allowed_controls="all")


def test_control_words(tokenizer):
    controls = tokenizer.encoding.controls
    assert tokenizer.vocab_size == 256
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == tuple(controls)[:3]
    assert tokenizer.eos.tobytes() == controls["<|eos|>"]
    patch = tokenizer.bos_patch()
    assert (patch.dtype, patch.shape) == (np.uint8, (4,))
    assert patch.tobytes() == controls["<|bos|>"] * (4 // len(controls["<|bos|>"]))
    assert len(tokenizer.bos_patch(8)) == 8
    assert tokenizer.decode(tokenizer.bos_patch(), skip_controls=True) == ""


def test_a_patch_that_would_cut_bos_is_refused():
    with pytest.raises(EncodingError, match="num_ids: found 6, expected a multiple of 4"):
        Tokenizer(get_encoding("utf32")).bos_patch(6)
    with pytest.raises(EncodingError, match="num_ids: found -4"):
        Tokenizer(get_encoding("utf8")).bos_patch(-4)


# Batches


@given(any_tokenizer, st.lists(st.text(max_size=9), max_size=5), st.sampled_from(["left", "right"]))
@settings(deadline=None, max_examples=200)
def test_batches_hold_the_rows_and_only_padding_besides(tokenizer, texts, side):
    batch = tokenizer.encode_batch(texts, padding_side=side, allowed_controls="all")
    rows = [tokenizer.encode(text, allowed_controls="all") for text in texts]
    longest = max(map(len, rows), default=0)
    assert (batch.ids.dtype, batch.attention_mask.dtype, batch.lengths.dtype) == (np.uint8, np.bool_, np.int64)
    assert batch.ids.shape == batch.attention_mask.shape == (len(texts), longest)
    assert batch.lengths.tolist() == list(map(len, rows))
    pad = tokenizer.encoding.controls["<|pad|>"]
    for row, ids, mask in zip(rows, batch.ids, batch.attention_mask, strict=True):
        gap = longest - len(row)
        filler = pad * (gap // len(pad))
        expected = filler + row.tobytes() if side == "left" else row.tobytes() + filler
        assert ids.tobytes() == expected
        real = [False] * gap + [True] * len(row)
        assert mask.tolist() == (real if side == "left" else real[::-1])
    assert tokenizer.decode_batch(batch) == texts
    assert len(batch) == len(texts)


def test_rows_that_are_no_batch_are_decoded_whole(tokenizer):
    batch = tokenizer.encode_batch(["山", "川と海"], padding_side="right")
    padded = tokenizer.decode_batch(batch.ids)
    assert padded[0].startswith("山<|pad|>")
    assert padded[1] == "川と海"
    assert tokenizer.decode_batch(batch.ids, skip_controls=True) == ["山", "川と海"]
    assert tokenizer.decode_batch([batch.ids[1].tobytes(), b""]) == ["川と海", ""]


def test_a_padding_control_inside_a_row_is_kept(tokenizer):
    batch = tokenizer.encode_batch(["<|pad|>a<|pad|>", "abcde"], padding_side="left", allowed_controls="all")
    assert isinstance(batch, Batch)
    assert tokenizer.decode_batch(batch) == ["<|pad|>a<|pad|>", "abcde"]


def test_batch_errors_name_the_text_or_row(tokenizer):
    with pytest.raises(EncodingError, match=r"^text 1: text index 0: found the control string <\|user4\|>"):
        tokenizer.encode_batch(["a", "<|user4|>"])
    cut = tokenizer.encoding.encode("\U0010fffe")[:-1]
    with pytest.raises(EncodingError, match=r"^row 1: byte offset 0: "):
        tokenizer.decode_batch([b"", cut])
    assert tokenizer.decode_batch([b"", cut], errors="replace") == ["", "\ufffd"]


# Ids that are not whole characters


def test_strict_decoding_gives_the_offset_in_the_whole_ids(tokenizer):
    head = tokenizer.encode("冬<|eos|>", allowed_controls="all")
    cut = tokenizer.encoding.encode("\U0010fffe")[:-1]
    ids = np.concatenate([head, cut])
    with pytest.raises(EncodingError, match=f"^byte offset {len(head)}: found {cut.tobytes().hex(' ')}, an unfinished"):
        tokenizer.decode(ids)
    assert tokenizer.decode(ids, errors="replace") == "冬<|eos|>\ufffd"
    assert tokenizer.decode(ids, errors="replace", skip_controls=True) == "冬\ufffd"


@given(any_tokenizer, st.binary())
@settings(deadline=None, max_examples=300)
def test_any_ids_decode_piece_by_piece(tokenizer, data):
    values = tokenizer.encoding.parse(data)[0].tolist()
    shown = ["\ufffd" if v <= INVALID or v in ESCAPES else CONTROL_NAMES[-1 - v] if v < 0 else chr(v) for v in values]
    assert tokenizer.decode(data, errors="replace") == "".join(shown)
    if INVALID in values or any(value in ESCAPES for value in values):
        with pytest.raises(EncodingError, match="byte offset"):
            tokenizer.decode(data)
    else:
        assert tokenizer.decode(data) == "".join(shown)


def test_repr_names_the_encoding(tokenizer):
    assert tokenizer.encoding.name in repr(tokenizer)
