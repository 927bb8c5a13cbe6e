"""Logistic regression by Newton's method, with weights and a ridge: the one that maps, measures and models share."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit

from xt.calibration.apply.retrieval import Floats
from xt.calibration.fit.temperature import STEPS, TOLERANCE


def fit_logistic(
    features: Floats, right: Floats, *, ridge: float = 0.1, weight: Floats | None = None
) -> tuple[Floats, float]:
    """Fit a logistic regression by Newton's method: weights (d,) and bias.

    Args:
        features: (n, d), of like scales.
        right: (n,) of 0/1, both of them there.
        ridge: weight of half the squared weights against the sum of the losses (scikit-learn's 1 / C).
        weight: (n,) of each loss in the sum; None: 1 each.
    """
    counts = np.ones(len(right)) if weight is None else np.asarray(weight, np.float64)
    design = np.column_stack([features, np.ones(len(right))])
    penalty = np.full(design.shape[1], ridge)
    penalty[-1] = 0.0
    x = np.zeros(design.shape[1])
    x[-1] = math.log((counts @ right) / (counts @ (1 - right)))

    def loss(x: Floats) -> float:
        z = design @ x
        return float(counts @ (np.logaddexp(0, z) - z * right) + 0.5 * penalty @ x**2)

    value = loss(x)
    for _ in range(STEPS):
        p = expit(design @ x)
        gradient = design.T @ (counts * (p - right)) + penalty * x
        hessian = design.T @ (design * (counts * p * (1 - p))[:, None]) + np.diag(penalty)
        hessian += (1e-12 * np.abs(hessian).max() + 1e-12) * np.eye(len(x))  # features that tell the same can be solved
        step = np.linalg.solve(hessian, gradient)
        gain, share = float(gradient @ step), 1.0
        while (after := loss(x - share * step)) > value - 1e-4 * share * gain and share > 1e-6:
            share /= 4
        if after >= value:
            break
        x, value = x - share * step, after
        if gain < TOLERANCE * counts.sum():
            break
    return x[:-1], float(x[-1])


def fit_standardised(features: Floats, right: Floats) -> tuple[Floats, float, Floats, Floats]:
    """Fit a logistic regression on features (n, d) scaled to mean 0 and variance 1: weights, bias, means and scales."""
    mean, scale = features.mean(0), np.maximum(features.std(0), 1e-9)
    weights, bias = fit_logistic((features - mean) / scale, right)
    return weights, bias, mean, scale
