"""What can be chosen about attention? Five axes, independent of each other, and the numbers that some choices need.

The names are checked where the tables are (`attention.check`), so that each axis may import this file.
"""

import dataclasses

from s2s_jax.validation import at_least, check_fields, one_of

VALUES = ("same", "projected", "split")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How the decoder looks at the source; `s2s attention` lists the choices with their formulas."""

    score: str = "general"
    """How well a decoder state fits an encoder state; none is the thought vector alone."""
    normalizer: str = "softmax"
    """What turns scores into weights."""
    history: str = "none"
    """What is remembered of earlier alignments, and shown to the score."""
    constraint: str = "none"
    """Where attention may look at all."""
    heads: int = 1
    """Attentions side by side, each with queries, keys and values of its own, `size / heads` wide."""
    values: str = "same"
    """What is averaged: same (the encoder states, which are the keys' source too), projected (a map of them), or split
    (the second half of each state, the first being for the keys). Daniluk et al. 2017, arXiv:1702.04521."""
    size: int = 256
    """Width of the space in which query and memory meet, for scores that have one; of all heads together."""
    bias: bool = False
    """Additive scores: a bias inside the tanh, as Nematus and Marian have it."""
    positions: int = 512
    """Score location: the most source tokens that can be told apart by position."""
    mixtures: int = 5
    """Scores gaussian-mixture: components."""
    temperature: float = 1.0
    """Normalizers softmax and gumbel-softmax: scores are divided by it."""
    alpha: float = 1.5
    """Normalizer alpha-entmax: 1 is softmax, 2 sparsemax."""
    learned_alpha: bool = False
    """Normalizer alpha-entmax: alpha is learned, from that value on."""
    fusedmax_strength: float = 0.1
    """Normalizer fusedmax: how strongly neighbors are drawn to one weight."""
    top_k: int = 5
    """Normalizer top-k: how many tokens share the weight."""
    kernel: int = 0
    """Width of the convolution over what the history says; 0 for none, or for the score's own (31 or 21 tokens)."""
    filters: int = 10
    """Channels of that convolution."""
    coverage_size: int = 8
    """Histories coverage-tanh and coverage-gru: numbers a token."""
    fertility: float = 2.0
    """Histories coverage and coverage-fertility: the most weight that one token may get in all."""
    window: int = 10
    """Constraints local-m, local-p and window: tokens to either side of the center."""
    renormalized: bool = False
    """Constraint local-p: the weights are brought back to a sum of 1, which the paper does not do."""
    mocha_chunk: int = 4
    """Constraint mocha: tokens that are looked at softly, up to the one that was chosen."""
    wait_k: int = 3
    """Constraint wait-k: source tokens read before the first target token is written."""
    monotonic_noise: float = 1.0
    """Monotonic constraints: standard deviation of what is added to the scores in training, so that choices sharpen."""
    monotonic_hard: bool = True
    """Monotonic constraints: without noise (validation, search) one token is chosen; false keeps the expectation."""

    def __post_init__(self):
        check_fields(self, "model.attention")
        one_of("model.attention.values", self.values, VALUES)
        for name in (
            "size",
            "heads",
            "positions",
            "mixtures",
            "top_k",
            "filters",
            "coverage_size",
            "mocha_chunk",
            "wait_k",
        ):
            at_least(f"model.attention.{name}", getattr(self, name), 1)
        for name in ("fusedmax_strength", "kernel", "window", "monotonic_noise"):
            at_least(f"model.attention.{name}", getattr(self, name), 0)
        if self.kernel and self.kernel % 2 == 0:
            raise ValueError(
                f"model.attention.kernel must be odd, so that a token stands in its middle, got {self.kernel}"
            )
        at_least("model.attention.alpha", self.alpha, 1)
        for name in ("temperature", "fertility"):
            if not getattr(self, name) > 0:
                raise ValueError(f"model.attention.{name} must be above 0, got {getattr(self, name)}")
        if self.learned_alpha and self.alpha == 1:
            raise ValueError("model.attention.alpha must be above 1 where it is learned, got 1.0; start at 1.5.")
