"""Where a checkpoint is: a folder, a model of the package, or one of the hub, of which what is read is fetched."""

import re
from pathlib import Path

from bytelm.errors import CheckpointError
from bytelm.hub.hub_errors import explained
from bytelm.hub.shipped import shipped_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FIRST = ("*.json", "*.txt", "*.safetensors")
_PICKLED = "*.bin"


def is_hub_id(text: str) -> bool:
    """Whether ``text`` has the form of an id of the hub, ``owner/name``."""
    return _HUB_ID.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder ``source``, that of a model of the package, or that of the hub's model of this id in the local cache,
    after a download where needed.

    Configs, tokenizer files and safetensors are fetched; ``.bin`` files only where there are no safetensors.

    Args:
        source: a folder, the name of a model of the package, or ``owner/name``.
        revision: branch, tag or commit of a model of the hub; its main branch for None.
    Raises:
        CheckpointError: neither a folder nor a model that the hub gives, and why; or a revision of a folder.
        ConfigError: the hub's client is not installed.
    """
    folder = Path(source)
    if not folder.exists():
        folder = shipped_folder(str(source)) or folder
    if folder.exists() or not is_hub_id(str(source)):
        if revision is not None:
            raise CheckpointError(f"{source}: found a revision, {revision!r}, expected none for a folder")
        return folder
    found = _fetch(str(source), revision, _FIRST)
    if not any(found.glob("*.safetensors")):
        found = _fetch(str(source), revision, (*_FIRST, _PICKLED))
    return found


def _fetch(hub_id: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    at = f" at revision {revision!r}" if revision else ""
    with explained(f"{hub_id}: no such folder, and the hub gives no model of this id{at}"):
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
