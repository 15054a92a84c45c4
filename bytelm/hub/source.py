"""Where a checkpoint is: a folder, or a model of the hub, of which only what is read is fetched."""

import re
from pathlib import Path

from bytelm.errors import CheckpointError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FIRST = ("*.json", "*.txt", "*.safetensors")
_PICKLED = "*.bin"


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder ``source``, or that of the hub's model of this id in the local cache, after a download where needed.

    Configs, tokenizer files and safetensors are fetched; ``.bin`` files only where there are no safetensors.

    Args:
        source: a folder, or ``owner/name``.
        revision: branch, tag or commit of a model of the hub; its main branch for None.
    Raises:
        CheckpointError: neither a folder nor a model that the hub gives; or a revision of a folder.
    """
    folder = Path(source)
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        if revision is not None:
            raise CheckpointError(f"{source}: found a revision, {revision!r}, expected none for a folder")
        return folder
    found = _fetch(str(source), revision, _FIRST)
    if not any(found.glob("*.safetensors")):
        found = _fetch(str(source), revision, (*_FIRST, _PICKLED))
    return found


def _fetch(hub_id: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        at = f" at revision {revision!r}" if revision else ""
        raise CheckpointError(
            f"{hub_id}: no such folder, and the hub gives no model of this id{at} ({reason:.200})"
        ) from error
