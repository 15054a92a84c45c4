"""The card of a model: ``README.md`` with what its folder, and the folder of its run, say about it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.checkpoint import FORMAT
from bytelm.hub.families import recognise
from bytelm.hub.json_files import read_config, read_json
from bytelm.hub.weights import open_weights
from bytelm.model.config import ModelConfig

CARD_FILE = "README.md"
RUN_FILE = "run.json"
"""In the folder of a run, beside the folder of its model: corpora, versions and commands."""


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What is known of a model.

    Attributes:
        kind: ``bytelm``, or the family of its checkpoint.
        config: ours; None for another family.
        fields: of ``config.json``.
        run: ``run.json``; empty where there is none.
        trained: with ``bytelm fit`` on a configuration that is in the folder of the run.
    """

    kind: str
    config: ModelConfig | None
    fields: dict[str, Any]
    run: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        return _mapping(self.fields.get("provenance"))

    @property
    def start(self) -> dict[str, Any]:
        """The last start of the run."""
        starts = self.run.get("starts")
        return _mapping(starts[-1]) if isinstance(starts, list) and starts else {}


def model_card(folder: Path, *, repo_id: str = "", licence: str = "", languages: Sequence[str] = ()) -> str:
    """The text of a card: use, configuration, encoding, data, metrics with the commands that made them, licence.

    Figures and digests are those that training recorded; the card says where there are none.

    Args:
        folder: of the model. Where it lies in the folder of its run, what that recorded is used, too.
        repo_id: of the model on the hub; the name of the folder by default.
        licence: of the weights, by its name on the hub (``apache-2.0``); without one the card says that none is given.
        languages: codes of the languages of the training text (``ja``).
    Raises:
        CheckpointError: the folder has no model, or holds draft heads alone.
    """
    facts = _read(folder)
    parts = [
        f"---\n{yaml.safe_dump(_metadata(facts, licence, languages), sort_keys=False, allow_unicode=True)}---",
        f"# {_cell(repo_id.rpartition('/')[2] or folder.resolve().name)}",
        _use(facts, repo_id or str(folder.name)),
        _model(facts),
        _data(facts),
        _metrics(facts),
        f"## Licence\n\n{_cell(licence) if licence else 'None is given.'}",
    ]
    return "\n\n".join(parts) + "\n"


def _read(folder: Path) -> _Facts:
    fields = read_config(folder)
    run = folder.resolve().parent / RUN_FILE
    record = read_json(run) if run.is_file() else {}
    if fields.get("format") == FORMAT:
        try:
            config = ModelConfig.from_dict(fields.get("model", {}), "model")
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
        return _Facts(FORMAT, config, fields, record)
    family = recognise(fields, open_weights(folder).names)
    return _Facts(family.name, None, fields, record)


def _metadata(facts: _Facts, licence: str, languages: Sequence[str]) -> dict[str, Any]:
    tags = ["bytelm", "byte-level"] if facts.config is not None and facts.config.vocab_size == 256 else ["bytelm"]
    found: dict[str, Any] = {"library_name": "bytelm", "pipeline_tag": "text-generation", "tags": tags}
    if licence:
        found["license"] = licence
    if languages:
        found["language"] = list(languages)
    return found


def _use(facts: _Facts, source: str) -> str:
    laws = ", ".join(f"`{law}`" for law in facts.config.laws) if facts.config is not None else "`next`"
    return (
        f"A language model for `bytelm`, of the laws {laws}. Loading it runs no code of this repository:\n\n"
        "```python\n"
        "import bytelm\n\n"
        f"lm = bytelm.load({source!r})\n"
        'lm.generate(["…"], max_new_tokens=100).texts\n'
        "```"
    )


def _model(facts: _Facts) -> str:
    config, encoding = facts.config, _mapping(facts.fields.get("encoding"))
    rows = [("written by bytelm", facts.fields.get("bytelm_version"))]
    if config is not None:
        rows += [
            ("parameters", f"{config.num_parameters():,}"),
            ("bytes per patch, heads", config.patch),
            ("context in bytes" if config.vocab_size == 256 else "context in tokens", f"{config.context:,}"),
            ("encoding", encoding.get("name")),
            ("digest of the encoding", encoding.get("digest")),
        ]
        shown = config.to_yaml()
    else:
        rows += [("family", facts.kind)]
        known = {name: value for name, value in facts.fields.items() if name not in ("provenance", "bytelm_version")}
        shown = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    return f"## Model\n\n{_table(('', ''), rows)}\n\n```yaml\n{shown.replace('```', '')}```"


def _data(facts: _Facts) -> str:
    corpora = _mapping(facts.run.get("corpora"))
    if not corpora:
        return "## Data\n\nNo digest of the training data is recorded with this model."
    lines = [("split", "SHA-256 of the corpus"), *corpora.items()]
    text = _table(lines[0], lines[1:])
    mixture = facts.run.get("mixture")
    if isinstance(mixture, list):
        shares = [_mapping(entry) for entry in mixture]
        rows = [tuple(str(value) for value in share.values()) for share in shares]
        text += f"\n\nThe training data is a mixture:\n\n{_table(tuple(shares[0]), rows)}" if shares else ""
    return f"## Data\n\n{text}"


def _metrics(facts: _Facts) -> str:
    metrics, step = _mapping(facts.provenance.get("metrics")), facts.provenance.get("step")
    if not metrics:
        return "## Metrics\n\nNone are recorded with this model."
    rows = [(name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in metrics.items()]
    command = facts.start.get("command")
    by = f"by `{_code(command)}`" if command else "by `bytelm fit`; its options are not recorded"
    made = f"Of step {step}, {by}"
    where = {"bytelm": facts.start.get("bytelm"), "commit": facts.start.get("commit"), **_libraries(facts)}
    versions = ", ".join(f"{name} {value}" for name, value in where.items() if value)
    return f"## Metrics\n\n{_table(('metric', 'value'), rows)}\n\n{made}{f' ({_cell(versions)})' if versions else ''}."


def _libraries(facts: _Facts) -> dict[str, Any]:
    found = _mapping(facts.start.get("libraries"))
    return {name: found.get(name) for name in ("torch", "lightning")}


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *(row for row in rows if row[-1] is not None)]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    """Text that stays in its cell and is no markup."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _code(value: object) -> str:
    return " ".join(str(value).split()).replace("`", "'")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
