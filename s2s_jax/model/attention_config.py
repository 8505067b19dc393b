"""What can be chosen about attention? Five axes, independent of each other, and the numbers that some choices need.

The names are checked where the tables are (`attention.check`), so that each axis may import this file.
"""

import dataclasses

from s2s_jax.choices import at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How the decoder looks at the source; `s2s attention` lists the choices with their formulas."""

    score: str = "general"
    """How well a decoder state fits an encoder state; none is the thought vector alone."""
    normaliser: str = "softmax"
    """What turns scores into weights."""
    size: int = 256
    """Width of the space in which query and memory meet, for scores that have one."""
    bias: bool = False
    """Additive scores: a bias inside the tanh, as Nematus and Marian have it."""
    positions: int = 512
    """Score location: the most source tokens that can be told apart by position."""
    temperature: float = 1.0
    """Normalisers softmax and gumbel-softmax: scores are divided by it."""
    alpha: float = 1.5
    """Normaliser alpha-entmax: 1 is softmax, 2 sparsemax."""
    fusing: float = 0.1
    """Normaliser fusedmax: how strongly neighbours are drawn to one weight."""
    top: int = 5
    """Normaliser top-k: how many tokens share the weight."""

    def __post_init__(self):
        at_least("attention.size", self.size, 1)
        at_least("attention.positions", self.positions, 1)
        at_least("attention.top", self.top, 1)
        at_least("attention.fusing", self.fusing, 0)
        at_least("attention.alpha", self.alpha, 1)
        if not self.temperature > 0:
            raise ValueError(f"attention.temperature must be above 0, got {self.temperature}")
