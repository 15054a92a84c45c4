"""A picture of what checks found: a matrix of subjects and checks. PNG, no display needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bytelm.evaluation.plots import japanese_font

_COLOURS = {"passed": "#cfe3d0", "failed": "#c44e52", "skipped": "#eceff3"}
_INK = "#1f2933"


def plot_findings(path: Path, outcomes: Mapping[str, Mapping[str, str]], title: str) -> None:
    """What became of each check of each subject, a subject to a row and a check to a column.

    Args:
        path: PNG to write.
        outcomes: subject to check to ``passed``, ``failed`` or ``skipped``.
        title: what was checked.
    """
    checks: Sequence[str] = list(dict.fromkeys(check for found in outcomes.values() for check in found))
    figure = Figure(figsize=(2.2 + 0.52 * len(checks), 1.9 + 0.27 * len(outcomes)), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    axes = figure.subplots()
    for y, found in enumerate(outcomes.values()):
        for x, check in enumerate(checks):
            if check in found:
                colour = _COLOURS[found[check]]
                axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    axes.set(xlim=(0, len(checks)), ylim=(len(outcomes), 0))
    axes.set_xticks([x + 0.5 for x in range(len(checks))], checks, rotation=35, ha="left", fontsize=9)
    axes.set_yticks([y + 0.5 for y in range(len(outcomes))], list(outcomes), fontsize=9, color=_INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    used = {outcome for found in outcomes.values() for outcome in found.values()}
    handles = [Patch(facecolor=colour, label=name) for name, colour in _COLOURS.items() if name in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
