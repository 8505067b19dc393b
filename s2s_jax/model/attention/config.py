"""The settings of attention: five independent choices, and the numbers that some of them read."""

import dataclasses
from typing import Literal

from s2s_jax.validation import at_least, check_fields, one_of

ScoreName = Literal[
    "none",
    "last-state",
    "uniform",
    "dot",
    "scaled-dot",
    "cosine",
    "linear",
    "general",
    "scaled-general",
    "biaffine",
    "tanh-dot",
    "concat",
    "additive",
    "additive-layer-norm",
    "normalized-additive",
    "location",
    "location-aware",
    "dynamic-convolution",
    "gaussian-mixture",
    "gaussian-mixture-v2",
]
NormalizerName = Literal[
    "softmax",
    "exponential",
    "sigmoid",
    "smoothed-sigmoid",
    "sparsemax",
    "entmax-1.5",
    "alpha-entmax",
    "hardmax",
    "gumbel-softmax",
    "fusedmax",
    "constrained-softmax",
    "top-k",
]
HistoryName = Literal[
    "none",
    "previous",
    "coverage",
    "previous-and-coverage",
    "coverage-fertility",
    "coverage-tanh",
    "coverage-gru",
    "intra-temporal",
]
ConstraintName = Literal[
    "none",
    "wait-k",
    "local-m",
    "local-p",
    "window",
    "monotonic",
    "mocha",
    "milk",
    "stepwise",
    "forward",
    "forward-agent",
]
ValuesName = Literal["same", "projected", "split"]

NOT_ATTENDING = ("none", "last-state")  # scores of models whose context, if there is one, is fixed for a sentence
VALUES = ("same", "projected", "split")
SMALLEST = {
    **dict.fromkeys(("size", "heads", "positions", "mixtures", "top_k", "filters", "coverage_size"), 1),
    **dict.fromkeys(("mocha_chunk", "wait_k", "alpha"), 1),
    **dict.fromkeys(("fusedmax_strength", "kernel", "window", "monotonic_noise"), 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How the decoder attends to the source; `s2s attention` lists the choices with their formulas."""

    score: ScoreName = "general"
    """How well a decoder state matches an encoder state. `none` and `last-state` are models without attention: no
    context, or the encoder's last state at every step; `uniform` attends to all tokens alike, whatever the state."""
    normalizer: NormalizerName = "softmax"
    """What turns scores into weights."""
    history: HistoryName = "none"
    """What is remembered of earlier alignments and shown to the score."""
    constraint: ConstraintName = "none"
    """Which source tokens may be attended to."""
    heads: int = 1
    """Number of attention heads, each with its own queries, keys and values, `size / heads` wide."""
    values: ValuesName = "same"
    """What is averaged: `same` (the encoder states, from which the keys are made too), `projected` (a learned map of
    them), or `split` (the second half of each state; keys are made of the first). Daniluk et al. 2017,
    arXiv:1702.04521."""
    size: int = 256
    """Width of the space in which query and memory are compared, for scores that have one; of all heads together."""
    bias: bool = False
    """Additive scores: add a bias inside the tanh, as Nematus and Marian do."""
    positions: int = 512
    """Score `location`: the largest number of source tokens."""
    mixtures: int = 5
    """Scores `gaussian-mixture` and `gaussian-mixture-v2`: number of components."""
    temperature: float = 1.0
    """Normalizers `softmax` and `gumbel-softmax`: scores are divided by it."""
    alpha: float = 1.5
    """Normalizer `alpha-entmax`: 1 is softmax, 2 is sparsemax."""
    learned_alpha: bool = False
    """Normalizer `alpha-entmax`: learn alpha, starting from `alpha`."""
    fusedmax_strength: float = 0.1
    """Normalizer `fusedmax`: strength of the penalty on differences between neighboring weights."""
    top_k: int = 5
    """Normalizer `top-k`: number of tokens that share the weight."""
    kernel: int = 0
    """Width in tokens of the convolution over the history's features; 0 for none, or for the score's default (31 for
    `location-aware`, 21 for `dynamic-convolution`)."""
    filters: int = 10
    """Channels of that convolution."""
    coverage_size: int = 8
    """Histories `coverage-tanh` and `coverage-gru`: width of a token's coverage vector."""
    fertility: float = 2.0
    """Histories `coverage` and `coverage-fertility`: the largest total weight of one source token."""
    window: int = 10
    """Constraints `local-m`, `local-p` and `window`: tokens on each side of the center. Architectures
    `hard-first-order` and `hard-monotonic`: the longest distance between one position and the next with a potential of
    its own, which longer ones share; 0 for transitions that depend on the distance only by never going back."""
    renormalized: bool = False
    """Constraint `local-p`: rescale the weights to a sum of 1, which the paper does not do."""
    mocha_chunk: int = 4
    """Constraint `mocha`: tokens in a chunk of soft attention, which ends at the chosen token."""
    wait_k: int = 3
    """Constraint `wait-k`: source tokens that are read before the first target token is written."""
    monotonic_noise: float = 1.0
    """Monotonic constraints: standard deviation of the noise added to the scores in training, which makes the choices
    discrete."""
    monotonic_bias: float = 0.0
    """Monotonic constraints: what is added to the scores at first, and learned from there; a large negative number
    moves on to later tokens. Raffel et al. 2017 take -1 or -4. 0 for the constraint's own: -1, and 3.5 for
    `stepwise`."""
    monotonic_hard: bool = True
    """Monotonic constraints: choose one token where there is no noise (validation, search); `false` keeps the
    expectation."""

    def __post_init__(self):
        check_fields(self, "model.attention")
        one_of("model.attention.values", self.values, VALUES)
        for name, least in SMALLEST.items():
            at_least(f"model.attention.{name}", getattr(self, name), least)
        if self.kernel and self.kernel % 2 == 0:
            raise ValueError(f"model.attention.kernel must be odd or 0, got {self.kernel}; use {self.kernel + 1}.")
        for name in ("temperature", "fertility"):
            if not getattr(self, name) > 0:
                raise ValueError(f"model.attention.{name} must be above 0, got {getattr(self, name)}")

    @property
    def attends(self) -> bool:
        """Whether there are weights of the source tokens."""
        return self.score not in NOT_ATTENDING
