"""The picture of decoding: every bar and line is where its figure is, and a PNG comes out."""

from bytelm.evaluation import decoding_plots
from bytelm.evaluation.decoding_plots import plot_decoding

SPEEDS = [
    (way, batch, temperature, 10.0 * batch + i)
    for batch in (8, 1)
    for temperature in (0.7, 0.0)
    for i, way in enumerate(["next none", "chain none"])
]
RIVALS = [("transformers", 1, 7.0), ("transformers", 8, 70.0), ("transformers lookup", 1, 9.0)]


def draw(monkeypatch, path, *arguments, **options):
    """The panels of a picture."""
    figures = []

    class Kept(decoding_plots.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(decoding_plots, "Figure", Kept)
    plot_decoding(path, *arguments, **options)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figures[0].axes


def bars(axes, names):
    """Length of every bar by its label and its row's name."""
    return {
        (container.get_label(), names[round(bar.get_y() + bar.get_height() / 2)]): bar.get_width()
        for container in axes.containers
        for bar in container
    }


def test_bars_and_lines(monkeypatch, tmp_path):
    lines = [("next heads", 0.0, [0.9, 0.5]), ("next heads", 0.7, [0.8, 0.4, 0.1])]
    greedy, warm, accepted = draw(monkeypatch, tmp_path / "a.png", SPEEDS, RIVALS, lines, "山の model", note="a note")
    assert [axes.get_title() for axes in (greedy, warm)] == ["T = 0 (greedy)", "T = 0.7"]
    names = [label.get_text() for label in greedy.get_yticklabels()]
    ours = {("batch 1", "next none"): 10, ("batch 1", "chain none"): 11, ("batch 8", "next none"): 80}
    ours["batch 8", "chain none"] = 81
    assert bars(warm, names) == ours
    assert bars(greedy, names) == ours | {
        ("transformers, batch 1", "transformers"): 7,
        ("transformers, batch 8", "transformers"): 70,
        ("transformers, batch 1", "transformers lookup"): 9,
    }
    assert [list(line.get_ydata()) for line in accepted.get_lines()] == [shares for *_, shares in lines]
    assert [list(line.get_xdata()) for line in accepted.get_lines()] == [[1, 2], [1, 2, 3]]


def test_without_rivals_drafts_or_characters(monkeypatch, tmp_path):
    speeds = [("next none", 1, 0.0, 0.0)]
    (axes,) = draw(monkeypatch, tmp_path / "a.png", speeds, [], [], "random", unit="symbols")
    assert axes.get_xlabel() == "symbols per second"
    assert bars(axes, ["next none"]) == {("batch 1", "next none"): 0.0}
