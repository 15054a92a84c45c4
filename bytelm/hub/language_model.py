"""A trained model with its encoding: text in, text and figures out."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding import Run
from bytelm.decoding.drafters.auto import Memory
from bytelm.encoding import Encoding
from bytelm.errors import DecodingError, EncodingError
from bytelm.hub.checkpoint import load_checkpoint
from bytelm.hub.drafting import make_drafter
from bytelm.hub.options import AllowedControls, GenerationOptions
from bytelm.hub.output import Output, Score, Scores
from bytelm.hub.processing import make_processor
from bytelm.hub.stopping import end_sequences, make_stops
from bytelm.hub.text_stream import TextStreamer, split_finished
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import Law, ModelConfig
from bytelm.model.laws import check_law, score_bytes
from bytelm.model.layout import lay_out_for_decoding
from bytelm.model.targets import NextTarget, PatchTarget, make_target
from bytelm.tokenizer import Tokenizer


class LanguageModel:
    """A byte model and the encoding it was trained with.

    Args:
        model: in evaluation mode while this object uses it.
        encoding: the one of the training corpus.
    """

    def __init__(self, model: ByteLM, encoding: Encoding) -> None:
        self.model, self.encoding = model, encoding
        self.tokenizer = Tokenizer(encoding)
        self._speeds: dict[tuple[Law, bool, bool], Memory] = {}

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

    def make_target(self, law: Law, *, compiled: bool = False) -> PatchTarget | NextTarget:
        """The model under one law, as :func:`bytelm.decoding.decode` takes it."""
        return make_target(self.model, law, self.tokenizer.bos_patch(self.config.patch), compiled=compiled)

    def generate(
        self, prompts: Sequence[str], *, streamer: Callable[[int, str], None] | None = None, **options: Any
    ) -> Output:
        """Continue each prompt until EOS, a stop, or a limit.

        The output depends on model, law, prompt, sampling options and seed alone, not on ``draft``, the batch or
        ``compile``, as far as the logits are the same; in bf16, near ties may fall differently.

        Args:
            prompts: texts of any lengths; a BOS patch is put before each.
            streamer: called as ``streamer(row, text)`` with whole characters as they become certain; the pieces of a
                row add up to its text.
            options: ``max_new_tokens``, ``law``, ``draft``, ``seed``, ``do_sample``, ``temperature``, ``stop`` …: the
                fields of :class:`~bytelm.hub.GenerationOptions`.
        Raises:
            LawError: the model does not define ``law``.
            DecodingError: a prompt does not fit the context; a draft that model and law do not have; a bad limit.
            EncodingError: a prompt with a lone surrogate or a control string.
            ConfigError: a bad sampling option.
        """
        chosen = GenerationOptions.of(options)
        law, run = self._run(prompts, chosen)
        texts = None if streamer is None else TextStreamer(self.tokenizer, run.num_rows, streamer)
        for news in run:
            if texts is not None:
                for row, symbols in news:
                    texts(row, symbols)
        found = run.result()
        return Output(
            texts=[split_finished(self.tokenizer, ids)[0] for ids in found.symbols],
            ids=found.symbols,
            finish=found.finish,
            nats=found.nats,
            trace=found.trace,
            stats=found.stats,
            law=law,
            draft=run.drafter.name,
            encoding=self.encoding,
        )

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """The continuation of one prompt, in whole characters as they become certain; the pieces add up to its text.

        Args:
            prompt: a text.
            options: as in :meth:`generate`, for one sequence.
        Raises:
            DecodingError: as :meth:`generate`, or ``num_return_sequences`` is not 1.
        """
        chosen = GenerationOptions.of(options)
        if chosen.num_return_sequences != 1:
            raise DecodingError(f"num_return_sequences: found {chosen.num_return_sequences}, expected 1 in a stream")
        return self._stream(self._run([prompt], chosen)[1])

    def _stream(self, run: Run) -> Iterator[str]:
        pieces: list[str] = []
        texts = TextStreamer(self.tokenizer, 1, lambda _, text: pieces.append(text))
        for news in run:
            for row, symbols in news:
                texts(row, symbols)
            yield from pieces
            pieces.clear()

    def _run(self, prompts: Sequence[str], options: GenerationOptions) -> tuple[Law, Run]:
        """The run that the options ask for."""
        law = check_law(self.config, options.law)
        self.model.eval()
        target = self.make_target(law, compiled=options.compile)
        memory = self._speeds.setdefault((law, options.compile, options.sampling.greedy), {})
        ends = None if options.eos_token_id is None else end_sequences(options.eos_token_id)
        run = Run(
            target,
            self._encode(prompts, "prompt", options.allowed_controls),
            max_new=options.max_new_tokens,
            sampling=options.sampling,
            stops=make_stops(self.tokenizer, options.stop, ends, options.max_new_chars),
            drafter=make_drafter(options.draft, self.encoding, target, options.num_draft_tokens, memory),
            verify=options.verify,
            processor=make_processor(
                self.encoding,
                max_new=options.max_new_tokens,
                min_new=options.min_new_tokens,
                ends=ends,
                sequence_bias=options.sequence_bias,
                repetition_penalty=options.repetition_penalty,
                no_repeat_ngram_size=options.no_repeat_ngram_size,
                logits_processor=options.logits_processor,
                valid_text=options.valid_text,
                pattern=options.pattern,
            ),
            num_sequences=options.num_return_sequences,
            max_seconds=options.max_time,
            seed=options.seed,
        )
        return law, run

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
        self, texts: Sequence[str], what: str, allowed_controls: AllowedControls = ()
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


def load(folder: str | Path, device: str | torch.device = "cpu") -> LanguageModel:
    """The language model in a checkpoint folder.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version.
    """
    checkpoint = load_checkpoint(Path(folder), device)
    lay_out_for_decoding(checkpoint.model)
    return LanguageModel(checkpoint.model, checkpoint.encoding)
