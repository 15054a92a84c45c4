"""A trained model with its tokenizer: text in, text and figures out."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding import Run
from bytelm.decoding.drafters.auto import Memory
from bytelm.errors import DecodingError, EncodingError
from bytelm.hub.checkpoint import FORMAT, load_checkpoint
from bytelm.hub.draft_heads import load_draft_heads
from bytelm.hub.drafting import make_drafter
from bytelm.hub.family_folder import load_family
from bytelm.hub.int8 import quantise_int8, quantise_tables
from bytelm.hub.json_files import read_config
from bytelm.hub.options import AllowedControls, GenerationOptions
from bytelm.hub.output import Output, Score, Scores
from bytelm.hub.processing import make_processor
from bytelm.hub.source import find_folder
from bytelm.hub.stopping import TextStop, end_sequences, make_stops
from bytelm.hub.text_stream import TextStreamer, finished_text
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import Law, ModelConfig, PromptAttention
from bytelm.model.laws import check_attention, check_law, score_symbols
from bytelm.model.layout import lay_out_for_decoding
from bytelm.model.targets import NextTarget, PatchTarget, make_target
from bytelm.tokenizer import BaseTokenizer, Tokenizer


class LanguageModel:
    """A model and the tokenizer it was trained with.

    Args:
        model: in evaluation mode while this object uses it.
        tokenizer: of its symbols: bytes of an encoding, or tokens.
        family: whose checkpoint the model was read from.
    """

    def __init__(self, model: ByteLM, tokenizer: BaseTokenizer[Any], family: str = FORMAT) -> None:
        self.model, self.tokenizer, self.family = model, tokenizer, family
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

    @property
    def attention(self) -> PromptAttention:
        """What the positions of a prompt see where nothing else is asked for."""
        return self.config.prompt

    def make_target(
        self, law: Law, *, compiled: bool = False, attention: PromptAttention | None = None
    ) -> PatchTarget | NextTarget:
        """The model under one law, as :func:`bytelm.decoding.decode` takes it.

        A model of tokens, which had BOS between documents, is given prompts as they are; a prompt must not be empty.
        """
        bos = self.tokenizer.opening(self.config.patch)
        return make_target(self.model, law, bos, compiled=compiled, attention=attention)

    def generate(
        self, prompts: Sequence[str], *, streamer: Callable[[int, str], None] | None = None, **options: Any
    ) -> Output:
        """Continue each prompt until EOS, a stop, or a limit.

        The output depends on model, law, prompt, sampling options and seed alone, not on ``draft``, the batch or
        ``compile``, as far as the logits are the same; in bf16, near ties may fall differently.

        Args:
            prompts: texts of any lengths; a BOS patch is put before each by models of bytes, and in the place of an
                empty one by models of tokens.
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
        run, text_stop = self._run(prompts, chosen)
        texts = None if streamer is None else TextStreamer(self.tokenizer, run.num_rows, text_stop.ends, streamer)
        for news in run:
            if texts is not None:
                for row, symbols in news:
                    texts(row, symbols)
        found = run.result()
        return Output(
            texts=[finished_text(self.tokenizer, ids, text_stop.ends.get(r)) for r, ids in enumerate(found.symbols)],
            ids=found.symbols,
            finish=found.finish,
            nats=found.nats,
            trace=found.trace,
            stats=found.stats,
            law=check_law(self.config, chosen.law),
            draft=run.drafter.name,
            attention=check_attention(self.config, chosen.attention),
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
        return self._stream(*self._run([prompt], chosen))

    def _stream(self, run: Run, text_stop: TextStop) -> Iterator[str]:
        pieces: list[str] = []
        texts = TextStreamer(self.tokenizer, 1, text_stop.ends, lambda _, text: pieces.append(text))
        for news in run:
            for row, symbols in news:
                texts(row, symbols)
            yield from pieces
            pieces.clear()

    def _run(self, prompts: Sequence[str], options: GenerationOptions) -> tuple[Run, TextStop]:
        """The run that the options ask for, and what says where its texts end."""
        law, attention = check_law(self.config, options.law), check_attention(self.config, options.attention)
        self.model.eval()
        target = self.make_target(law, compiled=options.compile, attention=attention)
        memory = self._speeds.setdefault((law, options.compile, options.sampling.greedy), {})
        vocab_size = self.config.vocab_size
        ends = None if options.eos_token_id is None else end_sequences(options.eos_token_id, vocab_size)
        stops, text_stop = make_stops(self.tokenizer, options.stop, ends, options.max_new_chars)
        run = Run(
            target,
            self._contexts(prompts, "prompt", options.allowed_controls),
            max_new=options.max_new_tokens,
            sampling=options.sampling,
            stops=stops,
            drafter=make_drafter(options.draft, self.tokenizer, target, options.num_draft_tokens, memory),
            verify=options.verify,
            processor=make_processor(
                self.tokenizer,
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
        return run, text_stop

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
        heads = self._contexts(prompts or [""] * len(texts), "prompt")
        if self.tokenizer.begins_with_bos:
            bos = self.tokenizer.opening(self.config.patch)
            heads = [np.concatenate((bos, ids)) for ids in heads]
        rows = [np.concatenate((head, ids)) for head, ids in zip(heads, self._encode(texts, "text"), strict=True)]
        nats = score_symbols(self.model, chosen, rows, [len(head) for head in heads], attention=seen)
        scores = [
            Score(math.fsum(n), len(text), len(text.encode("utf-8"))) for n, text in zip(nats, texts, strict=True)
        ]
        return Scores(scores, chosen, seen)

    def _contexts(
        self, prompts: Sequence[str], what: str, allowed_controls: AllowedControls = ()
    ) -> list[NDArray[Any]]:
        """Ids of each prompt; of BOS where there are none and none is put before them."""
        rows = self._encode(prompts, what, allowed_controls)
        if self.tokenizer.begins_with_bos:
            return rows
        return [ids if len(ids) else self.tokenizer.bos_patch(self.config.patch) for ids in rows]

    def _encode(self, texts: Sequence[str], what: str, allowed_controls: AllowedControls = ()) -> list[NDArray[Any]]:
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


def load(
    source: str | Path,
    device: str | torch.device = "cpu",
    *,
    dtype: torch.dtype | None = None,
    four_bit: str = "dequantise",
    draft_heads: str | Path | None = None,
    revision: str | None = None,
    int8: bool = False,
    int8_tables: bool = False,
) -> LanguageModel:
    """The language model of a checkpoint: ours, or of GPT-J's family (:func:`~bytelm.hub.load_family` says which).

    Args:
        source: a folder, or the id of a model on the hub.
        device: where the model goes.
        dtype: of its weights; by default as in the file.
        four_bit: ``dequantise``, ``keep`` or ``kernels``, for files in four bits.
        draft_heads: folder of heads that were trained to draft for this model of tokens, see ``bytelm fit``.
        revision: branch, tag or commit of a model on the hub.
        int8: whether the matrices of linear layers are rounded to int8, each output with a scale, through torchao.
        int8_tables: whether the rows of n-gram tables are rounded to int8, each with a scale: another model, a quarter
            of the size of float32 tables, whose laws and decoding agree as those of any other.
    Raises:
        CheckpointError: a file is missing, damaged, of another version or of an unknown family; or draft heads are
            those of another model.
        ConfigError: an unknown ``four_bit``, or ``kernels`` without bitsandbytes; ``int8`` without torchao; or
            ``int8_tables`` without tables.
    """
    lm = _load(find_folder(source, revision), device, dtype, four_bit)
    if int8:
        quantise_int8(lm.model)
    if int8_tables:
        quantise_tables(lm.model)
    if draft_heads is not None:
        load_draft_heads(Path(draft_heads), lm.model)
    return lm


def _load(folder: Path, device: str | torch.device, dtype: torch.dtype | None, four_bit: str) -> LanguageModel:
    if folder.is_dir() and read_config(folder).get("format") != FORMAT:
        found = load_family(folder, dtype=dtype, device=device, four_bit=four_bit)
        return LanguageModel(found.model, found.tokenizer, found.family.name)
    checkpoint = load_checkpoint(folder, device)
    if dtype is not None:
        checkpoint.model.to(dtype)
    lay_out_for_decoding(checkpoint.model)
    return LanguageModel(checkpoint.model, Tokenizer(checkpoint.encoding))
