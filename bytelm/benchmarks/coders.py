"""What turns text into symbols and back: Python's codec, the encodings of the package, and the tokenizers of others."""

import contextlib
import dataclasses
import importlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from bytelm.encoding import Encoding
from bytelm.errors import ConfigError, EncodingError

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts text into words before byte-pair merging (``encoder.py`` of its release)."""

_VOCABULARY = 8_000
_TRAINING_CHARACTERS = 400_000
_TRAINING_SENTENCE = 200  # characters; the trainer drops sentences of more than 4,192 bytes


@dataclasses.dataclass(frozen=True)
class Coder:
    """One way to code text.

    Attributes:
        name: what the tables call it; unique in a run.
        kind: ``ceiling``, ``encoding`` (ours) or ``rival``.
        encode: a text to its symbols, which have a length.
        decode: such symbols to the text.
        encode_batch: many texts at once; None where there is no such call on one thread.
    """

    name: str
    kind: Literal["ceiling", "encoding", "rival"]
    encode: Callable[[str], Any]
    decode: Callable[[Any], str]
    encode_batch: Callable[[list[str]], Sequence[Any]] | None = None


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A rival that is not measured, and why."""

    name: str
    reason: str


class _UnavailableError(Exception):
    """The rival cannot be measured here; the message says why."""


def python_codec() -> Coder:
    """``str.encode("utf-8")`` and ``bytes.decode("utf-8")``: nothing in Python is expected to be faster."""
    return Coder("str.encode", "ceiling", lambda text: text.encode("utf-8"), lambda data: data.decode("utf-8"))


def encoding_coder(encoding: Encoding) -> Coder:
    """An encoding of ours, with its batch call where it has one."""
    return Coder(encoding.name, "encoding", encoding.encode, encoding.decode, getattr(encoding, "encode_batch", None))


def rival_coders(text: str, gpt2_bpe: Path | None) -> tuple[list[Coder], list[Skipped]]:
    """The tokenizers that are installed, to be used under :func:`one_thread`.

    Args:
        text: what the sentencepiece model is trained on (the beginning of it).
        gpt2_bpe: folder with GPT-2's ``vocab.json`` and ``merges.txt``; None: the GPT-2 tokenizers are skipped.

    Returns:
        Those to measure, and those that are not installed or lack their files.

    Raises:
        ConfigError: the folder lacks a file or holds one that a tokenizer refuses.
        EncodingError: the two GPT-2 tokenizers disagree, so that at least one is not GPT-2's.
    """
    files = None if gpt2_bpe is None else _gpt2_files(gpt2_bpe)
    makers: dict[str, Callable[[], list[Coder]]] = {
        "tiktoken": lambda: _tiktoken(files),
        "tokenizers": lambda: _tokenizers(files),
        "byt5": _byt5,
        "sentencepiece": lambda: _sentencepiece(text),
    }
    found: list[Coder] = []
    skipped: list[Skipped] = []
    with one_thread():
        for name, make in makers.items():
            try:
                found += make()
            except _UnavailableError as reason:
                skipped.append(Skipped(name, str(reason)))
        _check_agreement({coder.name: coder for coder in found}, text[:2_000])
    return found, skipped


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Switch the threads of the rivals off, and tiktoken's cache, which goes by file name alone."""
    settings = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "TIKTOKEN_CACHE_DIR": ""}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _gpt2_files(folder: Path) -> tuple[str, str]:
    files = folder / "vocab.json", folder / "merges.txt"
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file, expected vocab.json and merges.txt of GPT-2 in this folder")
    return str(files[0]), str(files[1])


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _UnavailableError(f"cannot be imported ({error})") from None


def _needs(files: tuple[str, str] | None) -> tuple[str, str]:
    if files is None:
        raise _UnavailableError("no folder with GPT-2's vocab.json and merges.txt was given")
    return files


def _tiktoken(files: tuple[str, str] | None) -> list[Coder]:
    tiktoken = _import("tiktoken")
    load = _import("tiktoken.load")
    vocabulary, merges = _needs(files)
    try:
        ranks = load.data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=merges, encoder_json_file=vocabulary)
    except (ValueError, KeyError, AssertionError) as error:
        raise ConfigError(f"{vocabulary}: found a file that tiktoken refuses ({error!r:.80})") from None
    coder = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    return [Coder("tiktoken", "rival", coder.encode_ordinary, coder.decode)]


def _tokenizers(files: tuple[str, str] | None) -> list[Coder]:
    tokenizers = _import("tokenizers")
    vocabulary, merges = _needs(files)
    try:
        model = tokenizers.models.BPE.from_file(vocabulary, merges)
    except Exception as error:  # noqa: BLE001 - its native code raises bare Exceptions
        raise ConfigError(f"{vocabulary}: found a file that tokenizers refuses ({error!r:.80})") from None
    coder = tokenizers.Tokenizer(model)
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = tokenizers.decoders.ByteLevel()
    found = [Coder("tokenizers", "rival", lambda text: coder.encode(text).ids, coder.decode, _ids(coder.encode_batch))]
    if hasattr(coder, "encode_batch_fast"):
        batch = _ids(coder.encode_batch_fast)
        found.append(Coder("tokenizers-fast", "rival", lambda text: batch([text])[0], coder.decode, batch))
    return found


def _ids(batch: Callable[[list[str]], Sequence[Any]]) -> Callable[[list[str]], Sequence[Any]]:
    return lambda texts: [found.ids for found in batch(texts)]


def _byt5() -> list[Coder]:
    transformers = _import("transformers")
    try:
        coder = transformers.ByT5Tokenizer()
    except (ImportError, AttributeError, RuntimeError) as error:  # its names are imported on first use
        raise _UnavailableError(f"cannot be imported ({error})") from None
    return [
        Coder(
            "byt5",
            "rival",
            lambda text: coder.encode(text, add_special_tokens=False),
            lambda ids: coder.decode(ids, clean_up_tokenization_spaces=False),
        )
    ]


def _sentencepiece(text: str) -> list[Coder]:
    sentencepiece = _import("sentencepiece")
    end = min(len(text), _TRAINING_CHARACTERS)
    sentences = (text[i : i + _TRAINING_SENTENCE] for i in range(0, end, _TRAINING_SENTENCE))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            model_type="unigram",
            vocab_size=_VOCABULARY,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _UnavailableError(f"no model could be trained on this text ({error})") from None
    coder = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [Coder("sentencepiece", "rival", coder.encode, coder.decode)]


def _check_agreement(coders: dict[str, Coder], sample: str) -> None:
    """Two makers of one vocabulary: what they agree on is GPT-2's."""
    if "tiktoken" not in coders:
        return
    expected = coders["tiktoken"].encode(sample)
    for name in ("tokenizers", "tokenizers-fast"):
        if name in coders and (found := coders[name].encode(sample)) != expected:
            pairs = zip(found, expected, strict=False)
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
            raise EncodingError(
                f"GPT-2 ids of a sample, token {first}: found {found[first : first + 3]} by {name}, "
                f"expected {expected[first : first + 3]} as by tiktoken"
            )
