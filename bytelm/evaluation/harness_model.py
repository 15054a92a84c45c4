"""The ``LM`` of lm-evaluation-harness over any language model of this package. Needs the extra ``eval``."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from numpy.typing import NDArray
from tqdm import tqdm

from bytelm.errors import ConfigError
from bytelm.evaluation.harness_requests import (
    Counts,
    Pair,
    before_stops,
    check_windows,
    cut_left,
    encode,
    generation_options,
    split_pair,
)
from bytelm.hub import LanguageModel, load
from bytelm.model.continuations import context_room
from bytelm.model.laws import check_attention, check_law

_BATCH_SIZE, _MAX_GEN_TOKS = 8, 256
_DEFAULT_DEVICE = "cuda:0"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@register_model("bytelm")
class BytelmLM(LM):
    """A language model as lm-evaluation-harness asks for it: ``simple_evaluate(model=BytelmLM(lm), tasks=[…])``.

    - **Likelihood of a continuation.** Models of bytes: exact, wherever a text is cut into context and continuation
      (:func:`~bytelm.evaluation.harness_requests.split_pair`); under ``product`` and ``chain`` patches begin at the
      continuation, as in generation. Models of tokens: the figures of the harness's own class for transformers, as long
      as every row of the model has a token (rows without one have no share of our law). A context that is too long
      loses its beginning, as in the harness; ``counts`` says how often.
    - **Rolling.** Every symbol of a text once, given BOS and what is before it, in the windows of ``lm.score``: those
      overlap by half a context. ``windows="harness"`` (models of tokens) reads as the harness's class does: windows end
      to end, each after one token of the one before.
    - **Generation.** ``until``, ``max_gen_toks`` and the other keywords of a task are options of ``lm.generate``; a
      model of bytes writes up to a patch (P bytes) for each token of ``max_gen_toks``. The text ends before the first
      stop, wherever in a step that is.

    Args:
        path: a language model; or a folder, or an id of the hub, which is then loaded with the next arguments.
        device, dtype, four_bit, revision, int8: as for :func:`bytelm.load`; ``dtype`` is a name. ``cuda:0``, which the
            harness gives where its user named no device, is the CPU where there is no GPU.
        law: what is scored and generated; the model's default for None.
        attention: what the positions of a prompt see; as trained for None.
        draft: how generation drafts; changes the speed alone.
        windows: ``overlap`` or ``harness``, of rolling likelihood.
        batch_size: rows of a forward, at most; ``auto`` for 8.
        max_batch_size: taken and not used, as the harness always gives it.
        max_gen_toks: where a task names no limit; None for 256, or what fills half the context if that is less.
        seed: of sampling; the request n of a call takes ``seed + n``.
    Attributes:
        lm: the language model.
        counts: what had to be cut, over all calls.
    Raises:
        LawError, ConfigError, CheckpointError: a bad argument, or what :func:`bytelm.load` raises.
    """

    def __init__(
        self,
        path: LanguageModel | str | Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        four_bit: str = "dequantise",
        revision: str | None = None,
        int8: bool = False,
        law: str | None = None,
        attention: str | None = None,
        draft: Any = "auto",
        windows: str = "overlap",
        batch_size: int | str = _BATCH_SIZE,
        max_batch_size: int | None = None,
        max_gen_toks: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"dtype: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
        self.lm = (
            path
            if isinstance(path, LanguageModel)
            else load(
                path,
                "cpu" if device == _DEFAULT_DEVICE and not torch.cuda.is_available() else device,
                dtype=None if dtype is None else _DTYPES[dtype],
                four_bit=four_bit,
                revision=revision,
                int8=int8,
            )
        )
        self.law, self.attention = check_law(self.lm.config, law), check_attention(self.lm.config, attention)
        self.windows = check_windows(self.lm, windows)
        self.batch_size = _batch_size(batch_size)
        self.draft, self.seed = draft, seed
        half = self.lm.config.context // (2 * self.lm.config.patch)
        self.max_gen_toks = min(_MAX_GEN_TOKS, half) if max_gen_toks is None else max_gen_toks
        self.counts = Counts()
        self._device = self.lm.model.device

    @property
    def max_length(self) -> int:
        """The model's context in its symbols, BOS included."""
        return self.lm.config.context

    @property
    def tokenizer_name(self) -> str:
        """Names encoding or tokens, for the harness's cache of requests."""
        return f"bytelm-{self.lm.tokenizer.name}-{self.lm.tokenizer.digest[:16]}"

    @property
    def fingerprint(self) -> str:
        """Names what an answer depends on, for a cache of answers: weights (their sums), ids, law, attention, windows,
        limits.
        """
        parts: list[Any] = [self.tokenizer_name, self.law, self.attention, self.windows, self.max_gen_toks]
        for name, weight in self.lm.model.named_parameters():
            values = weight.detach().float()
            parts.append((name, tuple(weight.shape), values.sum().item(), values.square().sum().item()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def get_model_info(self) -> dict[str, Any]:
        """What results say of the model: law, attention, encoding, windows, and the counts of this object so far."""
        weights = next(self.lm.model.parameters())
        return {
            "model_num_parameters": self.lm.config.num_parameters(),
            "model_dtype": str(weights.dtype).removeprefix("torch."),
            "family": self.lm.family,
            "encoding": self.lm.tokenizer.name,
            "law": self.law,
            "attention": self.attention,
            "windows": self.windows,
            "context": self.max_length,
            "requests": self.counts.requests,
            "truncated_contexts": self.counts.truncated,
            "straddled_boundaries": self.counts.straddled,
        }

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Refused: models of this package have no chat template.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("apply_chat_template: found a chat, expected plain prompts: this model has no chat template")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """No template.

        Raises:
            ConfigError: one was asked for.
        """
        return self.apply_chat_template([]) if chat_template else ""

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each ``(context, continuation)``: log p, natural, and whether greedy decoding would write it.

        Raises:
            EncodingError: a text that the model cannot read; names the request.
            DecodingError: a continuation that the context cannot hold.
        """
        self.counts.requests += len(requests)
        asked = [request.args for request in requests]
        places: dict[tuple[str, str], int] = {}
        for i, args in enumerate(asked):
            places.setdefault(args, i)  # requests that are equal are one
        pairs = [self._fitting(*args, f"request {i}") for args, i in places.items()]
        answers: dict[tuple[str, str], tuple[float, bool]] = {}
        names = list(places)
        for index, nats, greedy in self._scored(pairs, "loglikelihood", disable_tqdm):
            answers[names[index]] = -nats, greedy
            self.cache_hook.add_partial("loglikelihood", names[index], answers[names[index]])
        return [answers[args] for args in asked]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each ``(text,)``: log p of the whole text after BOS, natural.

        Raises:
            EncodingError: a text that the model cannot read; names the request.
        """
        self.counts.requests += len(requests)
        answers = []
        for i, request in enumerate(tqdm(requests, "loglikelihood_rolling", disable=disable_tqdm or None)):
            (text,) = request.args
            ids = encode(self.lm, text, f"request {i}")  # for its error, which names the request
            if self.windows == "overlap":
                nats = self.lm.score([text], law=self.law)[0].nats
            else:
                nats = sum(nats for _, nats, _ in self._scored(self._disjoint(ids), "", True))
            answers.append(-nats)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), -nats)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Of each ``(context, keywords)``: the text that is generated before the first stop, EOS or limit.

        Raises:
            EncodingError: a context that the model cannot read; names the request.
            DecodingError: a keyword that ``lm.generate`` does not know, or a limit that leaves no room for a context.
        """
        self.counts.requests += len(requests)
        alike: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(i)
        texts = [""] * len(requests)
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm or None) as progress:
            for indices in alike.values():
                for batch, found in self._generated(requests, indices):
                    for i, text in zip(batch, found, strict=True):
                        texts[i] = text
                        self.cache_hook.add_partial("generate_until", requests[i].args, text)
                    progress.update(len(batch))
        return texts

    def _fitting(self, context: str, continuation: str, place: str) -> Pair:
        """The ids of a request, whose context has lost what does not fit."""
        pair = split_pair(self.lm, context, continuation, self.counts, place)
        target = self.lm.make_target(self.law, attention=self.attention)
        room = context_room(target, len(pair.continuation))
        what = f"{place}: {len(pair.continuation)} symbols to score in a context of {self.max_length}"
        if not len(pair.context) and room >= (0 if len(target.bos_patch) else 1):
            return pair
        return Pair(cut_left(pair.context, room, self.counts, what), pair.continuation)

    def _scored(self, pairs: Sequence[Pair], what: str, disable_tqdm: bool) -> Iterator[tuple[int, float, bool]]:
        """Index, nats, and whether all is greedy, of each pair as it becomes known."""
        found = self.lm.score_ids(
            [pair.context for pair in pairs],
            [pair.continuation for pair in pairs],
            law=self.law,
            attention=self.attention,
            max_rows=self.batch_size,
        )
        for index, scored in tqdm(found, what, total=len(pairs), disable=disable_tqdm or None):
            yield index, float(scored.nats.sum()), bool(scored.greedy.all())

    def _disjoint(self, ids: NDArray[Any]) -> list[Pair]:
        """The harness's own windows of a text."""
        bos = int(self.lm.tokenizer.bos_patch(1)[0])
        windows = get_rolling_token_windows(ids.tolist(), bos, self.max_length, context_len=1)
        return [
            Pair(np.array(context, np.int64), np.array(given, np.int64))
            for context, given in map(make_disjoint_window, windows)
        ]

    def _generated(self, requests: Sequence[Instance], indices: Sequence[int]) -> Iterator[tuple[list[int], list[str]]]:
        """Requests of the same keywords, some at a time, the longest contexts first, and their texts."""
        keywords = requests[indices[0]].args[1]
        normalized = normalize_gen_kwargs(keywords, self.max_gen_toks)
        options = generation_options(self.lm, dict(normalized), keywords)
        target = self.lm.make_target(self.law, attention=self.attention)
        new = options["max_new_tokens"]
        room = self.max_length - len(target.bos_patch) - new
        what = f"max_gen_toks: up to {new} symbols to generate in a context of {self.max_length}"
        contexts = {}
        for i in indices:
            ids = encode(self.lm, requests[i].args[0], f"request {i}")
            contexts[i] = cut_left(ids, room, self.counts, what)
        options = {"law": self.law, "attention": self.attention, "draft": self.draft, "seed": self.seed, **options}
        first = options.pop("seed")
        by_length = sorted(indices, key=lambda i: -len(contexts[i]))
        for begin in range(0, len(by_length), self.batch_size):
            batch = by_length[begin : begin + self.batch_size]
            seeds = [first + i for i in batch]
            out = self.lm.generate([contexts[i] for i in batch], seed=seeds, **options)
            yield batch, [before_stops(text, options["stop"]) for text in out.texts]


def _batch_size(given: int | str) -> int:
    """As the harness gives it.

    Raises:
        ConfigError: neither a number of at least 1 nor ``auto``.
    """
    if isinstance(given, str) and given.split(":")[0] == "auto":
        return _BATCH_SIZE
    if not str(given).isdigit() or int(given) < 1:
        raise ConfigError(f"batch_size: found {given!r}, expected a number of at least 1, or auto")
    return int(given)
