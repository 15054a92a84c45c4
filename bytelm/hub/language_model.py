"""A trained model with its encoding: text in, text and figures out."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding import DecodeStats, HeadsDrafter, NoDrafter, Sampling, SequenceStop, Trace, decode
from bytelm.decoding.generation import Finish
from bytelm.encoding import Encoding
from bytelm.errors import DecodingError, EncodingError
from bytelm.hub.checkpoint import load_checkpoint
from bytelm.hub.text_stream import TextStreamer
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import Law, ModelConfig
from bytelm.model.laws import check_law, score_bytes
from bytelm.model.targets import make_target
from bytelm.tokenizer import Tokenizer

Draft = Literal["auto", "none", "heads"]


@dataclasses.dataclass(frozen=True)
class Output:
    """What :meth:`LanguageModel.generate` gave, one entry per prompt in every list.

    Attributes:
        texts: continuations, without the prompt and without controls; a stop string stays. A character that the length
            limit cut is U+FFFD.
        ids: the symbols behind them, controls included.
        finish: ``"length"`` or ``"stop"``.
        nats: ``-log p`` of each symbol under the law, before temperature and truncation.
        trace: forward and index in its block of each symbol.
        stats: cost of the run.
        law: the law that was decoded.
        draft: the drafter that was used.
    """

    texts: list[str]
    ids: list[NDArray[np.uint8]]
    finish: list[Finish]
    nats: list[NDArray[np.float64]]
    trace: list[Trace]
    stats: DecodeStats
    law: Law
    draft: Draft

    @property
    def num_chars(self) -> int:
        """Characters of all rows; U+FFFD, which stands for bytes that are no character, does not count."""
        return sum(len(text) - text.count("\ufffd") for text in self.texts)

    @property
    def chars_per_forward(self) -> float:
        """Characters per forward of a live row, prefill included."""
        return self.num_chars / sum(self.stats.row_forwards)

    @property
    def chars_per_second(self) -> float:
        """Characters of all rows per second of wall time, prefill included."""
        return self.num_chars / self.stats.seconds


@dataclasses.dataclass(frozen=True)
class Score:
    """Likelihood of one text, or of several together.

    Attributes:
        nats: ``-log p``, natural, summed in float64 over all symbols.
        num_chars: characters (Unicode scalar values) of the text.
        num_utf8_bytes: bytes of the text in UTF-8, whatever the model's encoding.
    """

    nats: float
    num_chars: int
    num_utf8_bytes: int

    @property
    def bits_per_char(self) -> float:
        """Bits per character; NaN for an empty text."""
        return self.nats / math.log(2) / self.num_chars if self.num_chars else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the text; NaN for an empty text."""
        return self.nats / math.log(2) / self.num_utf8_bytes if self.num_utf8_bytes else math.nan


class Scores(list[Score]):
    """One :class:`Score` per text, and their total. ``law`` names the law."""

    def __init__(self, scores: Iterable[Score], law: Law) -> None:
        super().__init__(scores)
        self.law = law

    @property
    def total(self) -> Score:
        """All texts together."""
        return Score(
            math.fsum(s.nats for s in self), sum(s.num_chars for s in self), sum(s.num_utf8_bytes for s in self)
        )


