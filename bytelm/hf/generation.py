"""``generate`` of transformers on our decoder: what each of its arguments is here, and which are refused."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import GenerateDecoderOnlyOutput

from bytelm.decoding import Streamer
from bytelm.errors import DecodingError
from bytelm.hub.language_model import LanguageModel
from bytelm.hub.stopping import end_sequences

_SAME = (
    "do_sample",
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_return_sequences",
    "max_time",
)
"""Settings that have the same name and meaning here."""

_OURS = (
    "law",
    "draft",
    "num_draft_tokens",
    "seed",
    "pattern",
    "valid_text",
    "max_new_chars",
    "verify",
    "compile",
    "frequency_penalty",
    "presence_penalty",
)
"""Options of ours that transformers does not know."""

_READ = (
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "top_k",
    "sequence_bias",
    "bad_words_ids",
    "suppress_tokens",
    "stop_strings",
    "eos_token_id",
    "pad_token_id",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
)
"""Settings that are put into our words."""

_WITHOUT_EFFECT = ("use_cache", "bos_token_id", "transformers_version", "_from_model_config")
"""Settings that change no output here: there is always a cache, and always BOS."""

_OFF: Mapping[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "length_penalty": 1.0,
    "diversity_penalty": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
}
"""Values by which settings that are not served ask for nothing."""


def generate_batch(
    lm: LanguageModel,
    default: GenerationConfig,
    given: GenerationConfig | None,
    arguments: Mapping[str, Any],
    *,
    logits_processor: Any,
    stopping_criteria: Any,
    streamer: Any,
) -> Any:
    """What ``generate`` of a model gives.

    Args:
        lm: the model.
        default: settings of its folder.
        given: settings of the call as an object, which go before.
        arguments: ``input_ids``, ``attention_mask``, ``tokenizer``, and settings, which go before both.
        logits_processor, stopping_criteria, streamer: of the call.
    Raises:
        DecodingError: an argument that is not served, by its name; else as :meth:`LanguageModel.generate`.
    """
    arguments = dict(arguments)
    ids, mask = arguments.pop("input_ids", None), arguments.pop("attention_mask", None)
    arguments.pop("tokenizer", None)  # for stop strings, which need none here
    ours = {name: arguments.pop(name) for name in _OURS if name in arguments}
    levels = [_named(arguments), *(_settings(config) for config in (given, default) if config is not None)]
    _refuse_others(levels)
    settings = {name: value for level in reversed(levels) for name, value in level.items() if value is not None}
    opening = lm.tokenizer.opening(lm.config.patch)
    if ids is None:
        ids = torch.from_numpy(opening.astype(np.int64))[None].to(lm.model.device)
    if ids.dim() != 2:
        raise DecodingError(f"input_ids: found shape {list(ids.shape)}, expected rows of ids")
    rows = _rows(lm, ids, mask)
    prompts = [_without(opening, row, lm.tokenizer.unit) for row in rows]
    options = {**_options(lm, levels, settings, ids.shape[1]), **ours}
    if options.get("seed") is None:
        # The generator that torch.manual_seed and transformers.set_seed set.
        options["seed"] = int(torch.randint(2**31, ()).item()) if options.get("do_sample") else 0
    options["stop"] = [*_strings(settings), *_criteria(stopping_criteria, rows, options)]
    if logits_processor is not None:
        options["logits_processor"] = list(_listed(logits_processor))
    output = lm.generate_ids(prompts, streamer=_wrapped(streamer, ids, options), **options)
    if streamer is not None:
        streamer.end()
    sequences = _filled(lm, ids, output.ids, settings.get("pad_token_id"))
    if not settings.get("return_dict_in_generate"):
        return sequences
    return GenerateDecoderOnlyOutput(sequences=sequences)  # type: ignore[arg-type] # of a type that no tensor has


def _settings(config: GenerationConfig) -> dict[str, Any]:
    """What a config says that is not what every config says."""
    return _named(config.to_diff_dict())


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT}


def _refuse_others(levels: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what has no counterpart here, unless it asks for nothing."""
    for level in levels:
        for name, value in level.items():
            off = value is None or value is False or (name in _OFF and value == _OFF[name])
            if name not in _SAME and name not in _READ and not off:
                raise DecodingError(
                    f"{name}: found {value!r:.60}, expected none: generate of this model does not know it"
                )


def _options(
    lm: LanguageModel, levels: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], length: int
) -> dict[str, Any]:
    """The options of :class:`GenerationOptions` that settings ask for; ``length`` is that of the padded prompts."""
    options = {name: settings[name] for name in _SAME if name in settings}
    options |= _lengths(levels, length)
    if settings.get("top_k"):
        options["top_k"] = settings["top_k"]
    ends = _plain(settings.get("eos_token_id"))
    word = lm.tokenizer.eos.tolist()
    if ends is not None and ends not in (word[0], word[:1], word, [word]):  # the model's own EOS, however it is named
        options["eos_token_id"] = end_sequences(ends, lm.config.vocab_size)
    if "prompt_lookup_num_tokens" in settings:
        options["draft"], options["num_draft_tokens"] = "lookup", settings["prompt_lookup_num_tokens"]
    biases = _biases(settings)
    if biases:
        options["sequence_bias"] = biases
    return options


