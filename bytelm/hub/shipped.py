"""Models that come with the package, known by their names: nothing is fetched for them."""

from pathlib import Path

DEFAULT_MODEL = "bytelm-ja-tiny"
"""The model of commands that are given none."""

_FOLDER = Path(__file__).parent.parent / "models"


def shipped_models() -> tuple[str, ...]:
    """Names of the models of the package."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob("*/config.json")))


def shipped_folder(name: str) -> Path | None:
    """The folder of the package's model of this name; None if there is none."""
    return _FOLDER / name if name in shipped_models() else None
