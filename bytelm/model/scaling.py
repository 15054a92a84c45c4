"""The same model wider or narrower: what a comparison at equal cost changes, and nothing else."""

import dataclasses
from typing import Any

from bytelm.errors import ConfigError
from bytelm.model.config import ModelConfig

_WIDTHS = ("byte_width", "inner")
"""Fields of merger and heads that grow with the width of the model."""


def at_width(config: ModelConfig, width: int) -> ModelConfig:
    """A model of another width D, with E, F and the inner widths of merger and heads in proportion (rounded).

    Blocks, numbers of heads, patch, context, and the rows of tables stay.

    Args:
        config: of the model.
        width: D.
    Raises:
        ConfigError: ``width`` is below 1.
    """
    if width < 1:
        raise ConfigError(f"width: found {width}, expected a number > 0")

    def scaled(value: int) -> int:
        return max(1, round(value * width / config.width))

    def part(given: Any) -> Any:
        return dataclasses.replace(
            given, **{name: scaled(getattr(given, name)) for name in _WIDTHS if hasattr(given, name)}
        )

    return dataclasses.replace(
        config,
        width=width,
        attention=dataclasses.replace(
            config.attention, head_width=2 * max(1, round(config.attention.head_width * width / config.width / 2))
        ),
        feedforward=part(config.feedforward),
        merger=part(config.merger),
        heads=part(config.heads),
        next_patch=None if config.next_patch is None else part(config.next_patch),
    )
