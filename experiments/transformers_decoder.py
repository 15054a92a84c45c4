"""``transformers``' assisted generation and prompt look-up as decoders under ``bytelm.testing``, on a toy model."""

import dataclasses
import functools
import itertools
import string
from collections.abc import Sequence
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    StoppingCriteria,
)
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import CausalLMOutputWithPast

from bytelm.testing import Answer, Job, ToyLaw
from bytelm.testing.reports import Lacks
from bytelm.testing.toy import ORDER

FIRST_LETTER = 0x4E00
"""Code point of the letter that stands for symbol 0, for stop strings."""


class ToyConfig(PreTrainedConfig):
    """Of one layer, whose cache holds symbols."""

    model_type = "toy_law"

    def __init__(self, vocab_size: int = 2, **given: Any) -> None:
        super().__init__(**given)
        self.vocab_size, self.num_hidden_layers = vocab_size, 1


class ToyModel(PreTrainedModel, GenerationMixin):
    """A toy law as a causal model: the keys in its cache are the symbols, and it sees nothing else.

    Args:
        law: its logits.
        told: instead of the law, the symbol to say at each position of the text, with certainty.
    """

    config_class = ToyConfig

    def __init__(self, law: ToyLaw, told: Sequence[int] | None = None) -> None:
        super().__init__(ToyConfig(law.vocab))
        self.law, self.told, self.forwards = law, told, 0
        self._placed = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: DynamicCache | None = None,
        attention_mask: Tensor | None = None,
        **ignored: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (1, L, V) in float32 after each symbol of ``input_ids`` (1, L); no row is padded."""
        self.forwards += 1
        cache = DynamicCache(config=self.config) if past_key_values is None else past_key_values
        written = input_ids[:, None, :, None].double()
        keys, _ = cache.update(written, written, 0)
        symbols, new = keys[:, 0, :, 0].long(), input_ids.shape[1]
        if self.told is None:
            padded = torch.cat((symbols.new_zeros(1, ORDER - 1), symbols), dim=1)
            logits = self.law.batch(padded.unfold(1, ORDER, 1)[:, -new:])
        else:
            ends = range(symbols.shape[1] - new + 1, symbols.shape[1] + 1)
            said = torch.tensor([[self.told[end] for end in ends]])
            logits = 1e4 * torch.nn.functional.one_hot(said, self.law.vocab)
        return CausalLMOutputWithPast(logits=logits.float(), past_key_values=cache)


class KeywordsModel(ToyModel):
    """The same model, whose forward does not name what it takes, as that of a wrapped model may not."""

    def forward(self, **given: Any) -> CausalLMOutputWithPast:
        """As that of the model."""
        return super().forward(**given)


class EndsWith(StoppingCriteria):
    """True where the generated symbols end with a stop: a criterion of a user's own.

    Args:
        begin: symbols of the prompt.
        stops: sequences of symbols.
    """

    def __init__(self, begin: int, stops: Sequence[tuple[int, ...]]) -> None:
        self._begin, self._stops = begin, stops

    def __call__(self, input_ids: Tensor, scores: Any, **ignored: Any) -> Tensor:
        """Of each row (B, L)."""
        return torch.tensor([_stopped(row[self._begin :], self._stops) for row in input_ids.tolist()])


class Pieces(BaseStreamer):
    """Gathers what is streamed after the prompt."""

    def __init__(self) -> None:
        self.put_so_far: list[tuple[int, ...]] = []

    def put(self, value: Tensor) -> None:
        """One call for the prompt, then one for each step."""
        self.put_so_far.append(tuple(value.flatten().tolist()))

    def end(self) -> None:
        """Nothing is held back."""


@dataclasses.dataclass(frozen=True)
class Transformers:
    """``generate`` of the installed version, a row at a time, with everything that is asked for in its own options.

    Args:
        draft_with: ``assistant_model``, which also says proposals; or ``prompt_lookup_num_tokens``, which looks at the
            text whatever the job proposes.
        stop_with: how stops are handed over: as a criterion, as ``stop_strings`` of a tokenizer of one letter for each
            symbol, or, those of one symbol, as ``eos_token_id``.
        model: of the target and of the assistant.
    """

    draft_with: Literal["assistant", "lookup"] = "assistant"
    stop_with: Literal["criterion", "strings", "eos"] = "criterion"
    model: type[ToyModel] = ToyModel

    @property
    def lacks(self) -> Lacks:
        """What it refuses or does not promise."""
        lacks: dict[Any, str] = {
            "batch": "it refuses to draft for more than one row",
            "seeds": "the symbols of a seed depend on the drafts",
        }
        if self.draft_with == "lookup":
            lacks["proposals"] = "it looks for drafts in the text"
        return lacks

    def __call__(self, job: Job) -> list[Answer]:
        """Decode; what ``generate`` refuses, it raises."""
        target, pieces, begin = self.model(job.law), Pieces(), len(job.prompts[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seeds[0])
            given = target.generate(
                torch.tensor(job.prompts),
                max_new_tokens=job.max_new,
                return_dict_in_generate=True,
                output_logits=True,
                pad_token_id=0,
                streamer=pieces if len(job.prompts) == 1 else None,
                **_sampling(job),
                **self._stops(job, begin),
                **self._drafting(job),
            )
        symbols = given.sequences[:, begin:]
        log_p = torch.stack(given.logits, dim=1).log_softmax(-1)
        nats = -log_p.gather(2, symbols[..., None]).squeeze(-1)
        return [
            Answer(
                tuple(row),
                "stop" if _stopped(row, job.stops) else "length",
                tuple(nats[n].tolist()),
                tuple(pieces.put_so_far[1:]),
                target.forwards,
            )
            for n, row in enumerate(symbols.tolist())
        ]

    def _drafting(self, job: Job) -> dict[str, Any]:
        if job.num_draft == 0:
            return {}
        if self.draft_with == "lookup":
            return {"prompt_lookup_num_tokens": job.num_draft}
        if job.proposals is None:
            assert job.draft_law is not None
            assistant = self.model(job.draft_law)
        else:
            # Indexed by position in the text, with whatever before the first and after the last proposal.
            assistant = self.model(job.law, [*job.prompts[0], *job.proposals[0], *[0] * job.num_draft])
        settings = assistant.generation_config
        settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = job.num_draft, "constant"
        settings.assistant_confidence_threshold = 0.0
        return {"assistant_model": assistant}

    def _stops(self, job: Job, begin: int) -> dict[str, Any]:
        if not job.stops:
            return {}
        match self.stop_with:
            case "criterion":
                return {"stopping_criteria": [EndsWith(begin, job.stops)]}
            case "strings":
                letters = ["".join(chr(FIRST_LETTER + symbol) for symbol in stop) for stop in job.stops]
                return {"stop_strings": letters, "tokenizer": _tokenizer(job.law.vocab)}
            case "eos":
                return {"eos_token_id": sorted(set(itertools.chain(*job.stops)))}


def _sampling(job: Job) -> dict[str, Any]:
    if job.temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": job.temperature, "top_k": job.top_k or 0}


def _stopped(symbols: Sequence[int], stops: Sequence[tuple[int, ...]]) -> bool:
    return any(tuple(symbols[-len(stop) :]) == stop for stop in stops)


@functools.cache
def _tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """One letter for each symbol, and the Latin letters that the criterion of stop strings tries a tokenizer with."""
    letters = [*(chr(FIRST_LETTER + symbol) for symbol in range(vocab)), *string.ascii_lowercase]
    tokenizer = Tokenizer(models.WordLevel({letter: n for n, letter in enumerate(letters)}, unk_token=letters[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
