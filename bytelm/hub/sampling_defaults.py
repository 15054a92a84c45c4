"""How the folder of a model says that it is sampled."""

from pathlib import Path

from bytelm.errors import CheckpointError
from bytelm.hub.json_files import read_json

_FILE = "generation_config.json"
_NUMBERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")


def sampling_defaults(folder: Path) -> dict[str, bool | float]:
    """Options of sampling in ``generation_config.json``, the file of transformers, by their names in
    :meth:`bytelm.hub.LanguageModel.generate`. Empty where there is no such file, or where it does not say
    ``do_sample``; an option that it does not name is off.

    Raises:
        CheckpointError: the file is no JSON object, or an option is no number.
    """
    path = folder / _FILE
    given = read_json(path) if path.is_file() else {}
    found: dict[str, bool | float] = {"do_sample": True}
    if given.get("do_sample") is not True:
        return {}
    for name in _NUMBERS:
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(f"{path}: {name}: found {value!r}, expected a number")
        found[name] = value
    return found
