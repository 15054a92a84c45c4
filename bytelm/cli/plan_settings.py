"""What the settings of ``bytelm fit`` say that a plan needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytelm.benchmarks.activations import check_precision
from bytelm.benchmarks.training_plan import Workload
from bytelm.cli.arguments import resolve_encoding
from bytelm.corpus.default_text import default_texts
from bytelm.corpus.manifest import MANIFEST_FILE, Manifest
from bytelm.errors import ConfigError, EncodingError
from bytelm.model.config import ModelConfig
from bytelm.model.ends import NextPatchConfig
from bytelm.training.initial import initial_config


@dataclass(frozen=True)
class PlannedText:
    """What is known of the text.

    Attributes:
        chars_per_byte: characters per stored byte.
        source: where that is from.
        corpus_bytes: of the corpus, if it is there.
    """

    chars_per_byte: float
    source: str
    corpus_bytes: int | None


def read_text(settings: Mapping[str, Any], chars_per_byte: float | None) -> PlannedText:
    """What the corpus of ``data.train`` says, or ``chars_per_byte``, or the embedded default text in the encoding.

    Raises:
        ConfigError: ``chars_per_byte`` is not above 0, or there is no such encoding.
        CorpusError: the corpus is there and damaged.
    """
    manifests = _train_manifests(settings["data"].get("train"))
    size = sum(manifest.bytes for _, manifest, _ in manifests) if manifests else None
    if chars_per_byte is not None:
        if not chars_per_byte > 0:
            raise ConfigError(f"--chars-per-byte: found {chars_per_byte}, expected a number > 0")
        return PlannedText(chars_per_byte, "--chars-per-byte", size)
    if manifests:
        weights = sum(weight for *_, weight in manifests)
        chars = sum(weight * manifest.characters / manifest.bytes for _, manifest, weight in manifests)
        return PlannedText(chars / weights, ", ".join(folder for folder, *_ in manifests), size)
    try:
        encoding = resolve_encoding(settings["model"]["encoding"])
    except EncodingError as error:
        raise ConfigError(f"model.encoding: {str(error).removeprefix('encoding: ')}") from error
    texts = default_texts()
    num_bytes = sum(len(encoding.encode(text)) for text in texts)
    return PlannedText(
        sum(map(len, texts)) / num_bytes, f"the embedded Japanese text in {encoding.name}: an assumption", size
    )


def _train_manifests(train: object) -> list[tuple[str, Manifest, float]]:
    """Folder, manifest and weight of each corpus of ``data.train``; nothing where one of them is not there."""
    if train is None:
        return []
    entries = (
        [(str(e["corpus"]), float(e["weight"])) for e in train] if isinstance(train, list) else [(str(train), 1.0)]
    )
    if not all((Path(folder) / MANIFEST_FILE).is_file() for folder, _ in entries):
        return []
    return [(folder, Manifest.load(Path(folder)), weight) for folder, weight in entries]


def read_workload(settings: Mapping[str, Any], gpus: int | None) -> Workload:
    """The run that the settings of ``fit`` describe, on so many GPUs.

    Raises:
        ConfigError: a setting of which no plan can be made.
    """
    trainer, data, model = settings["trainer"], settings["data"], _model(settings["model"])
    try:
        precision = check_precision(str(trainer["precision"] or "32-true"))
    except ConfigError as error:
        raise ConfigError(f"trainer.precision: {error}") from None
    steps, window = trainer["max_steps"], data["window"]
    if steps is None or steps < 1:
        raise ConfigError(f"trainer.max_steps: found {steps}, expected a number > 0, of which a plan can be made")
    if not model.patch <= window <= model.context or window % model.patch:
        raise ConfigError(
            f"data.window: found {window}, expected a multiple of patch = {model.patch}"
            f" up to the model's context of {model.context}"
        )
    configured = _devices(trainer)
    num_gpus = gpus or configured or 1
    batch_size, accumulate = data["batch_size"], trainer["accumulate_grad_batches"]
    if configured is not None:
        windows = batch_size * accumulate * configured
        if windows % (batch_size * num_gpus):
            raise ConfigError(
                f"--gpus: found {num_gpus}, expected a number that shares {windows} windows per step, {batch_size} at a"
                " time"
            )
        accumulate = windows // (batch_size * num_gpus)
    return Workload(
        model=model,
        window=window,
        batch_size=batch_size,
        accumulate=accumulate,
        num_gpus=num_gpus,
        steps=steps,
        precision=precision,
        read_rows=settings["model"]["optimizer"]["tables"] == "read_rows",
        bucket_views=_bucket_views(trainer["strategy"]),
    )


def _devices(trainer: Mapping[str, Any]) -> int | None:
    """How many GPUs the trainer is set to; None where it takes what there is."""
    match trainer["devices"]:
        case list() as chosen:
            return len(chosen) * int(trainer["num_nodes"])
        case int() | str() as number if str(number).isdigit():
            return int(number) * int(trainer["num_nodes"])
    return None


def _bucket_views(strategy: object) -> bool:
    """Whether DDP is set to keep the gradients in its buckets and nowhere else."""
    if not isinstance(strategy, Mapping):
        return False
    options = {**(strategy.get("init_args") or {}), **(strategy.get("dict_kwargs") or {})}
    return bool(options.get("gradient_as_bucket_view"))


def _model(settings: Mapping[str, Any]) -> ModelConfig:
    """The model that ``fit`` would train."""
    for name in ("frozen", "train_only", "tokenizer"):
        if settings.get(name) is not None:
            raise ConfigError(
                f"model.{name}: found {str(settings[name])!r}, expected none: a plan is of a whole model of bytes"
            )
    config, added, folder = settings["config"], settings["next_patch"], settings["init_from"]
    return initial_config(
        None if config is None else ModelConfig.from_dict(config, "model.config"),
        settings["preset"],
        None if folder is None else Path(folder),
        None if added is None else NextPatchConfig.from_dict(added, "model.next_patch"),
    )
