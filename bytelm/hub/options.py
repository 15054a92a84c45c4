"""The options of generation: their names, meanings and defaults, once."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from bytelm.decoding import Sampling
from bytelm.errors import DecodingError
from bytelm.hub.processing import LogitsProcessor

AllowedControls = Collection[str] | Literal["all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of :meth:`LanguageModel.generate` and :meth:`LanguageModel.stream`; those of transformers mean the same.

    Attributes:
        max_new_tokens: the most symbols (bytes of the model's encoding, or tokens) per row, exactly.
        min_new_tokens: symbols before which EOS cannot be emitted.
        max_new_chars: the most whole characters per row.
        max_time: seconds after which rows end as they are, with ``finish`` ``"time"``.
        law: ``product``, ``chain`` or ``next``; the model's default for None.
        attention: what the positions of a prompt see: ``causal``, those before them; ``prefix``, for models of tokens,
            all of the prompt; None: as the model was trained.
        draft: who proposes what the model verifies. ``heads``: the model's own heads, under ``next``, or its next-patch
            heads, under ``chain``; ``lookup``: what followed the same symbols before, in prompt or output; a language
            model of the same encoding or BPE; a :class:`~bytelm.decoding.Drafter`; ``none``; or a list of these, of
            which each round uses the one that pays. ``auto``: heads and look-up where they pay.
        num_draft_tokens: the most symbols to draft; None for what suits the drafter.
        verify: ``exact``; for study ``rejection``, which has the law but depends on the drafts, and ``typical``, which
            changes the law.
        seed: an integer, from which each row takes its own noise by its index, or one integer per prompt.
        num_return_sequences: rows per prompt; they share its prefill.
        do_sample: draw symbols; otherwise, and at temperature 0, take the likeliest.
        temperature: logits are divided by it.
        top_k, top_p, min_p, typical_p: truncations of the distribution, in this order.
        repetition_penalty: makes symbols of prompt and output less likely.
        frequency_penalty, presence_penalty: taken from the logit of a symbol of the output, for each time that it is
            there, and once.
        no_repeat_ngram_size: no run of so many symbols occurs twice; 0 for no limit.
        sequence_bias: symbols, or sequences of them, to what is added to the logit that completes them.
        logits_processor: functions ``(input_ids (1, n), scores (1, V)) -> (1, V)``, called at every position with the
            ids of prompt, output and draft before it.
        valid_text: mask what is no text of the encoding, so that the output always decodes.
        pattern: a regular expression over characters that the whole continuation must match.
        stop: one or several of: a string, or control string; bytes; ids; a callable ``stop(row, ids)`` that is asked
            after every symbol. A row ends with the last symbol of the first one; its text, exactly after a string.
        eos_token_id: id, ids, or sequences of ids that end a text instead of EOS; where they are text, as that text.
        allowed_controls: control strings that may stand in prompts.
        compile: run the model through ``torch.compile``, on a CUDA GPU through CUDA graphs, too; the first calls take
            long.
    """

    max_new_tokens: int = 160
    min_new_tokens: int = 0
    max_new_chars: int | None = None
    max_time: float | None = None
    law: str | None = None
    attention: str | None = None
    draft: Any = "auto"
    num_draft_tokens: int | None = None
    verify: str = "exact"
    seed: int | Sequence[int] = 0
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    sequence_bias: Mapping[int | Sequence[int], float] | None = None
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] = ()
    valid_text: bool = False
    pattern: str | None = None
    stop: Any = ()
    eos_token_id: Any = None
    allowed_controls: AllowedControls = ()
    compile: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "GenerationOptions":
        """The options of a call.

        Raises:
            DecodingError: an option that does not exist.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise DecodingError(f"option {name}: unknown, expected " + (near[0] if near else ", ".join(known)))
        return cls(**options)

    @property
    def sampling(self) -> Sampling:
        """How symbols are chosen.

        Raises:
            ConfigError: a bad option.
        """
        return Sampling(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Sampling)})
