"""Do two ways of saying which source tokens matter agree, such as an alignment and what taking a token away does?

What is known: in recurrent classifiers attention weights agree weakly with gradients and with removal, and other
weights often give the same answer (Jain & Wallace 2019, arXiv:1902.10186). That alone does not make them no
explanation: weights found from outside are not what a model learns (Wiegreffe & Pinter 2019, arXiv:1908.04626).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import kendalltau


class Agreement(NamedTuple):
    """How two matrices agree, target token by target token."""

    tau: Float[np.ndarray, " T"]  # Kendall's, -1 to 1, ties counted (tau-b); NaN where a row has but one value
    top: Bool[np.ndarray, " T"]  # whether the same source token has most


def agreement(alignment: Float[np.ndarray, "T S"], other: Float[np.ndarray, "T S"]) -> Agreement:
    """Rank correlation of each row, and whether both have their largest value in one place (the first of equals)."""
    taus = [_tau(one, two) for one, two in zip(alignment, other, strict=True)]
    return Agreement(np.array(taus, np.float64), alignment.argmax(1) == other.argmax(1))


def _tau(one: Float[np.ndarray, " S"], other: Float[np.ndarray, " S"]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.asarray(kendalltau(one, other))[0])
