"""Checkpoints of bytes in LLaMA's layout with a merger and several heads, as the card of byGPT-JP describes its model.

The names of its tensors are not public. The table is a guess, and a YAML file says what is different:

.. code-block:: yaml

    encoding: dense-ja                    # how its bytes are text: a name, or the path of a table
    tensors:                              # our name: its name, or those that are put under each other
      merger.projection.weight: model.merger.proj.weight
      heads.unembedding.weight: [lm_head_1.weight, lm_head_2.weight, lm_head_3.weight, lm_head_4.weight]
    config:                               # fields of our config that its config.json does not say, or says otherwise
      context: 8192
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.families import LLAMA, Entry, Family
from bytelm.hub.import_weights import Tensors, fill_model, unmatched
from bytelm.hub.json_files import read_config
from bytelm.hub.weights import open_weights
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig

_EMBEDDING, _MERGER = "merger.embedding.weight", "merger.projection.weight"
_MOST_NAMED = 8


@dataclasses.dataclass(frozen=True)
class Renames:
    """What a checkpoint has otherwise than the table.

    Attributes:
        tensors: names of ours, ``{i}`` for the block, to names of theirs, which are put under each other.
        config: fields of :class:`~bytelm.model.config.ModelConfig`, nested.
        encoding: name of the encoding, or path of its table.
    """

    tensors: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    encoding: str | None = None


def read_renames(path: Path) -> Renames:
    """What a YAML file says.

    Raises:
        ConfigError: it cannot be read, is not YAML, or has something else in it; names the field.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    known = [field.name for field in dataclasses.fields(Renames)]
    if not isinstance(data, Mapping) or set(data) - set(known):
        found = sorted(set(data) - set(known))[0] if isinstance(data, Mapping) else data
        raise ConfigError(f"{path}: found {found!r}, expected some of {', '.join(known)}")
    tensors, config, encoding = data.get("tensors") or {}, data.get("config") or {}, data.get("encoding")
    if not isinstance(tensors, Mapping) or not isinstance(config, Mapping):
        raise ConfigError(f"{path}: tensors or config: found something else, expected mappings")
    if encoding is not None and not isinstance(encoding, str):
        raise ConfigError(f"{path}: encoding: found {encoding!r}, expected a name or a path")
    names: dict[str, tuple[str, ...]] = {}
    for ours, theirs in tensors.items():
        listed = [theirs] if isinstance(theirs, str) else theirs
        if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
            raise ConfigError(f"{path}: tensors.{ours}: found {theirs!r}, expected a name or names")
        names[str(ours)] = tuple(listed)
    return Renames(names, config, encoding)


def byte_llama(num_heads: int, renames: Renames) -> Family:
    """The table of a model with so many heads.

    Raises:
        ConfigError: a rename of what is not in the table.
    """
    body = [entry for entry in LLAMA.entries if not entry.ours.startswith(("merger.", "heads."))]
    heads = tuple(f"lm_heads.{k}.weight" for k in range(num_heads))
    table = {entry.ours: tuple(name for name, _ in entry.theirs) for entry in body}
    table |= {_EMBEDDING: ("model.embed_tokens.weight",), _MERGER: ("model.merger.weight",)}
    table |= {"heads.unembedding.weight": heads}
    for name in renames.tensors:
        if name not in table:
            raise ConfigError(f"tensors.{name}: found no such line in the table, expected one of {', '.join(table)}")
    table |= renames.tensors
    entries = tuple(Entry(ours, tuple((name, "rows") for name in theirs)) for ours, theirs in table.items())
    return Family("byte-llama", entries, LLAMA.prefix, LLAMA.dropped, LLAMA.config)


def byte_llama_config(config: Mapping[str, Any], tensors: Tensors, renames: Renames) -> ModelConfig:
    """Our config: the body as ``config.json`` has it, merger and heads as the shapes of the tensors say.

    Raises:
        CheckpointError: tensors that tell the sizes are missing, or the sizes make no model.
    """
    table = {entry.ours: entry.theirs[0][0] for entry in byte_llama(1, renames).entries}
    for name in (table[_EMBEDDING], table[_MERGER]):
        if name not in tensors.names:
            raise CheckpointError(
                f"tensor {name} is missing, from which sizes are read: expected it, or its name under tensors: in"
                f" --renames; the file has {_shown(tensors.names)}"
            )
    num_rows, byte_width = tensors.shape(table[_EMBEDDING])
    patch = tensors.shape(table[_MERGER])[-1] // byte_width
    body = LLAMA.config({"vocab_size": num_rows, **config, "tie_word_embeddings": False}).to_dict()
    ours = {
        **body,
        "context": body["context"] * patch,
        "patch": patch,
        "vocab_size": num_rows,
        "merger": {"kind": "concat", "byte_width": byte_width},
        "heads": {"kind": "independent"},
    }
    try:
        return ModelConfig.from_dict(_merged(ours, renames.config))
    except ConfigError as error:
        raise CheckpointError(f"config.json: makes no model of bytes: {error}") from error


def import_byte_llama(
    folder: Path, renames: Renames, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> ByteLM:
    """Read such a checkpoint.

    Raises:
        CheckpointError: tensors without a place, and parameters without a tensor, all of them by name; else as
            :func:`bytelm.hub.load_family`.
        ConfigError: a rename of what is not in the table.
    """
    config, tensors = read_config(folder), open_weights(folder)
    try:
        ours = byte_llama_config(config, tensors, renames)
        family = byte_llama(ours.patch, renames)
        unused, unfilled = unmatched(ours, family, tensors)
        if unused or unfilled:
            lacking = [f"{name} ({', '.join(names) or 'no line'})" for name, names in unfilled.items()]
            raise CheckpointError(
                f"tensors of the file that no parameter takes: {_shown(unused)}; parameters that no tensor fills, with"
                f" the names looked for: {_shown(lacking)}; expected every one matched, see --renames"
            )
        return fill_model(ours, family, tensors, dtype=dtype, device=device)
    except CheckpointError as error:
        raise CheckpointError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error


def _shown(names: Any) -> str:
    """Names without the numbers of blocks, each once; the first few."""
    short = list(dict.fromkeys(re.sub(r"\b(layers|blocks)\.\d+\.", r"\1.{i}.", name) for name in sorted(names)))
    more = [f"and {len(short) - _MOST_NAMED} more"] if len(short) > _MOST_NAMED else []
    return ", ".join([*short[:_MOST_NAMED], *more]) or "none"


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with some leaves changed."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
