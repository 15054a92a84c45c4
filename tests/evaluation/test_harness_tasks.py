"""The tasks that come with the package, without a network, and a task of one's own beside its data."""

import importlib.util
import json
import math
import re
import socket

import pytest
from harness_support import BytelmLM
from support import TEXTS, trained_lm

from bytelm.errors import ConfigError, CorpusError
from bytelm.evaluation import harness
from bytelm.evaluation.local_items import read_items

CHOICES = {
    **{"bytelm_winogrande": 2, "bytelm_hellaswag": 4, "bytelm_piqa": 2, "bytelm_jcommonsenseqa": 5},
    **{"bytelm_jnli": 3, "bytelm_marc_ja": 2, "bytelm_xwinograd_ja": 2},
}
OTHERS = {"bytelm_lambada", "bytelm_facts_ja", "bytelm_text_en", "bytelm_text_ja"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tasks_of(names, **options):
    found = harness.find_tasks(names, **options)
    return {task.task_name: task for group in found for task in getattr(group, "get_all_tasks", lambda g=group: [g])()}


def write_task(folder, lines, name="mine"):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(
        f"""task: {name}
custom_dataset: !function bytelm.evaluation.local_items.read_items
dataset_kwargs: {{data_file: {name}.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
  - {{metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
"""
    )
    return folder


def test_every_task_is_whole():
    """A dozen items of each, no two alike, every answer among the choices and none always the same."""
    tasks = tasks_of(["bytelm_all"])
    assert set(tasks) == set(CHOICES) | OTHERS
    for name, task in tasks.items():
        items = list(task.test_docs())
        assert len(items) >= 12
        assert len({json.dumps(item, sort_keys=True) for item in items}) == len(items)
        if name in CHOICES:
            gold = task.doc_to_text if name == "bytelm_winogrande" else task.doc_to_target
            golds = [gold(item) for item in items]
            assert set(golds) == set(range(CHOICES[name]))
            for item in items:
                choices = task.doc_to_choice(item)
                assert len(set(choices)) == len(choices) == CHOICES[name]


def test_passages_hold_their_last_word():
    """LAMBADA's point: the word to guess stands earlier in the passage."""
    (task,) = tasks_of(["bytelm_lambada"]).values()
    for item in task.test_docs():
        context, word = task.doc_to_text(item), task.doc_to_target(item)
        assert context + word == item["text"]
        assert re.search(rf"\b{word.strip()}\b", context), word


@pytest.mark.parametrize("law", ["chain", "next"])
def test_perplexities_are_those_of_score(law, tmp_path):
    lm = trained_lm("chained")
    texts = [*TEXTS, "".join(TEXTS) * 3, "two words\n"]
    folder = write_task(tmp_path / "tasks", [json.dumps({"text": text}) for text in texts])
    results = harness.evaluate(BytelmLM(lm, law=law), harness.find_tasks(["mine"], include_path=folder))
    found = {row["metric"]: row["value"] for row in harness.rows_of(results)}
    total = lm.score(texts, law=law).total
    words = sum(len(re.split(r"\s+", text)) for text in texts)
    assert found["bits_per_byte"] == pytest.approx(total.bits_per_byte, rel=1e-6)
    assert found["byte_perplexity"] == pytest.approx(2**total.bits_per_byte, rel=1e-6)
    assert found["word_perplexity"] == pytest.approx(math.exp(total.nats / words), rel=1e-5)


def test_all_run():
    results = harness.evaluate(BytelmLM(trained_lm("chained")), harness.find_tasks(["bytelm_all"]), limit=3)
    rows = harness.rows_of(results)
    assert {row["task"] for row in rows} == set(CHOICES) | OTHERS
    assert {row["items"] for row in rows} == {3}
    assert all(math.isfinite(row["value"]) for row in rows)
    stderr = {row["metric"]: row["stderr"] for row in rows}
    assert stderr["perplexity"] > 0
    assert stderr["bits_per_byte"] is None


def test_a_model_that_knows_the_answers_gets_them_right(monkeypatch):
    """A negative control: the likelihoods of golden answers are raised, then lowered."""
    lm = BytelmLM(trained_lm("chained"))
    (task,) = tasks_of(["bytelm_jcommonsenseqa"]).values()
    golden = {task.doc_to_choice(item)[task.doc_to_target(item)] for item in task.test_docs()}
    for sign, expected in ((1, 1.0), (-1, 0.0)):
        monkeypatch.setattr(
            BytelmLM,
            "loglikelihood",
            lambda self, asked, sign=sign: [(sign * float(r.args[1] in golden), False) for r in asked],
        )
        results = harness.evaluate(lm, harness.find_tasks(["bytelm_jcommonsenseqa"]))
        assert [row["value"] for row in harness.rows_of(results) if row["metric"] == "acc"] == [expected]


def test_examples_come_before_an_item():
    (task,) = harness.find_tasks(["bytelm_jnli"])
    harness.evaluate(BytelmLM(trained_lm("chained")), [task], limit=1, num_fewshot=2)
    context = task.instances[0].args[0]
    assert context.count("前提：") == 3
    assert context.count("関係：") == 3
    assert context.endswith("関係：")


def test_data_of_ones_own(tmp_path):
    mine = tmp_path / "published.jsonl"
    mine.write_text('{"goal": "Eat soup?", "sol1": "With a spoon.", "sol2": "With a map.", "label": "0", "id": 7}\n')
    (task,) = harness.find_tasks(["bytelm_piqa"], data={"bytelm_piqa": str(mine)})
    assert [task.doc_to_choice(item) for item in task.test_docs()] == [["With a spoon.", "With a map."]]
    named = tmp_path / "named.jsonl"
    named.write_text('{"sentence1": "雨", "sentence2": "水", "label": "neutral"}\n')
    (task,) = harness.find_tasks(["bytelm_jnli"], data={"bytelm_jnli": str(named)})
    numbered = [task.doc_to_target({"sentence1": "雨", "sentence2": "水", "label": n}) for n in (0, 1, 2)]
    assert ([task.doc_to_target(item) for item in task.test_docs()], numbered) == ([2], [0, 1, 2])


def test_tasks_of_a_file_or_a_pattern(tmp_path):
    folder = write_task(tmp_path / "tasks", ['{"text": "a b"}'])
    assert set(tasks_of([str(folder / "mine.yaml")])) == {"mine"}
    assert set(tasks_of(["bytelm_text_*"])) == {"bytelm_text_en", "bytelm_text_ja"}
    assert set(tasks_of(["mi*", "bytelm_piqa"], include_path=folder)) == {"mine", "bytelm_piqa"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "mine.jsonl: found no items"),
        (['{"text": "a"}', "text"], "mine.jsonl:2: found no JSON"),
        (['{"text": "a"}', "", "[1]"], "mine.jsonl:3: found list, expected an object"),
        (['{"text": "a"}', '{"body": "b"}'], "mine.jsonl:2: found the fields body, expected text"),
    ],
)
def test_bad_lines_are_named(tmp_path, lines, message):
    folder = write_task(tmp_path / "tasks", lines)
    with pytest.raises(CorpusError, match=re.escape(message)):
        harness.find_tasks(["mine"], include_path=folder)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl: no such file"):
        read_items(config_source=str(tmp_path / "task.yaml"), data_file="nowhere.jsonl")


