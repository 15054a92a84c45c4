"""Cards: what they say is what the folders of model and run say, and the hub's own reader takes them."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from support import tiny_model
from toy_checkpoints import write_gptj

from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError
from bytelm.hub import model_card, save_checkpoint
from bytelm.hub.card import RUN_FILE

METRICS = {"val/bits_per_char": 5.59912, "val/accuracy_head_1": 0.25, "steps": 3}
RUN = {
    "corpora": {"train": "a" * 64, "valid": "b" * 64},
    "mixture": [{"corpus": "web", "weight": 0.75}, {"corpus": "books|more", "weight": 0.25}],
    "starts": [
        {"step": 0, "command": "bytelm fit --config old.yaml"},
        {
            "step": 3,
            "command": "bytelm fit --config `x` <b>",
            "bytelm": "0.1.0",
            "commit": "abc",
            "libraries": {"torch": "2.13.0", "lightning": None},
        },
    ],
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run" / "model"
    save_checkpoint(path, tiny_model(), get_encoding("dense-ja"), {"step": 1800, "epoch": 2, "metrics": METRICS})
    return path


def metadata(text):
    """The front matter, as the hub reads it."""
    card = ModelCard(text)
    assert card.data.to_dict() == yaml.safe_load(text.split("---\n")[1])
    return card.data.to_dict()


def test_a_model_alone(folder):
    text = model_card(folder)
    assert metadata(text) == {
        "library_name": "bytelm",
        "pipeline_tag": "text-generation",
        "tags": ["bytelm", "byte-level"],
    }
    config = tiny_model().config
    for said in (
        "# model\n",
        f"| parameters | {config.num_parameters():,} |",
        f"| digest of the encoding | {get_encoding('dense-ja').digest} |",
        "`chain`, `next`",
        "No digest of the training data is recorded with this model.",
        "| val/bits_per_char | 5.5991 |",
        "| steps | 3 |",
        "Of step 1800, by `bytelm fit`; its options are not recorded.",
        "## Licence\n\nNone is given.",
    ):
        assert said in text
    shown = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert shown == config.to_dict()


def test_a_model_in_the_folder_of_its_run(folder):
    (folder.parent / RUN_FILE).write_text(json.dumps(RUN))
    text = model_card(folder, repo_id="someone/name", licence="apache-2.0", languages=["ja", "en"])
    found = metadata(text)
    assert (found["license"], found["language"]) == ("apache-2.0", ["ja", "en"])
    for said in (
        "# name\n",
        "bytelm.load('someone/name')",
        f"| train | {'a' * 64} |",
        f"| valid | {'b' * 64} |",
        "| books\\|more | 0.25 |",
        "Of step 1800, by `bytelm fit --config 'x' <b>` (bytelm 0.1.0, commit abc, torch 2.13.0).",
        "## Licence\n\napache-2.0",
    ):
        assert said in text
    assert "old.yaml" not in text


@pytest.mark.parametrize("run", [{}, {"corpora": 3, "starts": [], "mixture": "x"}, {"starts": [4], "mixture": []}])
def test_a_record_that_says_nothing(folder, run):
    (folder.parent / RUN_FILE).write_text(json.dumps(run))
    assert "No digest of the training data" in model_card(folder)


def test_no_metrics(folder):
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "provenance": {}}))
    assert "## Metrics\n\nNone are recorded with this model." in model_card(folder)


def test_a_model_of_another_family(tmp_path):
    write_gptj(tmp_path / "gptj")
    text = model_card(tmp_path / "gptj")
    assert metadata(text)["tags"] == ["bytelm"]
    assert "| family | gptj |" in text
    assert "n_embd: 48" in text


def test_no_model(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        model_card(tmp_path / "absent")
    (tmp_path / "config.json").write_text('{"format": "bytelm", "model": {"width": 0}}')
    with pytest.raises(CheckpointError, match=r"config\.json: model\."):
        model_card(tmp_path)
