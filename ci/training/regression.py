"""Softmax regression on a sparse matrix with soft targets, and what is done with its scores."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize

Floats: TypeAlias = npt.NDArray[np.float64]


def softmax(scores: Floats) -> Floats:
    """Probabilities, row by row."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result


def fit(
    matrix: sparse.csr_matrix, targets: Floats, freedom: float, iterations: int = 150
) -> tuple[Floats, Floats]:
    """Weights (columns × classes) and biases.

    A row of targets holds how much the text counts for each class. freedom is the inverse of the
    L2 penalty. Deterministic for the same input on the same machine and library versions.
    """
    columns, classes = matrix.shape[1], targets.shape[1]
    transposed = matrix.T.tocsr()
    totals = targets.sum(axis=1, keepdims=True)
    scale = 1 / totals.sum()

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[:-classes].reshape(columns, classes), flat[-classes:]
        scores = matrix @ weights + bias
        top = scores.max(axis=1, keepdims=True)
        logs = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        slope = np.exp(logs) * totals - targets
        value = -freedom * (targets * logs).sum() + 0.5 * (weights**2).sum()
        gradient = np.concatenate(
            [(freedom * (transposed @ slope) + weights).ravel(), freedom * slope.sum(axis=0)]
        )
        return value * scale, gradient * scale

    found = minimize(
        loss,
        np.zeros((columns + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "maxcor": 8},
    ).x
    return found[:-classes].reshape(columns, classes), found[-classes:]
