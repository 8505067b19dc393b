"""Rewards of texts: any metric of translations, of each candidate by itself, computed on the host."""

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.config import Experiment
from s2s_jax.evaluate.metrics import METRICS, Predictions
from s2s_jax.shapes import PAD, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import Tokenizer, until_eos
from s2s_jax.training.sequence_level.config import SequenceTraining, TextReward

PERFECT = "a b c d e f g h"  # what every metric can be measured of
UNKNOWN_WORD = "\N{REPLACEMENT CHARACTER}"  # in references: it matches nothing, since nobody knows what stands there


def sequence_training(experiment: Experiment, tokenizers: PairTokenizer) -> SequenceTraining:
    """What a sequence-level objective needs: the settings, the vocabulary, and the reward where it reads text."""
    config = experiment.sequence_training
    reward = text_reward(config.of_text, tokenizers.target, unit=experiment.evaluation.unit) if config.of_text else None
    return SequenceTraining(config=config, vocabulary=tokenizers.target.size, text_reward=reward)


def text_reward(metric: str, tokenizer: Tokenizer, *, unit: str) -> TextReward:
    """The function that gives the metric of each candidate by itself, against its target, both as text.

    It is scaled so that a perfect candidate has 1; of a metric of errors it is 1 less their rate. A candidate for which
    the metric is undefined has 0, as has a row of padding.
    """
    entry = METRICS[metric]

    def values(texts: list[str], references: list[list[str]]) -> Float[np.ndarray, " N"]:
        counts = entry.counts(Predictions(texts, references, unit))
        return np.asarray(entry.values(np.asarray(counts, np.float64)), np.float64)

    best = float(values([PERFECT], [[PERFECT]])[0])

    def reward(candidates: Int[np.ndarray, "N W"], target: Int[np.ndarray, "N T"]) -> Float[np.ndarray, " N"]:
        pairs = [
            (tokenizer.decode(until_eos(one)), reference_text(other, tokenizer))
            for one, other in zip(candidates.tolist(), target.tolist(), strict=True)
        ]
        distinct = list(dict.fromkeys(pairs))  # samples repeat each other
        measured = values([text for text, _ in distinct], [[reference] for _, reference in distinct])
        scaled = measured / best if entry.higher_is_better else 1 - measured
        known = dict(zip(distinct, np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0), strict=True))
        return np.array([known[pair] for pair in pairs]) * (target[:, 0] != PAD)

    return reward


def reference_text(target: list[int], tokenizer: Tokenizer) -> str:
    """The line of target ids, with a word that equals no other in place of each unknown token."""
    ids = until_eos(target)
    return tokenizer.decode(ids, [UNKNOWN_WORD] * ids.count(UNK))
