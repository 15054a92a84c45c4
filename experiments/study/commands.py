"""Commands of the package, run in this process."""

import contextlib
import io
import json
from typing import Any

from bytelm.cli import main
from bytelm.errors import BytelmError


def bytelm(*args: object) -> dict[str, Any]:
    """What ``bytelm ARGS --json`` writes to standard output.

    Raises:
        BytelmError: the command failed, for the reason that it gave.
    """
    words, out, errors = [*map(str, args), "--json"], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main(words)
    if status:
        lines = errors.getvalue().strip().splitlines()
        raise BytelmError(f"bytelm {' '.join(words[:2])}: {lines[-1] if lines else f'exit status {status}'}")
    found: dict[str, Any] = json.loads(out.getvalue().strip().splitlines()[-1])
    return found