def _lengths(levels: Sequence[Mapping[str, Any]], length: int) -> dict[str, int]:
    """Limits in new symbols; of each the one named first counts, of a level that in new symbols before the other."""
    options: dict[str, int] = {}
    for ours, total in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        for level in levels:
            if level.get(ours) is not None:
                options[ours] = level[ours]
            elif level.get(total) is not None:
                options[ours] = level[total] - length if ours.startswith("max") else max(0, level[total] - length)
                if ours.startswith("max") and options[ours] < 1:
                    raise DecodingError(
                        f"max_length: found {level[total]} with {length} ids of prompt, expected room for a symbol"
                    )
            else:
                continue
            break
    return options


def _biases(settings: Mapping[str, Any]) -> dict[Any, float]:
    """``sequence_bias`` as transformers takes it, a mapping or pairs, and what must not be said at all."""
    given = settings.get("sequence_bias") or {}
    pairs: Iterable[Any] = given.items() if isinstance(given, Mapping) else given
    biases = {(key if isinstance(key, int) else tuple(key)): float(bias) for key, bias in pairs}
    biases |= {tuple(_plain(word)): float("-inf") for word in settings.get("bad_words_ids") or ()}
    biases |= {int(symbol): float("-inf") for symbol in _plain(settings.get("suppress_tokens")) or ()}
    return biases


def _strings(settings: Mapping[str, Any]) -> list[str]:
    found = settings.get("stop_strings") or []
    return [found] if isinstance(found, str) else list(found)


def _criteria(given: Any, rows: Sequence[NDArray[Any]], options: Mapping[str, Any]) -> list[Callable[..., bool]]:
    """Stopping criteria as stops; each sees one row, from the first id of its prompt."""
    if given is None:
        return []
    repeated = [row for row in rows for _ in range(options.get("num_return_sequences", 1))]

    def stop_of(criterion: Callable[..., Any]) -> Callable[..., bool]:
        def stop(row: int, generated: NDArray[Any]) -> bool:
            ids = torch.from_numpy(np.concatenate((repeated[row], generated)).astype(np.int64))[None]
            return bool(torch.as_tensor(criterion(ids, None)).all())

        return stop

    return [stop_of(criterion) for criterion in _listed(given)]


def _listed(given: Any) -> Iterable[Any]:
    return [given] if callable(given) and not isinstance(given, list) else given


def _rows(lm: LanguageModel, ids: Tensor, mask: Tensor | None) -> list[NDArray[Any]]:
    """The ids of each row without its padding."""
    if mask is not None and mask.shape != ids.shape:
        raise DecodingError(f"attention_mask: found shape {list(mask.shape)}, expected {list(ids.shape)} of input_ids")
    given = ids.cpu().numpy()
    if given.size and not 0 <= given.min() <= given.max() < lm.config.vocab_size:
        raise DecodingError(f"input_ids: found ids out of range, expected 0 to {lm.config.vocab_size - 1}")
    given = given.astype(np.uint8)
    if mask is not None:
        return [row[kept] for row, kept in zip(given, mask.cpu().numpy().astype(bool), strict=True)]
    pad = _pad_word(lm)
    return [row[_run(row, pad) :] for row in given]


def _without(opening: NDArray[Any], row: NDArray[Any], word: int) -> NDArray[Any]:
    """A row without the BOS with which it begins, of which the decoder has its own."""
    num = min(len(opening), len(row))
    equal = int(np.cumprod(row[:num] == opening[:num]).sum())
    return row[equal - equal % word :]


def _run(row: NDArray[Any], word: NDArray[Any]) -> int:
    """Ids at the beginning that are repetitions of a word."""
    equal = int(np.cumprod(row == np.resize(word, len(row))).sum())
    return equal - equal % len(word)


def _pad_word(lm: LanguageModel) -> NDArray[Any]:
    return lm.tokenizer.encode(lm.tokenizer.pad_token, allowed_controls="all")


def _wrapped(streamer: Any, ids: Tensor, options: Mapping[str, Any]) -> Streamer | None:
    """A streamer of transformers as one of ours; it gets the prompt at once, as there."""
    if streamer is None:
        return None
    num_rows = len(ids) * options.get("num_return_sequences", 1)
    if num_rows != 1:
        raise DecodingError(f"streamer: found {num_rows} rows, expected one")
    streamer.put(ids.cpu())
    return lambda row, symbols: streamer.put(torch.from_numpy(symbols.astype(np.int64)))


def _filled(lm: LanguageModel, ids: Tensor, generated: Sequence[NDArray[Any]], pad_id: Any) -> Tensor:
    """Prompts and what was generated after them, filled up to the longest row."""
    word, longest = _pad_word(lm), max(map(len, generated))
    if pad_id is not None and int(pad_id) != word[0]:
        word = np.array([int(pad_id)])
    filler = np.resize(word, longest)
    rows = np.stack([np.concatenate((row, filler[: longest - len(row)])) for row in generated]).astype(np.int64)
    repeated = ids.repeat_interleave(len(generated) // len(ids), dim=0)
    return torch.cat((repeated, torch.from_numpy(rows).to(ids)), dim=1)


def _plain(value: Any) -> Any:
    """Ids of a tensor or array as plain numbers."""
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value
