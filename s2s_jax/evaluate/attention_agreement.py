"""Agreement of two measures of the importance of source tokens, such as attention weights and occlusion.

In recurrent classifiers attention weights agree weakly with gradients and with removal, and other weights often give
the same prediction (Jain & Wallace 2019, arXiv:1902.10186). That alone does not rule them out as an explanation:
weights found adversarially are not what a model learns (Wiegreffe & Pinter 2019, arXiv:1908.04626).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Agreement(NamedTuple):
    """How two matrices agree, per target token."""

    tau: Float[np.ndarray, " T"]  # Kendall's tau-b, -1 to 1; NaN where a row has only one value
    top: Bool[np.ndarray, " T"]  # whether both are largest at the same source token


def measure_agreement(alignment: Float[np.ndarray, "T S"], other: Float[np.ndarray, "T S"]) -> Agreement:
    """Rank correlation per row, and whether both have their largest value at one place (the first of equals)."""
    taus = [_tau(first, second) for first, second in zip(alignment, other, strict=True)]
    return Agreement(np.array(taus, np.float64), alignment.argmax(1) == other.argmax(1))


def _tau(first: Float[np.ndarray, " S"], second: Float[np.ndarray, " S"]) -> float:
    from scipy.stats import kendalltau  # slow to import

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.asarray(kendalltau(first, second))[0])
