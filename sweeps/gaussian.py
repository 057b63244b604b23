"""Gaussian process regression for a handful of noisy values, each with an error bar of its own.

Shapes: n observations, m questions, d coordinates; x_ND [n, d], ask_MD [m, d].
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

# Prior means and deviations of the logarithms: coordinates have unit range, values unit spread.
# Values that say little (few observations) leave a length near 1: smooth over the whole range.
_LENGTH, _SCALE, _NOISE = (0.0, 1.0), (0.0, 1.0), (math.log(1e-2), 1.5)
_JITTER = 1e-8
_BOUNDS_LENGTH, _BOUNDS_SCALE, _BOUNDS_NOISE = (-3.0, 3.0), (-3.0, 3.0), (-12.0, 2.0)


@dataclass(frozen=True)
class Gaussian:
    """A posterior: Matern 5/2 kernel with a length for every coordinate.

    theta: logarithms of d lengths, the scale and the variance of noise beyond the known errors.
    """

    x_ND: Array
    y_N: Array
    variance_N: Array
    theta: Array
    mean: float
    spread: float

    def predict(self, ask_MD: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the value without noise at each question."""
        factor, weights = self._solved()
        cross_MN = _kernel(_squares(ask_MD, self.x_ND), self.theta)[0]
        half = solve_triangular(factor, cross_MN.T, lower=True)
        variance = np.maximum(np.exp(self.theta[-2]) - (half * half).sum(0), 1e-10)
        return cross_MN @ weights * self.spread + self.mean, np.sqrt(variance) * self.spread

    def believing(self, pending_PD: Array) -> Gaussian:
        """As if the pending points had come out as predicted (Ginsbourger et al. 2010)."""
        if not len(pending_PD):
            return self
        guess, _ = self.predict(pending_PD)
        return Gaussian(
            np.vstack([self.x_ND, pending_PD]),
            np.concatenate([self.y_N, (guess - self.mean) / self.spread]),
            np.concatenate([self.variance_N, np.zeros(len(pending_PD))]),
            self.theta,
            self.mean,
            self.spread,
        )

    def _solved(self) -> tuple[Array, Array]:
        covariance = _kernel(_squares(self.x_ND, self.x_ND), self.theta)[0]
        noise = self.variance_N + np.exp(self.theta[-1]) + _JITTER
        factor, _ = cho_factor(covariance + np.diag(noise), lower=True)
        return factor, cho_solve((factor, True), self.y_N)


def fit(x_ND: Array, values_N: Array, errors_N: Array) -> Gaussian:
    """The most probable lengths, scale and noise. errors: standard errors that are known."""
    mean, spread = float(values_N.mean()), max(float(values_N.std()), 1e-9)
    y_N, variance_N = (values_N - mean) / spread, (errors_N / spread) ** 2
    d = x_ND.shape[1]
    prior = np.array([[_LENGTH] * d + [_SCALE, _NOISE]])[0].T
    bounds = [_BOUNDS_LENGTH] * d + [_BOUNDS_SCALE, _BOUNDS_NOISE]
    loss = _loss(_squares(x_ND, x_ND), y_N, variance_N, prior)
    found = minimize(
        loss, prior[0], jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    )
    return Gaussian(x_ND, y_N, variance_N, np.asarray(found.x), mean, spread)


def _squares(a_ND: Array, b_MD: Array) -> Array:
    return np.asarray((a_ND[:, None] - b_MD[None]) ** 2)


def _kernel(squares_NMD: Array, theta: Array) -> tuple[Array, Array]:
    """The kernel, and the part that its derivatives by the lengths have in common."""
    q = np.sqrt(5 * (squares_NMD @ np.exp(-2 * theta[:-2])))
    decay = np.exp(theta[-2] - q)
    return decay * (1 + q + q * q / 3), decay * (1 + q) * (5 / 3)


def _loss(
    squares: Array, y_N: Array, variance_N: Array, prior: Array
) -> Callable[[Array], tuple[float, Array]]:
    """The negative logarithm of posterior density of theta, with its gradient."""

    def loss(theta: Array) -> tuple[float, Array]:
        kernel, common = _kernel(squares, theta)
        noise = np.diag(variance_N + np.exp(theta[-1]) + _JITTER)
        factor, _ = cho_factor(kernel + noise, lower=True)
        weights = cho_solve((factor, True), y_N)
        apart = (theta - prior[0]) / prior[1]
        value = 0.5 * (y_N @ weights + apart @ apart) + np.log(np.diag(factor)).sum()
        rest = cho_solve((factor, True), np.eye(len(y_N))) - np.outer(weights, weights)
        slope = apart / prior[1]
        lengths = 0.5 * np.einsum("ij,ijd->d", rest * common, squares)
        slope[:-2] += lengths * np.exp(-2 * theta[:-2])
        slope[-2] += 0.5 * (rest * kernel).sum()
        slope[-1] += 0.5 * np.trace(rest) * np.exp(theta[-1])
        return float(value), slope

    return loss
