"""Names of files that stand in other files: whether they stay in the folder where they are read."""

import os
from pathlib import Path


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is that of a file in a folder, on every system: no path, no drive, no way up."""
    return name not in ("", ".", "..") and not any(letter in name for letter in "/\\:\0")


def leads_out(path: Path) -> bool:
    """Whether ``path`` is a link to something outside of its folder.

    What lies in the hub's cache may be a link to another place in this cache, for so the cache is made.
    """
    if not path.is_symlink():
        return False
    folder = Path(os.path.realpath(path.parent))
    in_cache = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    home = folder.parents[2] if in_cache else folder
    return not Path(os.path.realpath(path)).is_relative_to(home)
