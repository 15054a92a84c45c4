"""The help: on a screen, with examples, and what a shell completes."""

import pytest
from command_lines import examples_of, program

from bytelm.cli.app import walk_commands
from bytelm.cli.overview import GROUPS

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

COMMANDS = dict(walk_commands(program()))
LEAVES = {name: command for name, command in COMMANDS.items() if not hasattr(command, "commands")}
PASSED_ON = {"fit", "validate", "test"}
"""Their help is LightningCLI's, and takes a second."""


def test_the_overview_fits_a_screen(run):
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and "COMMAND" not in line]
    for name in program().commands:
        assert f"  {name} " in out
    for option in ("--version", "--quiet", "--install-completion", "--show-completion", "--help"):
        assert option in out


def test_every_command_belongs_to_a_group():
    assert {command.rich_help_panel for command in program().commands.values()} <= set(GROUPS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples(run, name):
    if name in PASSED_ON and name != "fit":
        pytest.skip("as fit")
    status, out, err = run(*name.split(), "--help")
    assert (status, err) == (0, "")
    found = examples_of(out)
    assert found
    assert all(line.startswith(f"bytelm {name} ") or line == f"bytelm {name}" for line in found)
    shown = out[out.index("Examples:") :].splitlines()
    assert max(map(len, shown if name != "fit" else shown[: len(found) + 1])) <= 80


def test_every_command_can_be_quiet():
    for command in LEAVES.values():
        assert [param.name for param in command.params].count("quiet") == 1


def test_the_groups_are_in_order(run):
    lines = run("--help").out.splitlines()
    found = [line.split()[0] for line in lines if line and line.split()[0] in GROUPS and not line.startswith(" ")]
    assert found == [group for group in GROUPS if group in found]
    assert len(found) >= 5


def _complete(run, monkeypatch, line):
    words = line.split(" ")
    monkeypatch.setenv("_BYTELM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line.replace(" ", "\n"))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    status, out, err = run()
    assert (status, err) == (0, "")
    return out.split()


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("bytelm ", {"demo", "encoding", "corpus", "fit", "generate", "score", "compare", "bench", "plan"}),
        ("bytelm enc", {"encoding"}),
        ("bytelm --qu", {"--quiet"}),
        ("bytelm encoding s", {"show"}),
        ("bytelm bench ", {"decode", "train"}),
        ("bytelm corpus build x.jsonl --enc", {"--encoding"}),
        ("bytelm corpus build x.jsonl --encoding ", {"dense-ja", "dense-mul", "ranked2", "utf8", "utf16", "utf32"}),
        ("bytelm corpus build x.jsonl --encoding dense", {"dense-ja", "dense-mul"}),
        ("bytelm generate model --law ", {"product", "chain", "next"}),
        ("bytelm generate model --law c", {"chain"}),
        ("bytelm generate model --draft l", {"lookup"}),
        ("bytelm score model x.jsonl --law a", {"all"}),
        ("bytelm generate model --dtype b", {"bfloat16"}),
        ("bytelm encoding fit x --order s", {"script", "spread"}),
        ("bytelm score model --qu", {"--quiet"}),
        ("bytelm fit --trainer.max", {"--trainer.max_steps"}),
        ("bytelm fit --res", {"--resume"}),
        ("bytelm fit --config ru", set()),  # nothing: the shell completes names of files
        ("bytelm generate mo", set()),
    ],
)
def test_words_are_completed(run, monkeypatch, line, some):
    found = set(_complete(run, monkeypatch, line))
    assert found == some if not line.endswith("bytelm ") else found >= some


def test_options_that_are_completed_for_fit_exist():
    from command_lines import check_fit_arguments

    from bytelm.cli.completions import _OF_FIT

    values = {"int": "1", "float": "1e-4"}
    given = {
        **{"--trainer.devices": values["int"], "--trainer.precision": "32-true", "--trainer.accelerator": "cpu"},
        **{
            "--trainer.strategy": "auto",
            "--model.preset": "tiny",
            "--model.encoding": "utf8",
            "--model.config": "null",
        },
        **{"--model.init_from": "null", "--model.frozen": "x", "--model.compile": "true", "--data.pairs": "x"},
        **{"--model.activation_checkpointing": "true", "--model.inside_documents": "true"},
        **{"--model.optimizer.lr": values["float"], "--model.loss.z_loss": values["float"]},
        **{f"--data.{split}": "x" for split in ("train", "valid", "test")},
    }
    dotted = [name for name in _OF_FIT if "." in name]
    apart = {"--model.frozen", "--data.pairs"}
    lines = [[name, given.get(name, "1")] for name in dotted if name not in apart]
    assert check_fit_arguments(lines) == len(dotted) - len(apart)


def test_completion_is_installed(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = run("--show-completion", "bash")
    assert shown.status == 0
    assert "_BYTELM_COMPLETE=complete_bash" in shown.out
    assert run("--install-completion", "bash").status == 0
    assert (tmp_path / ".bash_completions" / "bytelm.sh").read_text() == shown.out.rstrip("\n")
    assert "bytelm.sh" in (tmp_path / ".bashrc").read_text()
