"""The commands and options that users type: a change here breaks somebody's script, so it must be meant."""

import typer

from bytelm.cli.app import app

SOURCE_OPTIONS = {"--field", "--split-blank-lines", "--skip-bad-lines"}
COMMANDS = {
    "bytelm demo": {"--out", "--steps", "--json"},
    "bytelm encoding list": {"--sample", "--json"},
    "bytelm encoding show": {"TEXT", "--encoding", "--patch", "--png", "--json"},
    "bytelm encoding fit": {
        *{"CORPORA", "--name", "--out", "--family", "--controls", "--order", "--group", "--balance", "--min-count"},
        *{"--workers", "--overwrite", "--json"},
        *SOURCE_OPTIONS,
    },
    "bytelm encoding check": {"NAME", "--json"},
    "bytelm encoding compare": {
        *{"CORPORA", "--group", "--encodings", "--patch", "--patches", "--seed", "--png"},
        *{"--field", "--skip-bad-lines", "--json"},
    },
    "bytelm encoding bench": {
        *{"PATHS", "--gpt2-bpe", "--megabytes", "--repeats", "--seconds", "--png"},
        *{"--field", "--skip-bad-lines", "--json"},
    },
    "bytelm corpus build": {
        *{"PATHS", "--out", "--encoding", "--workers", "--overwrite", "--shard-bytes", "--json"},
        *{"--min-characters", "--max-characters", "--deduplicate", "--valid-share"},
        *SOURCE_OPTIONS,
    },
    "bytelm corpus bench": {"PATHS", "--encoding", "--megabytes", "--workers", "--repeats", "--field", "--json"},
    "bytelm corpus info": {"FOLDER", "--verify", "--no-verify", "--json"},
    "bytelm tokenizer train": {"PATHS", "--out", "--vocab-size", "--overwrite", "--json", *SOURCE_OPTIONS},
    "bytelm fit": {"ARGS"},  # all of them LightningCLI's
    "bytelm validate": {"ARGS"},
    "bytelm test": {"ARGS"},
    "bytelm export": {"RUN", "--out", "--int8", "--four-bit-tables", "--json"},
    "bytelm plan": {  # and those of bytelm fit
        *{"--config", "--gpus", "--gpu", "--memory", "--tflops", "--mfu", "--chars-per-byte", "--json"},
    },
    "bytelm generate": {
        *{"ARGUMENTS", "--model", "--prompts-file", "--max-new-tokens", "--law", "--draft", "--seed", "--do-sample"},
        "--greedy",
        *{"--temperature", "--top-k", "--top-p", "--stop", "--allow-controls", "--stream", "--device", "--json"},
        *{"--min-new-tokens", "--max-new-chars", "--max-time", "--num-draft-tokens", "--verify", "--compile"},
        *{"--num-return-sequences", "--min-p", "--typical-p", "--repetition-penalty", "--no-repeat-ngram-size"},
        *{"--frequency-penalty", "--presence-penalty"},
        *{"--valid-text", "--pattern", "--trace", "--attention", "--dtype", "--four-bit", "--int8", "--revision"},
        "--interactive",
    },
    "bytelm score": {
        *{"MODEL", "PATHS", "--law", "--limit", "--device", "--json", "--dtype", "--four-bit", "--int8", "--revision"},
        *SOURCE_OPTIONS,
    },
    "bytelm serve": {
        *{"MODEL", "--host", "--port", "--law", "--draft", "--name", "--max-batch", "--max-queue", "--timeout"},
        *{"--max-prompt-bytes", "--grace", "--device", "--dtype", "--four-bit", "--int8", "--revision", "--json"},
    },
    "bytelm compare": {
        *{"MODELS", "--data", "--limit", "--window", "--context", "--law", "--prompts", "--prompt-chars"},
        *{"--max-new-chars", "--drafts", "--repeats", "--threads", "--out", "--device", "--dtype", "--json"},
        "--draft-heads",
        *SOURCE_OPTIONS,
    },
    "bytelm eval": {
        *{"--tasks", "--model", "--law", "--attention", "--draft", "--limit", "--num-fewshot", "--batch-size"},
        *{"--max-gen-toks", "--gen-kwargs", "--windows", "--include-path", "--data", "--cache", "--bootstrap"},
        *{"--seed", "--out", "--dtype", "--four-bit", "--int8", "--revision", "--device", "--json"},
    },
    "bytelm convert": {"MODEL", "OUT", "--to", "--renames", "--dtype", "--four-bit", "--revision", "--json"},
    "bytelm card": {"MODEL", "--repo-id", "--license", "--language", "--revision", "--json"},
    "bytelm push": {
        *{"FOLDER", "REPO_ID", "--private", "--public", "--revision", "--license", "--language", "--message"},
        *{"--dry-run", "--json"},
    },
    "bytelm bench decode": {
        *{"MODEL", "--preset", "--prompts-file", "--max-new-tokens", "--repeats", "--batches", "--temperatures"},
        *{"--laws", "--drafts", "--seed", "--compile", "--no-compile", "--dtype", "--threads"},
        *{"--rivals", "--no-rivals", "--plot", "--device", "--json", "--int8", "--random-weights"},
    },
    "bytelm bench train": {
        *{"--config", "--beside", "--precisions", "--steps", "--repeats", "--compile", "--no-compile"},
        *{"--rivals", "--no-rivals", "--rival-vocab", "--threads", "--json"},
    },
}


def _walk(command, path="bytelm"):
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _walk(child, f"{path} {name}")
    else:
        names = set()
        for param in command.params:
            options = {name for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
            names |= options or {param.name.upper()}
        yield path, names


def test_commands_and_options_are_the_agreed_ones():
    assert dict(_walk(typer.main.get_command(app))) == COMMANDS


def test_every_command_explains_itself(run):
    for path in COMMANDS:
        name = path.removeprefix("bytelm ")
        if name not in ("fit", "validate", "test"):  # LightningCLI's help: test_cli_fit.py
            status, out, err = run(*name.split(), "--help")
            assert (status, err) == (0, "")
            assert f"Usage: {path}" in out
            assert "JSON fields" in out


def test_help_of_the_program_lists_the_commands(run):
    status, out, _ = run("--help")
    assert status == 0
    for name in (
        "demo",
        "encoding",
        "corpus",
        "fit",
        "validate",
        "test",
        "plan",
        "generate",
        "score",
        "compare",
        "card",
        "push",
        "bench",
    ):
        assert f"  {name} " in out


def test_version(run):
    status, out, err = run("--version")
    assert (status, err) == (0, "")
    assert out.startswith("bytelm 0.")


def test_usage_errors(run):
    run().refused("Missing command", "bytelm --help")
    run("encodin").refused("No such command 'encodin'", "encoding")
    run("encoding").refused("Missing command")
    run("encoding", "show").refused("Missing argument 'TEXT'", "bytelm encoding show --help")
    run("encoding", "list", "--jso").refused("No such option", "--jso")
    run("encoding", "show", "月", "--patch", "four").refused("--patch", "found 'four'")
    run("encoding", "show", "月", "--patch", "0").refused("--patch", "found '0'")
