"""Pareto fronts against all pairs, and points where their figures are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.evaluation import comparison_plots
from bytelm.evaluation.comparison_plots import ModelPoint, pareto_front, plot_pareto

FEW = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(FEW, FEW), max_size=12))
def test_the_front_is_what_no_other_beats(costs):
    def beaten(point):
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in costs)

    front = pareto_front(costs)
    assert sorted(front) == [i for i, point in enumerate(costs) if not beaten(point)]
    assert [costs[i][0] for i in front] == sorted(costs[i][0] for i in front)


POINTS = [
    ModelPoint("山の model", "chain", 4.9, 3e6, {"none": 200.0, "lookup": 240.0}),
    ModelPoint("山の model", "next", 4.8, 9e6, {"none": 50.0, "heads": 90.0, "lookup": 0.0}),
    ModelPoint("tokens $x_1$", "next", 5.5, 4e7, {"none": 400.0}),
]


@pytest.fixture
def draw(monkeypatch, tmp_path):
    def call(points):
        figures = []

        class Kept(comparison_plots.Figure):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                figures.append(self)

        monkeypatch.setattr(comparison_plots, "Figure", Kept)
        plot_pareto(tmp_path / "pareto.png", points, "the text, how")
        assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
        return figures[0]

    return call


def points_of(axes):
    """(x, y, marker, filled) of every mark."""
    return sorted(
        (line.get_xdata()[0], line.get_ydata()[0], line.get_marker(), line.get_markerfacecolor() != "white")
        for line in axes.get_lines()
        if line.get_marker() not in ("None", None)
    )


def front_of(axes):
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_points_and_fronts(draw):
    figure = draw(POINTS)
    work, speed = figure.axes
    assert points_of(work) == [(3e6, 4.9, "D", True), (9e6, 4.8, "o", True), (4e7, 5.5, "o", True)]
    assert front_of(work) == [(3e6, 4.9), (9e6, 4.8)]
    assert points_of(speed) == [
        *((50.0, 4.8, "o", True), (90.0, 4.8, "o", False)),
        *((200.0, 4.9, "D", True), (240.0, 4.9, "D", False), (400.0, 5.5, "o", True)),
    ]
    assert front_of(speed) == [(400.0, 5.5), (240.0, 4.9), (90.0, 4.8)]
    assert [text.get_text() for text in speed.texts] == ["lookup", "heads", "plain"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["山の model", "tokens $x_1$", "law chain", "law next", "no other is better in both"]


def test_without_speeds_there_is_one_panel(draw):
    (axes,) = draw([ModelPoint("m", "next", 5.0, 1e6, {})]).axes
    assert "operations" in axes.get_xlabel()
    (axes,) = draw([ModelPoint("m", "next", 5.0, 1e6, {"none": 0.0})]).axes
