"""Pictures of the notebooks: each is written whatever stands in the text; what is drawn where it can be read off."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from bytelm.encoding import code_statistics, count_characters, get_encoding
from bytelm.evaluation.drafting_plots import plot_counts, plot_coupling, plot_drafting, plot_staircase
from bytelm.evaluation.plots import printable
from bytelm.evaluation.report_plots import plot_findings
from bytelm.evaluation.surprise import CharacterBits
from bytelm.evaluation.text_plots import _COLUMNS, _lines, plot_pieces, plot_surprise
from bytelm.evaluation.word_plots import plot_ranks, plot_word_lengths
from bytelm.hub import LanguageModel
from bytelm.model import build_model
from bytelm.model.config import AttentionConfig, FeedForwardConfig, ModelConfig
from bytelm.model.ends import ChainedHeadsConfig, MergerConfig
from bytelm.tokenizer import Tokenizer

TITLE = "$山$ と _{x}^ \\"
ODD = TITLE + "\n🐟\t\u0301"


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """(path to draw to, the texts of the figure that was saved there last)."""
    texts: list[str] = []
    save = Figure.savefig

    def saved(figure, path, **options):
        save(figure, path, **options)
        texts[:] = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]

    monkeypatch.setattr(Figure, "savefig", saved)
    path = tmp_path / "picture.png"
    yield path, texts
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def outputs():
    config = ModelConfig(
        width=16,
        num_blocks=1,
        context=128,
        attention=AttentionConfig(num_heads=2, num_kv_heads=1, head_width=8),
        feedforward=FeedForwardConfig(inner=32),
        merger=MergerConfig(byte_width=4),
        heads=ChainedHeadsConfig(byte_width=8, inner=16),
    )
    lm = LanguageModel(build_model(config, seed=1), Tokenizer(get_encoding("dense-ja")))
    options = {"law": "next", "max_new_tokens": 30, "do_sample": True, "eos_token_id": ()}
    return {draft: lm.generate(["川の"], draft=draft, **options) for draft in ("none", "heads")}


def test_surprise(drawn):
    path, texts = drawn
    two = [CharacterBits("山と", 30.0), CharacterBits("海", 0.0)]
    rows = [("one", [CharacterBits(c, 2.0) for c in ODD]), ("two", two)]
    plot_surprise(path, rows, TITLE)
    assert "one: 2.00 bits per character" in texts
    assert "two: 10.00 bits per character" in texts
    assert {printable(c) for c in ODD} <= set(texts)


def test_lines_hold_every_cell_once_and_no_more_than_fit():
    cells = [CharacterBits("山" * (1 + i % 5), 1.0) for i in range(60)]
    lines = _lines(cells)
    assert [cell for line in lines for cell in line] == cells
    sizes = [sum(len(cell.text) for cell in line) for line in lines]
    assert max(sizes) <= _COLUMNS
    assert min(sizes[:-1]) > _COLUMNS - 5
    assert _lines([CharacterBits("山" * 99, 1.0)]) == [[CharacterBits("山" * 99, 1.0)]]


def test_pieces(drawn):
    path, texts = drawn
    plot_pieces(path, [("a", [*ODD]), ("b", ["", ODD[:4], "", ODD[4:]])], TITLE)
    assert "4 forwards" in texts
    assert f"{len(ODD)} forwards" in texts


def test_staircase(drawn, outputs):
    path, texts = drawn
    plot_staircase(path, [*outputs.items()], TITLE, most=20)
    assert "none: 20 forwards" in texts
    steps = int(outputs["heads"].trace[0].forward[:20].max()) + 1
    assert f"heads: {steps} forwards" in texts
    assert "drafted by heads" in texts


def test_drafting(drawn, outputs):
    path, texts = drawn
    plot_drafting(path, [(name, output.stats) for name, output in outputs.items()], TITLE)
    for name, output in outputs.items():
        assert f"  {output.stats.forwards} forwards" in texts
        assert name in texts


def test_coupling_says_what_becomes_of_a_draft(drawn):
    path, texts = drawn
    p, q, noise = np.log([0.7, 0.2, 0.1]), np.log([0.2, 0.7, 0.1]), np.zeros(3)
    plot_coupling(path, [(p, p, noise), (p, q, noise)], ["a", "b", "c"], "two")
    assert "position 1: the draft holds" in texts
    assert "position 2: the draft (b) is replaced by a" in texts


def test_counts(drawn):
    path, texts = drawn
    plot_counts(path, [("one", np.array([3, 7]), np.array([0.4, 0.6]))], ["a", "b"], "drawn")
    assert {"one", "a", "b"} <= set(texts)


def test_findings(drawn):
    path, texts = drawn
    plot_findings(path, {"x": {"a": "passed", "b": "failed"}, "y": {"a": "skipped"}}, "found")
    assert {"x", "y", "a", "b", "passed", "failed", "skipped"} <= set(texts)


def test_words(drawn):
    path, texts = drawn
    text = "のののにに山A🐟"
    counts, encoding = count_characters([text]), get_encoding("utf8")
    plot_ranks(path, encoding, counts, TITLE)
    assert "3 bytes: 3 characters, 75.0% of the text" in texts
    assert "の" in texts
    plot_word_lengths(path, [("utf8", code_statistics(encoding, counts))], TITLE)
    assert {"75%", "12%", f"{len(text.encode()) / len(text):.2f} bytes per character"} <= set(texts)
