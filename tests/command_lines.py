"""Lines of the command line in texts: finding them, and asking the program whether it would read them."""

import re
import shlex
from functools import cache
from pathlib import Path

from bytelm.cli.app import build_command
from bytelm.cli.lightning import read_settings

ROOT = Path(__file__).parents[1]
OF_FIT = {"fit", "validate", "test", "plan", "bench train"}
"""Commands that read the options of LightningCLI."""

_CONFIGS = ROOT / "experiments" / "configs"
_ANY_OF_FIT = {"--json", "--quiet", "--help", "--print_config"}
_ANY_OF_FIT_WITH_A_VALUE = {"--config", "-c", "--resume", "--twin", "--ckpt_path"}


@cache
def program():
    return build_command()


def logical_lines(text):
    """The lines, those that end in a backslash with the one after them."""
    return re.sub(r"\\\n\s*", "", text).splitlines()


def examples_of(help_text):
    """The lines below ``Examples:`` in a help."""
    below = re.split(r"^ *Examples:\n", help_text, flags=re.MULTILINE)[1:]
    lines = logical_lines(below[0]) if below else []
    return [line.strip() for line in lines if line.strip().startswith("bytelm ")]


def words_of(line):
    """The words of a line without its comment, an ellipsis standing for no word or the end of one."""
    words = (word.rstrip("…") for word in shlex.split(line, comments=True))
    return [word for word in words if word and word != "..."]


def find_command(words):
    """The command that words call, its name, and the words that are left for it."""
    command, rest, path = program(), list(words[1:]), []
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    return command, " ".join(path), rest


def options_of(command):
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}


def check_line(line):
    """Have the program read a line; returns the arguments that LightningCLI would read of it."""
    words = words_of(line)
    assert words[0] == "bytelm", line
    command, name, rest = find_command(words)
    if not name or hasattr(command, "commands"):
        assert set(rest) <= options_of(command), line
        return None
    if "--help" in rest:
        return None
    own = options_of(command)
    with command.make_context(name, list(rest)) as context:
        if name in OF_FIT:
            return context.params.get("args") or [word for word in context.args if word not in own]
    return None


def check_fit_arguments(lines):
    """Have LightningCLI read the options of many lines at once, its parser taking a second to be made.

    Returns:
        How many options there were.
    """
    kinds = {"ja_small": [], "draft_heads": [], "instruct": []}
    for given in lines:
        kept = list(_plain_options(given))
        names = " ".join(option.partition("=")[0] for option in kept)
        kind = "draft_heads" if "--model.frozen" in names else "instruct" if "--data.pairs" in names else "ja_small"
        kinds[kind] += kept
    for kind, options in kinds.items():
        if options:
            read_settings(["--config", str(_CONFIGS / f"{kind}.yaml"), *options])
    return sum(map(len, kinds.values()))


def _plain_options(given):
    """Options as ``--name=value``; files that they name in the repository must be there."""
    words = iter(given)
    for word in words:
        if word in _ANY_OF_FIT_WITH_A_VALUE:
            value = next(words)
            assert not value.startswith("experiments/") or (ROOT / value).is_file(), value
        elif word not in _ANY_OF_FIT:
            assert word.startswith("--"), given
            yield word if "=" in word else f"{word}={next(words)}"
