"""Items of evaluation tasks from JSON lines on this machine: what ``custom_dataset`` of a task's YAML calls.

A task beside its data says::

    custom_dataset: !function bytelm.evaluation.local_items.read_items
    dataset_kwargs: {data_file: items.jsonl}
    test_split: test

and lm-evaluation-harness gives the place of that YAML, so that the file is found wherever the package is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bytelm.errors import CorpusError

SPLIT = "test"
"""The one split that local items have."""


def read_items(
    *, config_source: str, data_file: str, bytelm_data: Mapping[str, str] | None = None, **_: Any
) -> dict[str, Any]:
    """The items of a task as the harness takes them: a data set under ``test``.

    Args:
        config_source: path of the task's YAML; the harness gives it.
        data_file: JSON lines, relative to that YAML.
        bytelm_data: files to read instead, by the name of ``data_file`` without its suffix, such as one's own copy of a
            published data set; the metadata of a ``TaskManager``.
    Raises:
        CorpusError: the file is missing or empty, or a line is no JSON object, or has other fields than the first.
    """
    import datasets

    path = Path(config_source).parent / data_file
    path = Path((bytelm_data or {}).get(path.stem, path))
    return {SPLIT: datasets.Dataset.from_list(_objects(path))}


def _objects(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise CorpusError(f"{path}: no such file, expected JSON lines")
    items: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except ValueError as error:
                raise CorpusError(f"{path}:{number}: found no JSON ({error})") from None
            if not isinstance(item, dict):
                raise CorpusError(f"{path}:{number}: found {type(item).__name__}, expected an object")
            if items and item.keys() != items[0].keys():
                raise CorpusError(
                    f"{path}:{number}: found the fields {', '.join(item)}, expected {', '.join(items[0])}"
                )
            items.append(item)
    if not items:
        raise CorpusError(f"{path}: found no items, expected a JSON object on each line")
    return items
