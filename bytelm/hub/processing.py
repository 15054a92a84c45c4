"""Options that change the law by what stands before, as one processor."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from bytelm.decoding import Processor
from bytelm.decoding.constraints import AutomatonMask
from bytelm.decoding.processors import (
    CountPenalty,
    LogitBias,
    NoRepeatNgram,
    Processors,
    RepetitionPenalty,
    SuppressUntil,
    UserProcessor,
)
from bytelm.errors import DecodingError
from bytelm.tokenizer import BaseTokenizer

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]


def make_processor(
    tokenizer: BaseTokenizer[Any],
    *,
    max_new: int,
    min_new: int,
    ends: Sequence[Sequence[int]] | None,
    sequence_bias: Mapping[int | Sequence[int], float] | None,
    repetition_penalty: float,
    frequency_penalty: float,
    presence_penalty: float,
    no_repeat_ngram_size: int,
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor],
    valid_text: bool,
    pattern: str | None,
) -> Processor | None:
    """The processor of a call; None where no option asks for one. The arguments are those of ``generate``.

    Args:
        tokenizer: of the model.
        max_new: length limit; constrained text is whole where it is cut.
        min_new: symbols before which none of ``ends`` can be completed.
        ends: sequences that end a text; None for EOS.
    """
    chosen: list[Processor] = []
    if pattern is not None or valid_text:
        chosen.append(AutomatonMask(tokenizer.automaton(pattern), limit=max_new))
    if sequence_bias:
        chosen.append(LogitBias(sequence_bias))
    if repetition_penalty != 1:
        chosen.append(RepetitionPenalty(repetition_penalty))
    if frequency_penalty or presence_penalty:
        chosen.append(CountPenalty(frequency_penalty, presence_penalty))
    if no_repeat_ngram_size:
        chosen.append(NoRepeatNgram(no_repeat_ngram_size))
    if min_new < 0 or min_new > max_new:
        raise DecodingError(f"min_new_tokens: found {min_new}, expected a number from 0 to max_new_tokens = {max_new}")
    if min_new:
        of_code = ends is None
        words = [tokenizer.eos_start] if ends is None else ends
        chosen.append(SuppressUntil(words, min_new, unit=tokenizer.unit if of_code else 1))
    users = [logits_processor] if callable(logits_processor) else list(logits_processor)
    chosen += [UserProcessor(user) for user in users]
    return Processors(chosen) if chosen else None
