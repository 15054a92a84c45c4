"""BPE tokenizer: ids against the definition, tiktoken and published vectors; controls, batches, bytes, streams."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bpe_support import EOS, GPT2_PATTERN, SlowBPE, copy, read, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bytelm.errors import EncodingError
from bytelm.tokenizer import Batch, BPETokenizer
from bytelm.tokenizer.byte_level import BYTE_CHARACTERS, bytes_of_token, decode_utf8

GPT2 = Path(__file__).parents[3] / "shared" / "data" / "gpt2_bpe"
needs_gpt2 = pytest.mark.skipif(not (GPT2 / "vocab.json").is_file(), reason="GPT-2's vocabulary is not here")
EXTRA = [f"<|extratoken_{k}|>" for k in range(1, 144)]

# Published by OpenAI, the GPT-3-Encoder project and the documentation of transformers.
VECTORS = {
    "": [],
    " ": [220],
    "\t": [197],
    "hello world": [31373, 995],
    "Hello world": [15496, 995],
    " Hello world": [18435, 995],
    "hello <|endoftext|>": [31373, 1279, 91, 437, 1659, 5239, 91, 29],
    "This is some text": [1212, 318, 617, 2420],
    "indivisible": [521, 452, 12843],
    "hello 👋 world 🌍": [31373, 50169, 233, 995, 12520, 234, 235],
    "toString constructor hasOwnProperty valueOf": [1462, 10100, 23772, 468, 23858, 21746, 1988, 5189],
    "0": [15],
    "00": [405],
    "000": [830],
    "0000": [2388],
    "00000": [20483],
    "000000": [10535],
    "0000000": [24598],
    "00000000": [8269],
    "000000000": [10535, 830],
    "0" * 16: [25645],
    "0" * 17: [8269, 10535, 830],
    "   leading": [220, 220, 3756],
    "trailing   ": [9535, 4386, 220, 220, 220],
    "a\n\n\nb": [64, 628, 198, 65],
    "\t\tif x:\r\n": [197, 197, 361, 2124, 25, 201, 198],
    "I'll we've DON'T don't": [40, 1183, 356, 1053, 23917, 6, 51, 836, 470],
    "\u00e9 e\u0301": [2634, 304, 136, 223],
    "0123456789 1,234.56": [486, 1954, 2231, 3134, 4531, 352, 11, 24409, 13, 3980],
}
texts = st.text() | st.lists(st.sampled_from(["é", " ", "\n", "'ll", "the", "水", "🐟", "<|", EOS, "12", "!"])).map(
    "".join
)


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    return BPETokenizer.from_folder(GPT2)


# GPT-2's vocabulary


@needs_gpt2
@pytest.mark.parametrize(("text", "ids"), VECTORS.items(), ids=repr)
def test_published_vectors(gpt2, text, ids):
    assert gpt2.encode(text).tolist() == ids
    assert gpt2.encode(text).dtype == np.int64
    assert gpt2.decode(ids) == text


@needs_gpt2
def test_gpt2_end_of_text(gpt2):
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.bos_id, gpt2.controls) == (50257, 50256, 50256, {EOS: 50256})
    for allowed in ("all", [EOS]):
        assert gpt2.encode(f"hello {EOS}", allowed_controls=allowed).tolist() == [31373, 220, 50256]
    assert gpt2.decode([31373, 220, 50256]) == f"hello {EOS}"
    assert gpt2.decode([31373, 220, 50256], skip_controls=True) == "hello "


@needs_gpt2
def test_the_first_ids_are_the_bytes_in_the_published_order(gpt2):
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [byte for byte in range(256) if byte not in order]
    assert [gpt2.token_bytes(number) for number in range(256)] == [bytes([byte]) for byte in order]


@needs_gpt2
def test_gptj_has_143_more_ids(gpt2, tmp_path):
    folder = copy(GPT2, tmp_path / "gptj")
    write(folder / "added_tokens.json", {name: 50257 + k for k, name in reversed([*enumerate(EXTRA)])})
    gptj = BPETokenizer.from_folder(folder)
    assert gptj.vocab_size == 50400
    assert list(gptj.controls.items()) == [(EOS, 50256), *zip(EXTRA, range(50257, 50400), strict=True)]
    text = "a <|extratoken_14|><|extratoken_143|>"
    assert gptj.encode(text).tolist() == gpt2.encode(text).tolist()
    assert gptj.encode(text, allowed_controls="all").tolist() == [64, 220, 50270, 50399]
    assert gptj.decode([64, 220, 50270, 50399]) == text


@pytest.fixture(scope="module")
def tiktoken_gpt2():
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # its cache goes by file name alone
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(GPT2 / "merges.txt"), encoder_json_file=str(GPT2 / "vocab.json")
        )
    return tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN.pattern, mergeable_ranks=ranks, special_tokens={EOS: 50256})


@needs_gpt2
@given(texts)
@settings(max_examples=300)
def test_gpt2_ids_are_those_of_tiktoken(gpt2, tiktoken_gpt2, text):
    ids = gpt2.encode(text).tolist()
    assert ids == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.to_bytes(ids) == tiktoken_gpt2.decode_bytes(ids)
    assert gpt2.encode(text, allowed_controls="all").tolist() == tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.decode(ids) == text


@needs_gpt2
def test_every_token_has_the_bytes_of_tiktoken(gpt2, tiktoken_gpt2):
    every = [gpt2.token_bytes(number) for number in range(gpt2.vocab_size)]
    assert every == [tiktoken_gpt2.decode_single_token_bytes(number) for number in range(gpt2.vocab_size)]
    assert gpt2.to_bytes(np.arange(gpt2.vocab_size)) == b"".join(every)


@needs_gpt2
@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_every_scalar_value_round_trips_through_gpt2(gpt2, step):
    text = " ".join(map(chr, [*range(0, 0xD800, step), *range(0xE000, 0x110000, step), 0x10FFFF]))
    assert gpt2.decode(gpt2.encode(text)) == text


# A toy vocabulary, against the definition


@given(texts)
@settings(max_examples=200)
@example("café's  \n\t  水の音\r\n 'll")
def test_ids_are_those_of_the_definition(toy, toy_folder, text):
    model = read(toy_folder / "tokenizer.json")["model"]
    slow = SlowBPE(model["vocab"], model["merges"])
    ids = toy.encode(text)
    assert ids.tolist() == slow.encode(text)
    assert toy.to_bytes(ids) == slow.decode(ids.tolist()) == text.encode()
    assert toy.decode(ids) == toy.decode(ids, errors="replace") == toy.decode(ids, skip_controls=True) == text


def test_the_toy_vocabulary_is_worth_testing(toy):
    """Merges within words, over characters of several bytes, and tokens that are parts of characters."""
    tokens = [toy.token_bytes(number) for number in range(toy.vocab_size)]
    assert max(map(len, tokens)) > 4
    assert any(len(token) > 1 and token.decode("utf-8", "replace").endswith("\ufffd") for token in tokens)
    assert len(toy.encode("水の音")) < len("水の音".encode())


def test_every_byte_has_a_token(toy):
    ids = [toy.vocabulary.tokens[BYTE_CHARACTERS[byte]] for byte in range(256)]
    assert [toy.token_bytes(number) for number in ids] == [bytes([byte]) for byte in range(256)]
    assert toy.to_bytes(ids) == bytes(range(256))


def test_the_byte_characters_are_those_of_tokenizers():
    from tokenizers import decoders, pre_tokenizers

    assert set(BYTE_CHARACTERS) == set(pre_tokenizers.ByteLevel.alphabet())
    assert len(BYTE_CHARACTERS) == 256
    assert (BYTE_CHARACTERS[32], BYTE_CHARACTERS[10], BYTE_CHARACTERS[0], BYTE_CHARACTERS[0xAD]) == tuple("ĠĊĀŃ")
    assert decoders.ByteLevel().decode([BYTE_CHARACTERS[byte] for byte in "é水".encode()]) == "é水"
    assert bytes_of_token("Ġa b") is None


# Controls and refused text


def test_a_control_string_is_text_unless_its_own_name_is_allowed(added):
    one, eleven = added.controls["<|extratoken_1|>"], added.controls["<|extratoken_11|>"]
    text = f"a<|extratoken_11|> <|extratoken_1|>{EOS}{EOS}"
    assert added.decode(added.encode(text)) == added.decode(added.encode(text), skip_controls=True) == text
    assert not set(added.encode(text)) & set(added.controls.values())
    some = added.encode(text, allowed_controls=["<|extratoken_1|>"]).tolist()
    assert some.count(one) == 1
    assert eleven not in some
    everything = added.encode(text, allowed_controls="all")
    [a], [space] = added.encode("a"), added.encode(" ")
    assert everything.tolist() == [a, eleven, space, one, added.eos_id, added.eos_id]
    assert added.decode(everything) == text
    assert added.decode(everything, skip_controls=True) == "a "


def test_the_longest_of_two_controls_is_read(files, tmp_path):
    folder = copy(files, tmp_path / "longer")
    size = len(read(folder / "vocab.json"))
    write(folder / "added_tokens.json", {"[a]": size, "[a][b]": size + 1, "月": size + 2})
    longer = BPETokenizer.from_folder(folder)
    assert longer.encode("[a][b][a]月", allowed_controls="all").tolist() == [size + 1, size, size + 2]
    assert longer.to_bytes([size + 2]) == "月".encode()


def test_only_known_controls_can_be_allowed(added):
    with pytest.raises(EncodingError, match=r"allowed_controls: found '<\|eos\|>', expected some of <\|endoftext\|>, "):
        added.encode("a", allowed_controls=["<|eos|>"])
    with pytest.raises(EncodingError, match="expected 'all' or a collection"):
        added.encode("a", allowed_controls=EOS)


def test_a_lone_surrogate_is_refused_with_its_index_in_the_whole_text(toy):
    with pytest.raises(EncodingError, match=r"^text index 15: found the lone surrogate U\+DFFF"):
        toy.encode(f"あ{EOS}い\udfff{EOS}", allowed_controls="all")
    with pytest.raises(EncodingError, match=r"^text 1: text index 1: found the lone surrogate U\+D800"):
        toy.encode_batch(["a", "a\ud800"])


# Surface


def test_ids_of_bos_and_eos(toy):
    assert (toy.bos_id, toy.eos_id, toy.controls[EOS]) == (0, 0, 0)
    assert (toy.pad_token, toy.bos_token, toy.eos_token) == (EOS, EOS, EOS)
    assert (toy.eos.dtype, toy.eos.tolist()) == (np.int64, [0])
    assert (toy.bos_patch().dtype, toy.bos_patch().tolist(), toy.bos_patch(3).tolist()) == (np.int64, [0], [0] * 3)
    with pytest.raises(EncodingError, match="num_ids: found -1"):
        toy.bos_patch(-1)
    assert repr(toy) == "BPETokenizer(vocab_size=340, num_controls=1)"


@given(st.lists(texts, max_size=5), st.sampled_from(["left", "right"]))
@settings(max_examples=50)
def test_batches_hold_the_rows_and_only_padding_besides(added, rows, side):
    batch = added.encode_batch(rows, padding_side=side, allowed_controls="all")
    alone = [added.encode(text, allowed_controls="all").tolist() for text in rows]
    longest = max(map(len, alone), default=0)
    assert isinstance(batch, Batch)
    assert (batch.ids.dtype, batch.ids.shape) == (np.int64, (len(rows), longest))
    assert batch.lengths.tolist() == list(map(len, alone))
    for ids, padded, mask in zip(alone, batch.ids.tolist(), batch.attention_mask.tolist(), strict=True):
        gap = longest - len(ids)
        filler = [added.eos_id] * gap
        assert padded == (filler + ids if side == "left" else ids + filler)
        assert mask == ([False] * gap + [True] * len(ids) if side == "left" else [True] * len(ids) + [False] * gap)
    assert added.decode_batch(batch) == rows


def test_rows_of_ids_are_decoded_whole(toy):
    rows = [toy.encode("川の水"), [0], []]
    assert toy.decode_batch(rows) == ["川の水", EOS, ""]
    assert toy.decode_batch(rows, skip_controls=True) == ["川の水", "", ""]
    with pytest.raises(EncodingError, match=r"^row 1: index 1: found id 340, expected 0 to 339$"):
        toy.decode_batch([[], [1, 340]])


# Ids to bytes to text


def by_bytes(tokenizer, data: bytes) -> list[int]:
    return [tokenizer.vocabulary.tokens[BYTE_CHARACTERS[byte]] for byte in data]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 340], "index 1: found id 340, expected 0 to 339"),
        (np.array([0, 1, -1]), "index 2: found id -1"),
        ([[0]], "ids: found 2 dimensions, expected 1"),
        (3, "ids: found 0 dimensions"),
        ([1.0], "ids: found values of type float64"),
        (np.array([True]), "ids: found values of type bool"),
    ],
)
def test_ids_without_a_token(toy, ids, message):
    for call in (toy.decode, toy.to_bytes, toy.complete, toy.decoder().decode):
        with pytest.raises(EncodingError, match=f"^{message}"):
            call(ids)


def test_ids_of_every_integer_type(toy):
    for dtype in (np.uint8, np.int32, np.uint64):
        assert toy.decode(np.array([0, 0], dtype=dtype)) == EOS * 2
    with pytest.raises(EncodingError, match=r"^index 0: found id -2"):
        toy.token_bytes(-2)


def test_strict_decoding_gives_the_byte_offset(toy):
    head = toy.encode(f"冬{EOS}", allowed_controls="all").tolist()
    ids = head + by_bytes(toy, b"\xe6\xb0")
    for skip in (False, True):
        with pytest.raises(
            EncodingError, match=r"^byte offset 16: found e6 b0, an unfinished character; expected UTF-8"
        ):
            toy.decode(ids, skip_controls=skip)
    assert toy.decode(ids, errors="replace") == f"冬{EOS}\ufffd"
    with pytest.raises(EncodingError, match=r"^byte offset 1: found ff, not the beginning of a character"):
        toy.decode(by_bytes(toy, b"a\xffa"))
    with pytest.raises(EncodingError, match=r"errors: found 'ignore'"):
        toy.decode([0], errors="ignore")


def test_no_character_reaches_over_a_control(toy):
    first, rest = by_bytes(toy, b"\xe6\xb0"), by_bytes(toy, b"\xb4")
    assert toy.decode(first + rest) == "水"
    assert toy.decode([*first, 0, *rest], errors="replace", skip_controls=True) == "\ufffd\ufffd"
    assert toy.decode([*first, 0, *rest], errors="replace") == f"\ufffd{EOS}\ufffd"
    with pytest.raises(EncodingError, match="byte offset 0: found e6 b0, an unfinished character"):
        toy.decode([*first, 0, *rest], skip_controls=True)
    assert toy.complete([*first, 0]) == ("\ufffd", 0)


@given(st.binary())
def test_any_bytes_decode_as_python_does(toy, data):
    ids = by_bytes(toy, data)
    assert toy.to_bytes(ids) == data
    assert toy.decode(ids, errors="replace") == data.decode("utf-8", "replace")


ids_of_toy = st.lists(st.integers(0, 339) | st.sampled_from([0, *range(60, 260)]), max_size=12)


@given(ids_of_toy, st.lists(st.integers(0, 12)), st.sampled_from(["strict", "replace"]), st.booleans())
@settings(max_examples=500)
def test_pieces_of_a_stream_add_up_to_the_whole(toy, ids, cuts, errors, skip):
    decoder = toy.decoder(errors, skip_controls=skip)
    whole, got, error, got_error = "", "", None, None
    try:
        whole = toy.decode(ids, errors=errors, skip_controls=skip)
    except EncodingError as found:
        error = str(found)
    try:
        for start, stop in itertools.pairwise([0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]):
            before = decoder.offset, decoder.pending
            got += decoder.decode(ids[start:stop])
            assert decoder.offset + len(decoder.pending) == len(toy.to_bytes(ids[:stop]))
            assert len(decoder.pending) <= 3
        before = decoder.offset, decoder.pending
        got += decoder.decode(final=True)
    except EncodingError as found:
        got_error = str(found)
        assert (decoder.offset, decoder.pending) == before
    assert got_error == error
    assert got == whole or error is not None


@given(ids_of_toy)
@settings(max_examples=300)
def test_complete_text_stands_whatever_comes(toy, ids):
    for size in range(len(ids) + 1):
        text, waiting = toy.complete(ids[:size], skip_controls=False)
        data = toy.to_bytes(ids[:size])
        assert text == data[: len(data) - waiting].decode("utf-8", "replace")
        assert toy.decode(ids, errors="replace").startswith(text)
        assert toy.complete(ids[:size])[1] == waiting


def test_exactly_what_is_certain_is_complete():
    """The common beginning of the texts under all continuations, over all short cuts of each class of bytes."""
    classes = bytes.fromhex("41 80 8f 90 9f a0 bf c1 c2 df e0 e1 ed ef f0 f1 f4 f5 ff")
    tails = [bytes(tail) for size in range(4) for tail in itertools.product(b"\x80\x90\xa0\xbf", repeat=size)]
    for size in range(4):
        for data in map(bytes, itertools.product(classes, repeat=size)):
            whole = [(data + tail).decode("utf-8", "replace") for tail in tails]
            certain = itertools.takewhile(lambda same: len(set(same)) == 1, zip(*whole, strict=False))
            assert decode_utf8(data, "replace", final=False)[0] == "".join(same[0] for same in certain), data


def test_a_character_of_several_tokens_waits_for_its_last(toy):
    ids = by_bytes(toy, "a🐟".encode())
    assert [toy.complete(ids[:size]) for size in range(6)] == [
        ("", 0),
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("a🐟", 0),
    ]
    assert toy.complete([*ids[:4], *ids[:1]]) == ("a\ufffda", 0)


def test_it_needs_no_torch_and_imports_tokenizers_on_first_use(toy_folder):
    code = """
import sys
from bytelm.tokenizer import BPETokenizer
assert "tokenizers" not in sys.modules
tokenizer = BPETokenizer.from_folder(sys.argv[1])
assert tokenizer.decode(tokenizer.encode("雲が流れる")) == "雲が流れる"
assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(toy_folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
