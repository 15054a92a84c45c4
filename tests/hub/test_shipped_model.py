"""The model of the package: its files, what its card says of them, and that it still gives what it gave."""

import hashlib
import json
import re
from pathlib import Path

import pytest

import bytelm
from bytelm.cli import main
from bytelm.hub.shipped import DEFAULT_MODEL, shipped_folder, shipped_models

EXPECTED = json.loads(Path(__file__).with_name("shipped_expected.json").read_text(encoding="utf-8"))
MOST = 12_000_000


@pytest.fixture(scope="module")
def folder():
    found = shipped_folder(DEFAULT_MODEL)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def lm():
    return bytelm.load(DEFAULT_MODEL)


def test_it_is_known_by_its_name_and_small(folder):
    assert DEFAULT_MODEL in shipped_models()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MOST


def test_the_card_names_its_files(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    told = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", card, re.MULTILINE)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert told == {name: digest for name, digest in found.items() if name != "README.md"}
    assert not re.search(r"@[A-Z_]+@", card)


def test_likelihood_is_that_of_the_day_it_was_made(lm):
    found = lm.score(EXPECTED["texts"]).total.bits_per_char
    assert found == pytest.approx(EXPECTED["bits_per_char"], abs=0.002)
    shuffled = ["".join(sorted(text)) for text in EXPECTED["texts"]]
    assert lm.score(shuffled).total.bits_per_char > 1.5 * found


@pytest.mark.parametrize("law", ["chain", "next"])
def test_drafts_change_nothing(law, lm):
    plain = lm.generate([EXPECTED["prompt"]], law=law, max_new_tokens=64, do_sample=True, seed=3)
    drafted = lm.generate([EXPECTED["prompt"]], law=law, max_new_tokens=64, do_sample=True, seed=3, draft="auto")
    assert plain.texts == drafted.texts


def test_it_writes_japanese(lm):
    greedy = lm.generate([EXPECTED["prompt"]], max_new_tokens=EXPECTED["max_new_tokens"]).texts[0]
    assert greedy == EXPECTED["greedy"]
    drawn = lm.generate(["吾輩は"] * 4, max_new_tokens=160, do_sample=True, temperature=0.7, seed=0).texts
    letters = "".join(drawn)
    assert sum("\u3040" <= letter <= "\u30ff" for letter in letters) > len(letters) / 3
    assert "\ufffd" not in letters


def test_commands_take_it_by_default(capsys, lm):
    assert main(["generate", "吾輩は", "--max-new-tokens", "12", "--quiet"]) == 0
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}  # of its generation_config.json
    written = lm.generate(["吾輩は"], max_new_tokens=12, seed=0, **sampling).texts[0]
    assert capsys.readouterr().out.rstrip("\n") == written.rstrip("\n")
