"""Models onto the hub and back, through the client and a hub on this machine; what is refused, in one line each."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from fake_hub import TOKEN, serve_hub
from huggingface_hub import constants
from support import tiny_model

from bytelm.cli import main
from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError
from bytelm.hub import prepare_push, save_checkpoint

# The client's own way of uploading, with httpx2.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def hub():
    with serve_hub() as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(folder, tiny_model(), get_encoding("dense-ja"), {"step": 7, "metrics": {"val/bits": 2.5}})
    return folder


@pytest.fixture
def run(hub, tmp_path, monkeypatch, capsys):
    """Runs a command line against the hub, with settings of the client; exit status, output, lines of errors."""

    def call(*args, token=TOKEN, endpoint=hub.url, offline=False):
        settings = {"ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "HF_HUB_CACHE": str(tmp_path / "cache")}
        settings |= {"HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}"}
        settings |= {"HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(tmp_path / "token")}
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", token)
        status = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        said = "bytelm: error: "
        return status, out, [line.removeprefix(said) for line in err.splitlines() if line.startswith(said)]

    yield call
    huggingface_hub.close_session()


def test_there_and_back(hub, model, run):
    """A model that was pushed, on a branch or not, loads by its id, to the bit; card and weights are there."""
    assert run("push", model, "someone/tiny", "--private", "--license", "apache-2.0", "--language", "ja")[0] == 0
    status, out, _ = run("push", model, "someone/tiny", "--revision", "other", "--json")
    assert status == 0
    assert json.loads(out)["commit"].startswith(f"{hub.url}/someone/tiny/commit/")
    repo = hub.repos["someone/tiny"]
    assert repo["private"]
    files = repo["branches"]["main"]
    assert (
        set(files)
        == set(repo["branches"]["other"])
        == {*{"README.md", "config.json", "encoding.json", "model.safetensors"}}
    )
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert files["README.md"].decode().startswith("---\nlibrary_name: bytelm\n")
    assert any(line.startswith("PUT /objects/") for line in hub.requests)
    found = []
    for source in (["someone/tiny"], [model], ["someone/tiny", "--revision", "other"]):
        status, out, _ = run("generate", *source[:1], "朝の港", "--max-new-tokens", "8", "--json", *source[1:])
        assert status == 0
        result = json.loads(out)
        found.append((result["texts"], result["nats"]))
    assert found[0] == found[1] == found[2]


def test_a_model_of_the_cache_needs_no_network(hub, model, run):
    run("push", model, "someone/tiny")
    run("card", "someone/tiny")
    asked = len(hub.requests)
    status, out, _ = run("card", "someone/tiny", offline=True)
    assert status == 0
    assert "## Model" in out
    assert len(hub.requests) == asked


def test_what_is_refused(hub, model, run):
    absent = "someone/absent: no such folder, and the hub gives no model of this id (there is none, or it is private:"
    status, _, (error,) = run("generate", "someone/absent", "a")
    assert status == 2
    assert error.startswith(absent)
    run("push", model, "someone/new")
    assert run("push", model, "someone/new", "--private")[2] == [
        "someone/new: not pushed (found a public repository, expected a private one)"
    ]
    assert run("generate", "someone/new", "a", "--revision", "v9")[2] == [
        "someone/new: no such folder, and the hub gives no model of this id at revision 'v9' (it has no such revision)"
    ]


def test_without_a_token_or_with_a_wrong_one(hub, model, run):
    assert run("push", model, "someone/tiny", token="")[2] == [
        "someone/tiny: not pushed (found no token: `hf auth login`, or HF_TOKEN, gives one)"
    ]
    assert run("push", model, "someone/tiny", token="hf_wrong")[2] == [
        "someone/tiny: not pushed (401: the token has no right to do this)"
    ]
    assert not hub.repos


@pytest.mark.parametrize("args", [["generate", "someone/tiny", "a"], ["push", None, "someone/tiny"]])
def test_without_network(hub, model, run, args):
    args = [model if arg is None else arg for arg in args]
    what = {"generate": "no such folder, and the hub gives no model of this id", "push": "not pushed"}[args[0]]
    status, _, (error,) = run(*args, endpoint="http://127.0.0.1:9")
    assert status == 2
    assert error.startswith(f"someone/tiny: {what} (the hub cannot be reached")
    status, _, (error,) = run(*args, offline=True)
    assert status == 2
    assert error.startswith(f"someone/tiny: {what} (HF_HUB_OFFLINE is set, ")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["../../evil.json", "/tmp/evil.json", "..\\evil.json", "a/../../evil.json"])
def test_files_of_the_hub_stay_in_its_cache(hub, model, run, tmp_path, name):
    """What a repository claims to hold outside of itself is not written, whatever else happens."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    hub.repos["someone/evil"] = {"private": False, "branches": {"main": {**files, name: b"{}"}}}
    run("card", "someone/evil")
    found = [path for path in tmp_path.rglob("*evil.json*") if "snapshots" not in path.parts]
    assert found == []
    assert not Path("/tmp/evil.json").exists()


@pytest.mark.slow
def test_a_process_of_its_own(hub, model, tmp_path):
    """Through the environment, as users have it."""
    for line in (["push", str(model), "someone/tiny"], ["card", "someone/tiny"]):
        done = subprocess.run(
            [sys.executable, "-m", "bytelm", *line], env=hub.environment(tmp_path), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "## Model" in done.stdout


def test_what_is_sent(model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "custom").mkdir()
    (folder / "custom" / "code.py").write_text("")
    for name in (".env", "pytorch_model.bin", "notes.log", "LICENSE"):
        (folder / name).write_text("x")
    upload = prepare_push(folder, "a/b")
    assert upload.files == ("LICENSE", "config.json", "encoding.json", "model.safetensors", "custom/code.py")
    assert upload.left_out == (".env", "notes.log", "pytorch_model.bin")
    assert not upload.written
    (folder / "README.md").write_text("own words")
    upload = prepare_push(folder, "a/b")
    assert (upload.card, upload.written) == ("own words", True)
    assert "README.md" not in upload.files


def test_links_that_lead_out_are_not_sent(model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "inside.json").symlink_to("config.json")
    prepare_push(folder, "a/b")
    (tmp_path / "secret").write_text("{}")
    (folder / "more.json").symlink_to("../secret")
    with pytest.raises(CheckpointError, match=r"more\.json: found a link that leads out of the folder"):
        prepare_push(folder, "a/b")


def test_what_is_not_sent_at_all(model, tmp_path):
    for name in ("tiny", "a/b/c", "../x", "a/..", ""):
        with pytest.raises(CheckpointError, match="expected the name of a repository on the hub, owner/name"):
            prepare_push(model, name)
    with pytest.raises(CheckpointError, match="no such folder"):
        prepare_push(tmp_path / "absent", "a/b")
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="found no safetensors, expected them: pickled weights are not pushed"):
        prepare_push(tmp_path, "a/b")
