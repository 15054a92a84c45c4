"""A trained model with its tokenizer: text in, text and figures out."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding import Run, Streamer
from bytelm.decoding.drafters.auto import Memory
from bytelm.errors import DecodingError, EncodingError
from bytelm.graphs import CudaRecorder, Graphs, Lender
from bytelm.hub.drafting import make_drafter
from bytelm.hub.options import AllowedControls, GenerationOptions
from bytelm.hub.output import Output, Score, Scores
from bytelm.hub.session import TextSession, make_arrival
from bytelm.hub.stopping import TextStop
from bytelm.hub.text_stream import TextStreamer, finished_text
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig, PromptAttention
from bytelm.model.continuations import ScoredIds, score_continuations
from bytelm.model.ends import Law
from bytelm.model.laws import check_attention, check_law, score_symbols
from bytelm.model.targets import NextTarget, PatchTarget, make_target
from bytelm.tokenizer import BaseTokenizer

OURS = "bytelm"
"""The family of our own checkpoints."""


class LanguageModel:
    """A model and the tokenizer it was trained with.

    Args:
        model: in evaluation mode while this object uses it.
        tokenizer: of its symbols: bytes of an encoding, or tokens.
        family: whose checkpoint the model was read from.
    """

    def __init__(self, model: ByteLM, tokenizer: BaseTokenizer[Any], family: str = OURS) -> None:
        self.model, self.tokenizer, self.family = model, tokenizer, family
        self._speeds: dict[tuple[Law, bool, bool], Memory] = {}
        self._graphs: tuple[tuple[int, ...], Lender] | None = None

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

    @property
    def attention(self) -> PromptAttention:
        """What the positions of a prompt see where nothing else is asked for."""
        return self.config.prompt

    def make_target(
        self, law: Law, *, compiled: bool = False, attention: PromptAttention | None = None
    ) -> PatchTarget | NextTarget:
        """The model under one law, as :func:`bytelm.decoding.decode` takes it.

        A model of tokens, which had BOS between documents, is given prompts as they are; a prompt must not be empty.

        Args:
            law: of the model.
            compiled: through ``torch.compile``, and on a CUDA GPU through CUDA graphs, too.
            attention: what the positions of a prompt see.
        """
        bos = self.tokenizer.opening(self.config.patch)
        if not compiled or self.model.device.type != "cuda":
            return make_target(self.model, law, bos, compiled=compiled, attention=attention)
        return self._lender().lend(
            lambda graphs: make_target(self.model, law, bos, compiled=True, attention=attention, graphs=graphs)
        )

    def _lender(self) -> Lender:
        """Of graphs for the weights where they are now."""
        where = tuple(part.data_ptr() for part in (*self.model.parameters(), *self.model.buffers()))
        if self._graphs is None or self._graphs[0] != where:
            self._graphs = where, Lender(lambda: Graphs(CudaRecorder(self.model.device)))
        return self._graphs[1]

    def generate(
        self,
        prompts: Sequence[str | NDArray[Any]],
        *,
        streamer: Callable[[int, str], None] | None = None,
        **options: Any,
    ) -> Output:
        """Continue each prompt until EOS, a stop, or a limit.

        The output depends on model, law, prompt, sampling options and seed alone, not on ``draft``, the batch or
        ``compile``, as far as the logits are the same; in bf16, near ties may fall differently.

        Args:
            prompts: texts of any lengths, or arrays of ids; a BOS patch is put before each by models of bytes, and in
                the place of an empty one by models of tokens.
            streamer: called as ``streamer(row, text)`` with whole characters as they become certain; the pieces of a
                row add up to its text.
            options: ``max_new_tokens``, ``law``, ``draft``, ``seed``, ``do_sample``, ``temperature``, ``stop`` …: the
                fields of :class:`~bytelm.hub.GenerationOptions`.
        Raises:
            LawError: the model does not define ``law`` or ``attention``.
            DecodingError: a prompt does not fit the context; a draft that model and law do not have; a bad limit.
            EncodingError: a prompt with a lone surrogate or a control string.
            ConfigError: a bad sampling option.
        """
        chosen = GenerationOptions.of(options)
        run, text_stop = self._run(self._contexts(prompts, chosen.allowed_controls), chosen)
        texts = None if streamer is None else TextStreamer(self.tokenizer, run.num_rows, text_stop.ends, streamer)
        return self._output(run, text_stop, chosen, texts)

    def generate_ids(
        self, prompts: Sequence[NDArray[Any]], *, streamer: Streamer | None = None, **options: Any
    ) -> Output:
        """Continue ids as :meth:`generate` continues texts.

        Args:
            prompts: ids of each, without the BOS patch that models of bytes read before every prompt.
            streamer: called as ``streamer(row, ids)`` after each forward with the new ids of a row.
            options: as in :meth:`generate`.
        Raises:
            LawError, DecodingError, ConfigError: as :meth:`generate`.
        """
        chosen = GenerationOptions.of(options)
        run, text_stop = self._run(self._contexts(prompts), chosen)
        return self._output(run, text_stop, chosen, streamer)

    def _output(
        self, run: Run, text_stop: TextStop, options: GenerationOptions, streamer: Streamer | None = None
    ) -> Output:
        """Run to the end and collect."""
        for news in run:
            if streamer is not None:
                for row, symbols in news:
                    streamer(row, symbols)
        found = run.result()
        return Output(
            texts=[finished_text(self.tokenizer, ids, text_stop.ends.get(r)) for r, ids in enumerate(found.symbols)],
            ids=found.symbols,
            finish=found.finish,
            nats=found.nats,
            trace=found.trace,
            stats=found.stats,
            law=check_law(self.config, options.law),
            draft=run.drafter.name,
            attention=check_attention(self.config, options.attention),
            tokenizer=self.tokenizer,
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
        return self._stream(*self._run(self._contexts([prompt], chosen.allowed_controls), chosen))

    def _stream(self, run: Run, text_stop: TextStop) -> Iterator[str]:
        pieces: list[str] = []
        texts = TextStreamer(self.tokenizer, 1, text_stop.ends, lambda _, text: pieces.append(text))
        for news in run:
            for row, symbols in news:
                texts(row, symbols)
            yield from pieces
            pieces.clear()

    def session(
        self, *, law: str | None = None, draft: Any = "auto", num_draft_tokens: int | None = None
    ) -> TextSession:
        """A batch under one law that requests join and leave while it runs, for servers.

        What a request gives is what :meth:`generate` gives for it alone, as far as the logits are the same.

        Args:
            law: as in :meth:`generate`.
            draft: as in :meth:`generate`, for all requests.
            num_draft_tokens: as in :meth:`generate`.
        Raises:
            LawError: the model does not define ``law``.
            DecodingError: a draft that model and law do not have.
        """
        chosen = check_law(self.config, law)
        self.model.eval()
        target = self.make_target(chosen)
        memory = self._speeds.setdefault((chosen, False, False), {})
        drafter = make_drafter(draft, self.tokenizer, target, num_draft_tokens, memory)
        return TextSession(target, self.tokenizer, self._contexts, drafter)

    def _run(self, prompts: Sequence[NDArray[Any]], options: GenerationOptions) -> tuple[Run, TextStop]:
        """The run that the options ask for, and what says where its texts end."""
        law, attention = check_law(self.config, options.law), check_attention(self.config, options.attention)
        self.model.eval()
        target = self.make_target(law, compiled=options.compile, attention=attention)
        memory = self._speeds.setdefault((law, options.compile, options.sampling.greedy), {})
        arrival, text_stop = make_arrival(self.tokenizer, self.config.vocab_size, prompts, options)
        drafter = make_drafter(options.draft, self.tokenizer, target, options.num_draft_tokens, memory)
        return Run(target, arrival, drafter=drafter, verify=options.verify), text_stop

    def score(
        self,
        texts: Sequence[str],
        *,
        law: str | None = None,
        prompts: Sequence[str] | None = None,
        attention: str | None = None,
    ) -> Scores:
        """Likelihood of each text from BOS, every symbol once; the end of a text is not scored.

        Args:
            texts: of any length; one longer than the context is read in windows that overlap by half.
            law: as in :meth:`generate`.
            prompts: one per text, read before it and not scored, as :meth:`generate` reads prompts. Under ``product``
                and ``chain`` patches are then aligned to the end of the prompt.
            attention: what the positions of a prompt see, as in :meth:`generate`; those of a text see what is before
                them, always.
        Raises:
            LawError: the model does not define ``law`` or ``attention``.
            DecodingError: ``prompts`` and ``texts`` differ in number.
            EncodingError: a text with a lone surrogate or a control string.
        """
        chosen, seen = check_law(self.config, law), check_attention(self.config, attention)
        if prompts is not None and len(prompts) != len(texts):
            raise DecodingError(f"prompts: found {len(prompts)}, expected one for each of {len(texts)} texts")
        seen = "causal" if prompts is None else seen
        self.model.eval()
        heads = self._contexts(prompts or [""] * len(texts))
        if self.tokenizer.begins_with_bos:
            bos = self.tokenizer.opening(self.config.patch)
            heads = [np.concatenate((bos, ids)) for ids in heads]
        rows = [np.concatenate((head, ids)) for head, ids in zip(heads, self._encode(texts, "text"), strict=True)]
        nats = score_symbols(self.model, chosen, rows, [len(head) for head in heads], attention=seen)
        scores = [
            Score(math.fsum(n), len(text), len(text.encode("utf-8"))) for n, text in zip(nats, texts, strict=True)
        ]
        return Scores(scores, chosen, seen)

    def score_ids(
        self,
        contexts: Sequence[NDArray[Any]],
        continuations: Sequence[NDArray[Any]],
        *,
        law: str | None = None,
        attention: str | None = None,
        max_rows: int = 8,
    ) -> Iterator[tuple[int, ScoredIds]]:
        """What the law says of the ids of each continuation after those of its context, and whether greedy decoding
        would emit them; a context that several continuations share is read once.

        Args:
            contexts: ids, without the BOS that models of bytes read before them; models of tokens read BOS in the place
                of an empty one.
            continuations: as many.
            law, attention: as in :meth:`generate`.
            max_rows: continuations in a forward, at most.
        Yields:
            The index of a continuation, and its scores, in an order of its own.
        Raises:
            LawError: the model does not define ``law`` or ``attention``.
            DecodingError: a context and its continuation do not fit the model's context.
        """
        self.model.eval()
        target = self.make_target(check_law(self.config, law), attention=check_attention(self.config, attention))
        return score_continuations(target, self._contexts(contexts, what="context"), continuations, max_rows)

    def _contexts(
        self, prompts: Sequence[Any], allowed_controls: AllowedControls = (), what: str = "prompt"
    ) -> list[NDArray[Any]]:
        """Ids of each prompt; of BOS where there are none and none is put before them."""
        rows = self._encode(prompts, what, allowed_controls)
        if self.tokenizer.begins_with_bos:
            return rows
        return [ids if len(ids) else self.tokenizer.bos_patch(self.config.patch) for ids in rows]

    def _encode(self, texts: Sequence[Any], what: str, allowed_controls: AllowedControls = ()) -> list[NDArray[Any]]:
        """Ids of each text, which may be ids already; an error names ``what`` the text is and its row."""
        if isinstance(texts, str):
            raise DecodingError(f"{what}: found a string {texts[:20]!r}, expected a list of strings")
        rows = []
        for r, text in enumerate(texts):
            if isinstance(text, np.ndarray):
                rows.append(self._checked_ids(text, f"{what} {r}"))
                continue
            try:
                rows.append(self.tokenizer.encode(text, allowed_controls=allowed_controls))
            except EncodingError as error:
                raise EncodingError(f"{what} {r}: {error}") from None
        return rows

    def _checked_ids(self, ids: NDArray[Any], place: str) -> NDArray[Any]:
        size = self.config.vocab_size
        if ids.ndim != 1 or (len(ids) and (ids.dtype.kind not in "ui" or ids.min() < 0 or ids.max() >= size)):
            raise DecodingError(
                f"{place}: found an array of {ids.dtype} with shape {ids.shape}, expected ids from 0 to {size - 1} in "
                "one dimension"
            )
        return ids
