"""Significance tests, with p-values in float64."""

import numpy as np
import torch


def chi_square_p(observed, probabilities, at_least=5.0):
    """P-value of counts (cells,) against a fully given distribution; cells expected below ``at_least`` are pooled."""
    observed, probabilities = np.asarray(observed, float).ravel(), np.asarray(probabilities, float).ravel()
    expected = probabilities * observed.sum()
    assert abs(probabilities.sum() - 1) < 1e-9
    assert not observed[probabilities == 0].any(), "a symbol of probability zero"
    large = expected >= at_least
    observed = np.append(observed[large], observed[~large].sum())
    expected = np.append(expected[large], expected[~large].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    return float(torch.special.gammaincc(torch.tensor(freedom / 2).double(), torch.tensor(statistic / 2).double()))


def kolmogorov_p(values):
    """Asymptotic p-value of the Kolmogorov-Smirnov test that the values are uniform on (0, 1)."""
    ordered, n = np.sort(values), len(values)
    gap = max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max())
    terms = np.arange(1, 101)
    return float(min(1.0, 2 * ((-1.0) ** (terms - 1) * np.exp(-2 * n * (terms * gap) ** 2)).sum()))
