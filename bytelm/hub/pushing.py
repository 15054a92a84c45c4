"""A model in a folder onto the hub: its files and its card, in one commit."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bytelm.errors import CheckpointError
from bytelm.hub.card import CARD_FILE, model_card
from bytelm.hub.hub_errors import explained, import_client
from bytelm.hub.source import is_hub_id
from bytelm.places import leads_out

_ENDINGS = (".json", ".txt", ".safetensors", ".md", ".jinja", ".py")
_NAMES = ("LICENSE", "NOTICE")


@dataclass(frozen=True)
class Upload:
    """What :func:`push` sends.

    Attributes:
        card: text of ``README.md``.
        written: whether the card is that of the folder, and none was made.
        files: names of the other files, as in the folder.
        left_out: names of files that stay: of other kinds, or hidden.
    """

    card: str
    written: bool
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def prepare_push(folder: str | Path, repo_id: str, *, licence: str = "", languages: Sequence[str] = ()) -> Upload:
    """What :func:`push` would send; nothing is sent.

    Files of a model are JSON, text, safetensors, and Python of an export for transformers; pickled weights are not
    among them. A ``README.md`` of the folder is taken as it is, else a card is made.

    Args:
        folder: of the model.
        repo_id: ``owner/name``.
        licence: for a card that is made, as in :func:`~bytelm.hub.card.model_card`.
        languages: as ``licence``.
    Raises:
        CheckpointError: no such folder, no model or no safetensors in it, a link that leads out of it, or no such name.
    """
    folder = Path(folder)
    if not is_hub_id(repo_id):
        raise CheckpointError(f"{repo_id}: expected the name of a repository on the hub, owner/name")
    card = model_card(folder, repo_id=repo_id, licence=licence, languages=languages)
    own = folder / CARD_FILE
    files, left_out = _list(folder)
    if not any(name.endswith(".safetensors") for name in files):
        raise CheckpointError(f"{folder}: found no safetensors, expected them: pickled weights are not pushed")
    if own.is_file():
        card = own.read_text(encoding="utf-8")
    return Upload(card, own.is_file(), tuple(name for name in files if name != CARD_FILE), left_out)


def push(
    folder: str | Path,
    repo_id: str,
    upload: Upload,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload a model of bytelm",
    endpoint: str | None = None,
) -> str:
    """Send a model to the hub, into a repository that is made where there is none; all files in one commit or none.

    Args:
        folder: of the model.
        repo_id: ``owner/name``.
        upload: what :func:`prepare_push` found.
        private: whether a new repository is private; None for what its owner has as the default.
        revision: branch, main by default.
        message: of the commit.
        endpoint: address of the hub, that of ``HF_ENDPOINT`` by default.
    Returns:
        The address of the commit.
    Raises:
        CheckpointError: no token, no network, no right to write there, or the repository is public and ``private`` was
            asked for.
        ConfigError: the hub's client is not installed.
    """
    client = import_client()
    with explained(f"{repo_id}: not pushed"):
        if client.get_token() is None:
            raise CheckpointError(f"{repo_id}: not pushed (found no token: `hf auth login`, or HF_TOKEN, gives one)")
        api = client.HfApi(endpoint=endpoint, library_name="bytelm")
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise CheckpointError(f"{repo_id}: not pushed (found a public repository, expected a private one)")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        added = [(CARD_FILE, upload.card.encode()), *((name, Path(folder) / name) for name in upload.files)]
        operations = [client.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in added]
        done = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    return str(done.commit_url)


def _list(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """Names of the files that belong to a model, and of the others, at any depth, with slashes."""
    taken: list[str] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            path = Path(place) / name
            shown = path.relative_to(folder).as_posix()
            if leads_out(path):
                raise CheckpointError(f"{path}: found a link that leads out of the folder, expected a file in it")
            known = not name.startswith(".") and (name.endswith(_ENDINGS) or name in _NAMES)
            (taken if known and path.is_file() else others).append(shown)
    return taken, tuple(others)