def test_bad_tasks_are_named(tmp_path):
    folder = write_task(tmp_path / "tasks", ['{"text": "a"}'])
    with pytest.raises(ConfigError, match="found 'bytelm_piqua', which is no task, expected one such as bytelm_piqa"):
        harness.find_tasks(["bytelm_piqua"])
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'none'}: found no task")):
        harness.find_tasks(["mine"], include_path=tmp_path / "none")
    with pytest.raises(ConfigError, match="data: found 'mine', which is no task"):
        harness.find_tasks(["mine"], include_path=folder, data={"mine": "a.jsonl"})
    yaml = folder / "mine.yaml"
    text = yaml.read_text()
    for bad, message in [
        (text.replace("loglikelihood_rolling", "guessing"), "task mine: the harness cannot make it: .*guessing"),
        (text.replace("local_items.read_items", "local_items.read_none"), "task mine: .*read_none"),
        (text.replace('doc_to_text: ""', 'doc_to_text: "{{ 1 + "'), "task mine: the harness cannot make it"),
    ]:
        yaml.write_text(bad)
        with pytest.raises(ConfigError, match=message):
            harness.find_tasks(["mine"], include_path=folder)


def test_chat_templates_are_refused():
    import lm_eval
    from lm_eval.tasks import TaskManager

    with harness.quiet(), pytest.raises(ConfigError, match="no chat template"):
        lm_eval.simple_evaluate(
            model=BytelmLM(trained_lm("chained")),
            tasks=harness.find_tasks(["bytelm_jnli"]),
            apply_chat_template=True,
            task_manager=TaskManager(
                include_path=str(harness.TASKS), include_defaults=False
            ),  # else it reads thousands
            limit=1,
        )


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (harness.check_installed, lambda: harness.BytelmLM, lambda: harness.find_tasks(["bytelm_all"])):
        with pytest.raises(ConfigError, match=re.escape("pip install 'bytelm[eval]'")):
            use()
