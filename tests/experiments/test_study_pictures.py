"""Pictures of studies: what is drawn, named, and joined."""

import pytest
from matplotlib.figure import Figure
from study.pictures import draw

CELLS = {  # cost, bits
    "plain/bytes+W1": (1, 6),
    "plain/bytes+W2": (4, 3),
    "time/bytes+W2": (5, 5),
    "plain/bpe+W1": (2, 5),
    "plain/bpe+W2": (3, 6),
    "plain/other+W1": (9, 9),
}
PLOT = {"x": "cost", "y": "bits", "xlabel": "cost", "ylabel": "bits", "colour": "model", "marker": "width"}
FAMILIES = {"bytes": "*/bytes*", "BPE": "*/bpe*", "none": "*/none*"}


@pytest.fixture
def figures(monkeypatch):
    """What was drawn."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: found.append(figure))
    return found


def means(cells=CELLS):
    def options(name):
        return dict(zip(("model", "width"), name.partition("/")[2].split("+"), strict=True))

    return {name: {"cost": x, "bits": y, "options": options(name)} for name, (x, y) in cells.items()}


def named(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def numbered(figure):
    """The points that have numbers, by number."""
    return {note.get_text(): note.xy for note in figure.axes[0].texts}


def test_every_point_is_named_once_and_the_front_is_joined(tmp_path, figures):
    draw(tmp_path / "a.png", means(), PLOT, "title")
    assert named(figures[0]) == ["bytes, W1", "bytes, W2", "bpe, W1", "bpe, W2", "other, W1"]
    [front] = [line for line in figures[0].axes[0].lines if len(line.get_xdata()) > 1]
    assert list(zip(*front.get_data(), strict=True)) == [(1, 6), (2, 5), (4, 3)]


def test_families_have_fronts_of_their_own(tmp_path, figures):
    draw(tmp_path / "a.png", means(), {**PLOT, "families": FAMILIES}, "title")
    assert numbered(figures[0]) == {"1": (1, 6), "2": (4, 3), "3": (2, 5)}
    assert named(figures[0]) == ["1  bytes, W1", "2  bytes, W2", "3  bpe, W1"]
    assert [legend.get_title().get_text() for legend in figures[0].legends] == ["bytes, 3 models", "BPE, 2 models"]


def test_a_model_has_a_point_under_each_law(tmp_path, figures):
    two = {"chain": {"cost": 1, "bits": 6}, "next": {"cost": 4, "bits": 5}}
    cells = {
        "plain/a+W1": {"laws": two, "options": {"model": "a", "width": "W1"}},
        "plain/b+W1": {"laws": {"next": {"cost": 8, "bits": 4}}, "options": {"model": "b", "width": "W1"}},
    }
    draw(tmp_path / "a.png", cells, {**PLOT, "x": "laws:*:cost", "y": "laws:*:bits", "families": {"all": "*"}}, "title")
    assert named(figures[0]) == ["1  a, W1, chain", "2  a, W1, next", "3  b, W1"]
    assert figures[0].legends[0].get_title().get_text() == "all, 2 models"


def test_more_is_better_behind_a_minus(tmp_path, figures):
    plot = {**PLOT, "x": "-cost", "families": {"all": "*"}}
    draw(tmp_path / "a.png", means({**CELLS, "time/bytes+W2": (5, 2)}), plot, "title")
    assert numbered(figures[0]) == {"1": (9, 9), "2": (5, 2)}
    assert named(figures[0]) == ["1  other, W1", "2  bytes, W2 (time)"]


def test_no_figures_no_picture(tmp_path):
    path = tmp_path / "a.png"
    draw(path, means(), PLOT, "title")
    assert path.stat().st_size
    draw(path, means(), {**PLOT, "y": "unknown"}, "title")
    assert not path.exists()
