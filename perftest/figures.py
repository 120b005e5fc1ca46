"""Figures of a classification from its scores, labels and weights. Pure.

The ROC curve is exact: one point for each distinct score, so that samples of equal score, of
whatever class, are taken together. The area under it is the sum of trapezia, which is the weighted
probability that a sample of class 1 scores higher than one of class 0, ties counting one half
(Fawcett 2006, "An introduction to ROC analysis").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """Weighted rates from (0, 0) to (1, 1), by falling threshold; float64, of equal length."""

    false_positive_rates: np.ndarray
    true_positive_rates: np.ndarray


def roc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Curve | None:
    """The ROC curve of class 1 against class 0. All of shape (samples,).

    None where one of the classes has no weight, or a score is no number.
    """
    positive, negative = _masses(labels, weights)
    if positive.sum() <= 0 or negative.sum() <= 0 or not np.isfinite(scores).all():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    true, false = np.cumsum(positive[order])[ends], np.cumsum(negative[order])[ends]
    return Curve(
        np.concatenate([[0.0], false / false[-1]]), np.concatenate([[0.0], true / true[-1]])
    )


def area(curve: Curve) -> float:
    """The area under the curve."""
    x, y = curve.false_positive_rates, curve.true_positive_rates
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """At most `most` points of the curve, half of them where there are fewest false positives.

    What lies on a straight line between its neighbours goes first, which changes nothing. If that
    is not enough, the first half of the points stays as it is, so that the corner that a search for
    rare events looks at is exact; of the others some stay, a quarter at equal steps of the log
    of the false positive rate and a quarter at equal steps of the true positive rate.
    """
    corners = _corners(curve)
    x, y = corners.false_positive_rates, corners.true_positive_rates
    if len(x) <= most:
        return corners
    half, quarter = most // 2, most // 4 - 1
    wanted = np.concatenate(
        [
            np.arange(half),
            [len(x) - 1],
            np.searchsorted(x, np.geomspace(max(x[half], 1e-12), 1.0, quarter)),
            np.searchsorted(y, np.linspace(y[half], 1.0, quarter)),
        ]
    )
    kept = np.unique(np.minimum(wanted, len(x) - 1))
    return Curve(x[kept], y[kept])


def _corners(curve: Curve) -> Curve:
    """The curve without the points in the middle of what is level or upright."""
    x, y = curve.false_positive_rates, curve.true_positive_rates
    right, up = np.diff(x) > 0, np.diff(y) > 0
    bends = (right[1:] | right[:-1]) & (up[1:] | up[:-1])
    kept = np.concatenate([[True], bends, [True]])
    return Curve(x[kept], y[kept])


def cut_point(taken: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """(false, true) positive rate of a selection by hand: the samples where `taken` is not 0.

    Empty where one of the classes has no weight.
    """
    positive, negative = _masses(labels, weights)
    if positive.sum() <= 0 or negative.sum() <= 0:
        return ()
    return tuple(float(mass[taken != 0].sum() / mass.sum()) for mass in (negative, positive))


def _masses(labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weight of each sample if it is of class 1, and if it is of class 0."""
    weights = weights.astype(np.float64)
    return np.where(labels == 1, weights, 0.0), np.where(labels == 0, weights, 0.0)
