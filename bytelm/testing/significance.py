"""Significance tests, with p-values in float64."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike


def chi_square_p(observed: ArrayLike, probabilities: ArrayLike, at_least: float = 5.0) -> float:
    """P-value of counts (cells,) against a fully given distribution (Pearson 1900).

    Cells expected below ``at_least`` are pooled. Counts where the distribution is zero have the p-value 0.
    """
    counts, shares = np.asarray(observed, float).ravel(), np.asarray(probabilities, float).ravel()
    expected = shares * counts.sum()
    assert abs(shares.sum() - 1) < 1e-9
    if counts[shares == 0].any():
        return 0.0
    large = expected >= at_least
    counts = np.append(counts[large], counts[~large].sum())
    expected = np.append(expected[large], expected[~large].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert len(expected) > 1, "too few counts for a test"
    half_freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half_freedom, torch.tensor(statistic / 2, dtype=torch.float64)))


def kolmogorov_p(values: ArrayLike) -> float:
    """Asymptotic p-value of the Kolmogorov-Smirnov test that the values are uniform on (0, 1)."""
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    gap = max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max())
    terms = np.arange(1, 101)
    return float(min(1.0, 2 * ((-1.0) ** (terms - 1) * np.exp(-2 * n * (terms * gap) ** 2)).sum()))


def total_variation(observed: ArrayLike, probabilities: ArrayLike) -> tuple[float, float]:
    """Half the L1 distance of counts, as shares, from a distribution; and what sampling alone makes it on average.

    The second number takes every cell as normal: the mean of \\|x\\| is sqrt(2 / pi) times the deviation.
    """
    counts, shares = np.asarray(observed, float).ravel(), np.asarray(probabilities, float).ravel()
    by_chance = math.sqrt(2 / math.pi) * np.sqrt(shares * (1 - shares) / counts.sum()).sum() / 2
    return float(np.abs(counts / counts.sum() - shares).sum() / 2), float(by_chance)
