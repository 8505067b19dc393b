"""Which model, state and bounds belong to an experiment?"""

from typing import Any

import jax

from s2s_jax.config import Experiment
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import build
from s2s_jax.run.prepare import slots_of
from s2s_jax.run.run_dir import SIDES
from s2s_jax.text.copy_vocabulary import PairTokeniser
from s2s_jax.text.tokenizers import Tokeniser
from s2s_jax.train.step import TrainState, start


def model_of(experiment: Experiment, tokenisers: dict[str, Tokeniser]) -> Model:
    """The model of an experiment, for the vocabularies that were learned."""
    sizes = {f"{side}_vocabulary": tokenisers[side].size for side in SIDES}
    says = PairTokeniser(**tokenisers, slots=slots_of(experiment)).says()
    return build(experiment.model, **sizes, says=says)


def abstract_state(experiment: Experiment, model: Model, optimiser) -> TrainState:
    """The shapes of a run's state, nothing allocated."""
    options = {"seed": experiment.seed, "ema": experiment.optimiser.ema}
    return jax.eval_shape(lambda: start(model.init(jax.random.key(0)), optimiser, **options))


def longest_answer(facts: dict[str, Any]) -> int:
    """The bound on a translation's length that nobody set: 1.2 x the longest training target + 10 tokens."""
    return int(1.2 * facts["longest_target"]) + 10


def count(params: Params) -> int:
    """How many numbers there are in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
