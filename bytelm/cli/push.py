"""``bytelm card`` and ``bytelm push``: what is said about a model, and the model onto the hub."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.arguments import Json, Model, Revision
from bytelm.cli.console import working, write_error, write_line, write_result

_License = Annotated[
    str, typer.Option("--license", metavar="NAME", help="Licence of the weights, by its name on the hub: apache-2.0.")
]
_Languages = Annotated[
    list[str] | None,
    typer.Option("--language", metavar="CODE", help="Of the training text, such as ja; may be given several times."),
]


def card(
    model: Model,
    repo_id: Annotated[str, typer.Option("--repo-id", metavar="OWNER/NAME", help="Of the model on the hub.")] = "",
    license_name: _License = "",
    languages: _Languages = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Print what is known of a model, as a model card.

    It is the card that push would write: use, config, encoding, data digests, metrics with their commands, licence.

    As MODEL/README.md, written over by hand or not, it is the card that push takes.

    JSON fields: command, model, card.
    """
    from bytelm.hub.card import model_card
    from bytelm.hub.source import find_folder

    text = model_card(find_folder(model, revision), repo_id=repo_id, licence=license_name, languages=languages or [])
    write_result({"command": "card", "model": str(model), "card": text}, text.removesuffix("\n"), json)


def push(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="Checkpoint folder.", show_default=False)],
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub.", show_default=False)],
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Of a new repository; by default as its owner has set.", show_default=False
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="NAME", help="Branch; main by default.", show_default=False)
    ] = None,
    license_name: _License = "",
    languages: _Languages = None,
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="Of the commit.")] = "Upload a bytelm model",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the card and the files, and send nothing.")] = False,
    json: Json = False,
) -> None:
    """Send a model and its card to the hub, in one commit.

    The token is that of `hf auth login`, or HF_TOKEN. What MODEL/README.md says is the card; without one, the one that
    bytelm card prints is.

    JSON fields: command, model, repo_id, files, left_out, commit (null with --dry-run).
    """
    from bytelm.hub.pushing import prepare_push
    from bytelm.hub.pushing import push as send

    upload = prepare_push(folder, repo_id, licence=license_name, languages=languages or [])
    if upload.left_out:
        write_error(f"warning: left out: {', '.join(upload.left_out)}")
    if dry_run and not json:
        write_line(upload.card)
    commit = None
    if not dry_run:
        with working("sending"):
            commit = send(folder, repo_id, upload, private=private, revision=revision, message=message)
    result = {
        "command": "push",
        "model": str(folder),
        "repo_id": repo_id,
        "files": ["README.md", *upload.files],
        "left_out": list(upload.left_out),
        "commit": commit,
    }
    write_result(result, f"{commit or 'not sent'}: README.md, {', '.join(upload.files)}", json)
