"""The settings of sequence-level training, and what they need besides to be computed."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.training.schedules import ProbabilityScheduleName, check_schedule
from s2s_jax.training.sequence_level.rewards import REWARDS, Reward, host_reward
from s2s_jax.validation import at_least, check_fields, one_of

CandidatesName = Literal["sample", "beam"]
BaselineName = Literal["none", "batch", "leave-one-out"]
OF_TEXT = "text:"  # before the name of a metric, in sequence_training.reward

# (candidate ids [N, W], target ids [N, T]) -> rewards [N], on the host
TextReward = Callable[[Int[np.ndarray, "N W"], Int[np.ndarray, "N T"]], Float[np.ndarray, " N"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceTrainingConfig:
    """What the objectives minimum-risk, reinforce, self-critical and raml read (`loss.objective`)."""

    reward: str = "edit"
    """What an output is worth. On token ids, within the compiled step: exact_match; edit, 1 - edit distance / tokens
    of the target (1 - PER, 1 - WER); bleu, sentence BLEU+1 (Lin & Och 2004); an unknown token matches nothing. On
    text, on the host: text:METRIC, such as text:chrf, any metric of translations, scaled so that 1 is perfect."""
    samples: int = 8
    """Outputs per sentence: samples, hypotheses of a beam, or edited targets (raml)."""
    candidates: CandidatesName = "sample"
    """minimum-risk: where candidates come from: sample, without repeats; or beam, the n-best list of a beam search."""
    reference: bool = False
    """minimum-risk: whether the target is a candidate too."""
    alpha: float = 1.0
    """minimum-risk: a candidate y has weight p(y)^alpha among the candidates. Shen et al. 2016 take 0.005 for 100 of
    them, Edunov et al. 2018 take 1."""
    baseline: BaselineName = "leave-one-out"
    """reinforce: what is subtracted from a reward: none; batch, the mean reward of the other sentences of the batch;
    leave-one-out, that of the other samples of the sentence. With each the gradient is unbiased."""
    temperature: float = 0.3
    """raml: an edit of the target is exp(-1 / temperature) times as likely as none at its place. At 0.3 about one
    token in ten is edited, at 0.5 one in three."""
    max_length: int = 0
    """Most tokens of an output, the end token included; 0 for 1.2 x the longest target of the batch's bucket."""
    schedule: ProbabilityScheduleName = "constant"
    """How the weight w of cross-entropy changes; what is minimized is w cross-entropy + (1 - w) the sequence-level
    loss: constant, linear, exponential, inverse-sigmoid or piecewise."""
    start: float = 0.0
    """Weight of cross-entropy at step 0."""
    end: float = 0.0
    """Lowest weight of cross-entropy (all schedules but constant and piecewise)."""
    decay: float = 10_000.0
    """Steps from start to end (linear); steps to fall to 1/e (exponential); k (inverse-sigmoid)."""
    points: tuple[tuple[int, float], ...] = ()
    """Schedule piecewise: (step, weight) pairs in order of step, joined by straight lines."""

    def __post_init__(self):
        check_fields(self, "sequence_training")
        if not self.of_text:
            one_of("sequence_training.reward", self.reward, (*REWARDS, f"{OF_TEXT}METRIC"))
        at_least("sequence_training.samples", self.samples, 1)
        one_of("sequence_training.candidates", self.candidates, typing.get_args(CandidatesName))
        one_of("sequence_training.baseline", self.baseline, typing.get_args(BaselineName))
        for name in ("alpha", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"sequence_training.{name} must be positive, got {getattr(self, name)}")
        at_least("sequence_training.max_length", self.max_length, 0)
        check_schedule("sequence_training", self)

    @property
    def of_text(self) -> str:
        """The metric that the reward is on texts; empty where it is one of token ids."""
        name = self.reward.removeprefix(OF_TEXT)
        return "" if name == self.reward or name == "METRIC" else name

    @property
    def has_cross_entropy(self) -> bool:
        """Whether cross-entropy has a weight at any step."""
        return not (self.schedule == "constant" and self.start == 0)

    def longest(self, width: int) -> int:
        """Most tokens of an output, for a batch whose targets are padded to this width."""
        return self.max_length or -(-width * 6 // 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceTraining:
    """The settings, and what else the objectives need."""

    config: SequenceTrainingConfig = dataclasses.field(default_factory=SequenceTrainingConfig)
    vocabulary: int = 0  # ids of the target tokenizer, without copy slots
    text_reward: TextReward | None = None  # where config.reward is one of texts

    @property
    def reward(self) -> Reward:
        """The reward of candidates [B, N, W], given the targets [B, T].

        Raises:
            ValueError: it is one of texts, and there is no function for it.
        """
        if not self.config.of_text:
            return REWARDS[self.config.reward]
        if self.text_reward is None:
            raise ValueError(f"sequence_training.reward={self.config.reward} reads text; train a run (s2s.train).")
        return host_reward(self.text_reward)
