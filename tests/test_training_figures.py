"""Area under the ROC curve, the curve as it is sent, the point of a selection by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from perftest import figures
from perftest.figures import Curve


def samples(count: int, seed: int, levels: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that know something of the labels, with `levels` distinct values at most."""
    randoms = np.random.default_rng(seed)
    labels = (randoms.random(count) < 0.3).astype(np.int64)
    scores = (labels + randoms.normal(0, 1.5, count)).astype(np.float32)
    if levels:
        scores = np.round(scores * levels / 8).astype(np.float32)
    weights = np.where(labels == 1, 1e-3, 1.0) * randoms.exponential(1.0, count)
    return scores, labels, weights.astype(np.float32)


def curve_of(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Curve:
    found = figures.roc(scores, labels, weights)
    assert found is not None
    return found


@pytest.mark.parametrize("levels", [None, 1, 2, 3, 20])
@pytest.mark.parametrize("count", [2, 10, 1000, 50_000])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_area_under_the_curve_is_scikit_learns(
    count: int, levels: int | None, weighted: bool
) -> None:
    scores, labels, weights = samples(count, seed=count, levels=levels)
    labels[:2] = 0, 1
    if not weighted:
        weights = np.ones(count, np.float32)
    mine = figures.area(curve_of(scores, labels, weights))
    theirs = roc_auc_score(labels, scores, sample_weight=weights)
    assert mine == pytest.approx(theirs, abs=1e-6)


def test_equal_scores_say_nothing() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    curve = curve_of(np.zeros(5, np.float32), labels, np.ones(5, np.float32))
    assert figures.area(curve) == 0.5
    assert curve.false_positive_rates.tolist() == [0, 1]


def test_there_is_no_curve_of_one_class_alone_nor_of_no_numbers() -> None:
    ones = np.ones(3, np.float32)
    assert figures.roc(ones, np.array([1, 1, 1]), ones) is None
    assert figures.roc(ones, np.array([0, 1, 1]), np.array([1, 0, 0], np.float32)) is None
    assert figures.roc(np.array([1, np.nan, 2]), np.array([0, 1, 1]), ones) is None


def test_a_thinned_curve_keeps_the_corner_of_few_false_positives() -> None:
    curve = curve_of(*samples(200_000, seed=3, levels=None))
    thin = figures.thinned(curve)
    x, y = thin.false_positive_rates, thin.true_positive_rates
    assert len(x) <= figures.MOST_POINTS < len(curve.false_positive_rates)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    assert figures.area(thin) == pytest.approx(figures.area(curve), abs=1e-4)
    for rate in (1e-4, 1e-3, 1e-2):
        exact = np.interp(rate, curve.false_positive_rates, curve.true_positive_rates)
        assert np.interp(rate, x, y) == pytest.approx(exact, rel=0.02)
    assert (x < 1e-2).sum() > 900


def test_a_short_curve_loses_only_what_lies_on_straight_lines() -> None:
    curve = curve_of(*samples(300, seed=1, levels=None))
    thin = figures.thinned(curve)
    assert len(thin.false_positive_rates) < len(curve.false_positive_rates)
    assert figures.area(thin) == pytest.approx(figures.area(curve), abs=1e-12)


def test_a_selection_by_hand_is_a_point_of_two_weighted_rates() -> None:
    taken = np.array([1, 0, 1, 0, 1], np.float32)
    labels = np.array([0, 0, 1, 1, 1])
    weights = np.array([1, 3, 1, 2, 1], np.float32)
    assert figures.cut_point(taken, labels, weights) == (0.25, 0.5)
    assert figures.cut_point(taken, np.ones(5, np.int64), weights) == ()


def test_a_million_samples_take_no_time_to_speak_of() -> None:
    scores, labels, weights = samples(1_000_000, seed=4, levels=None)
    started = time.process_time()
    figures.thinned(curve_of(scores, labels, weights))
    assert time.process_time() - started < 5
