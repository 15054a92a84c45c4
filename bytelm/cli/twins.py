"""``--twin``: the configuration of a run with several heads as that of its control."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bytelm.cli.config_errors import ConfigExplainer
from bytelm.corpus import Corpus, iter_texts
from bytelm.errors import ConfigError
from bytelm.model.config import ModelConfig
from bytelm.model.presets import get_preset
from bytelm.model.twins import next_byte_twin, token_twin
from bytelm.tokenizer import BPETokenizer

NEXT_BYTE = "next-byte"
_WINDOW = 11_520
"""The window of ``CorpusData`` where the configuration names none."""

_DECIDED = ("--model.config", "--model.preset", "--model.tokenizer", "--data.window", "--data.patch")
_SAMPLED_CHARACTERS = 1 << 20
_SAMPLED_DOCUMENTS = 1 << 14


def find_twin(args: Sequence[str]) -> list[str]:
    """The arguments with ``--twin next-byte | FOLDER`` taken out and the configuration that it means put in.

    The twin has the body of the model and reads the same corpora with the same settings. Its window has as many bytes
    as that of the model; in tokens of the BPE in FOLDER, as many as make that text on average. Configuration files are
    replaced by one, given as YAML in the place of a file's name.

    Raises:
        ConfigError: neither ``next-byte`` nor a folder; ``--resume`` beside it; no model or corpus to make a twin of.
        CheckpointError: the folder has no BPE.
        CorpusError: ``data.train`` is no corpus.
    """
    rest, found = _take_out(args, "--twin")
    if not found:
        return rest
    if any(arg.partition("=")[0] == "--resume" for arg in rest):
        raise ConfigError("--resume: found it with --twin, expected the run's own configuration")
    given = ConfigExplainer(rest).read_given()
    config, data = _model(given.get("model") or {}), given.get("data") or {}
    window = data.get("window", _WINDOW)
    model: dict[str, Any]
    if found[-1] == NEXT_BYTE:
        model = {"config": next_byte_twin(config).to_dict()}
    else:
        folder = Path(found[-1])
        if not folder.is_dir():
            raise ConfigError(
                f"--twin: found {found[-1]!r}, expected {NEXT_BYTE} or a folder that `bytelm tokenizer train` wrote"
            )
        tokenizer = BPETokenizer.from_folder(folder)
        ratio = _tokens_per_byte(data.get("train"), tokenizer)
        window, context = max(1, round(window * ratio)), max(1, round(config.context * ratio))
        model = {"config": token_twin(config, tokenizer.vocab_size, context).to_dict(), "tokenizer": str(folder)}
    files = ConfigExplainer(rest).read_files()
    for name in ("--config", "-c", *_DECIDED):
        rest, _ = _take_out(rest, name, inside=name in _DECIDED)
    kept = {name: value for name, value in (files.get("model") or {}).items() if name not in ("config", "preset")}
    settings = {**files, "model": {**kept, **model}}
    settings["data"] = {**(files.get("data") or {}), "window": window, "patch": 1}
    return [rest[0], "--config", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), *rest[1:]]


def _take_out(args: Sequence[str], name: str, *, inside: bool = False) -> tuple[list[str], list[str]]:
    """The arguments without an option, with ``inside`` also without those of its fields, and the option's values."""
    rest, values, skip = list[str](), list[str](), False
    for i, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if skip:
            skip = False
        elif option == name or (inside and option.startswith(f"{name}.")):
            skip = not equals
            values.append(value if equals else (args[i + 1] if i + 1 < len(args) else ""))
        else:
            rest.append(arg)
    return rest, values


def _model(model: Mapping[str, Any]) -> ModelConfig:
    """The model that a twin is asked of."""
    if model.get("config") is not None:
        return ModelConfig.from_dict(model["config"], "model.config")
    if model.get("preset") is not None:
        return get_preset(str(model["preset"]))
    raise ConfigError("--twin: found neither model.config nor model.preset, expected one of them")


def _tokens_per_byte(folder: object, tokenizer: BPETokenizer) -> float:
    """Tokens for each stored byte in the first documents of a corpus, BOS and EOS included."""
    if not isinstance(folder, str | Path):
        raise ConfigError(f"data.train: found {folder!r}, expected a folder that `bytelm corpus build` wrote")
    corpus = Corpus.open(folder, verify=False)
    characters = tokens = 0
    for text in islice(iter_texts(corpus), _SAMPLED_DOCUMENTS):
        characters += len(text)
        tokens += 1 + len(tokenizer.encode(text))
        if characters >= _SAMPLED_CHARACTERS:
            break
    return tokens / max(1, characters) / corpus.manifest.bytes_per_character