class LanguageModel:
    """A byte model and the encoding it was trained with.

    Args:
        model: in evaluation mode while this object uses it.
        encoding: the one of the training corpus.
    """

    def __init__(self, model: ByteLM, encoding: Encoding) -> None:
        self.model, self.encoding = model, encoding
        self.tokenizer = Tokenizer(encoding)

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model."""
        return self.model.config

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws the model can be asked for, the default first."""
        return self.config.laws

    @property
    def law(self) -> Law:
        """The law used where none is named."""
        return self.laws[0]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 160,
        law: str | None = None,
        draft: Draft = "auto",
        seed: int | Sequence[int] = 0,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        streamer: Callable[[int, str], None] | None = None,
        allowed_controls: Collection[str] | Literal["all"] = (),
    ) -> Output:
        """Continue each prompt until EOS, a stop string, or ``max_new_tokens`` symbols.

        The output depends on model, law, prompt, sampling options and seed alone, not on ``draft``.

        Args:
            prompts: texts of any lengths; a BOS patch is put before each.
            max_new_tokens: the most symbols (bytes of the model's encoding) per row, exactly.
            law: ``product``, ``chain`` or ``next``; the model's default for None.
            draft: ``heads`` drafts with the heads under ``next``; ``none`` runs one forward per symbol there; ``auto``
                is ``heads`` where the law verifies drafts.
            seed: an integer, from which each row takes its own noise by its index, or one integer per row.
            do_sample, temperature, top_k, top_p: as in transformers; greedy by default.
            stop: strings or control strings; a row ends with the last symbol of the first one that appears in its
                continuation.
            streamer: called as ``streamer(row, text)`` with whole characters as they become certain; the pieces of a
                row add up to its text.
            allowed_controls: control strings that may stand in prompts.
        Raises:
            LawError: the model does not define ``law``.
            DecodingError: a prompt does not fit the context; a draft that the law cannot verify; a bad limit.
            EncodingError: a prompt with a lone surrogate or a control string.
            ConfigError: a bad sampling option.
        """
        chosen = check_law(self.config, law)
        sampling = Sampling(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p)
        self.model.eval()
        target = make_target(self.model, chosen, self.tokenizer.bos_patch(self.config.patch))
        used = self._choose_draft(draft, chosen, target.max_guess)
        rows = self._encode(prompts, "prompt", allowed_controls)
        text_streamer = None if streamer is None else TextStreamer(self.tokenizer, len(rows), streamer)
        run = decode(
            target,
            rows,
            max_new=max_new_tokens,
            sampling=sampling,
            stops=self._stops(stop),
            drafter=HeadsDrafter(target.max_guess) if used == "heads" else NoDrafter(),
            seed=seed,
            streamer=text_streamer,
        )
        if text_streamer is not None:
            text_streamer.finish()
        texts = [self.tokenizer.decode(ids, errors="replace", skip_controls=True) for ids in run.symbols]
        return Output(texts, run.symbols, run.finish, run.nats, run.trace, run.stats, chosen, used)

    def score(self, texts: Sequence[str], *, law: str | None = None, prompts: Sequence[str] | None = None) -> Scores:
        """Likelihood of each text from BOS, every symbol once; the end of a text is not scored.

        Args:
            texts: of any length; one longer than the context is read in windows that overlap by half.
            law: as in :meth:`generate`.
            prompts: one per text, read before it and not scored. Under ``product`` and ``chain`` patches are then
                aligned to the end of the prompt, as in :meth:`generate`.
        Raises:
            LawError: the model does not define ``law``.
            DecodingError: ``prompts`` and ``texts`` differ in number.
            EncodingError: a text with a lone surrogate or a control string.
        """
        chosen = check_law(self.config, law)
        if prompts is not None and len(prompts) != len(texts):
            raise DecodingError(f"prompts: found {len(prompts)}, expected one for each of {len(texts)} texts")
        self.model.eval()
        bos = self.tokenizer.bos_patch(self.config.patch)
        heads = [np.concatenate((bos, ids)) for ids in self._encode(prompts or [""] * len(texts), "prompt")]
        rows = [np.concatenate((head, ids)) for head, ids in zip(heads, self._encode(texts, "text"), strict=True)]
        nats = score_bytes(self.model, chosen, rows, [len(head) for head in heads])
        scores = [
            Score(math.fsum(n), len(text), len(text.encode("utf-8"))) for n, text in zip(nats, texts, strict=True)
        ]
        return Scores(scores, chosen)

    def _encode(
        self, texts: Sequence[str], what: str, allowed_controls: Collection[str] | Literal["all"] = ()
    ) -> list[NDArray[np.uint8]]:
        """Ids of each text; an error names ``what`` the text is and its row."""
        if isinstance(texts, str):
            raise DecodingError(f"{what}: found a string {texts[:20]!r}, expected a list of strings")
        rows = []
        for r, text in enumerate(texts):
            try:
                rows.append(self.tokenizer.encode(text, allowed_controls=allowed_controls))
            except EncodingError as error:
                raise EncodingError(f"{what} {r}: {error}") from None
        return rows

    def _choose_draft(self, draft: Draft, law: Law, max_draft: int) -> Draft:
        match draft:
            case "auto":
                return "heads" if max_draft else "none"
            case "none":
                return "none"
            case "heads":
                if max_draft:
                    return "heads"
                raise DecodingError(f"draft 'heads': law {law!r} has nothing to verify, expected 'auto' or 'none'")
            case _:
                raise DecodingError(f"draft: found {draft!r}, expected 'auto', 'none' or 'heads'")

    def _stops(self, strings: Sequence[str]) -> list[SequenceStop]:
        """EOS and the stop strings, which may hold controls, each as whole words of the encoding."""

        def aligned(generated: NDArray[np.uint8], start: int) -> bool:
            return bool(self.encoding.char_starts(generated)[start])

        words = [self.tokenizer.eos, *self._encode(strings, "stop", allowed_controls="all")]
        return [SequenceStop(tuple(word.tolist()), aligned) for word in words]


def load(folder: str | Path, device: str | torch.device = "cpu") -> LanguageModel:
    """The language model in a checkpoint folder.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version.
    """
    checkpoint = load_checkpoint(Path(folder), device)
    return LanguageModel(checkpoint.model, checkpoint.encoding)
