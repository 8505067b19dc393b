"""Which model, state and bounds belong to an experiment?"""

from typing import Any

import jax

from s2s_jax.config import Experiment
from s2s_jax.model.interface import Model, Params
from s2s_jax.model.seq2seq import build
from s2s_jax.run.prepare import slots_of
from s2s_jax.run.run_dir import SIDES
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import Tokenizer
from s2s_jax.train.step import TrainState, initial_state


def model_of(experiment: Experiment, tokenizers: dict[str, Tokenizer]) -> Model:
    """The model of an experiment, for the vocabularies that were learned."""
    sizes = {f"{side}_vocabulary": tokenizers[side].size for side in SIDES}
    says = PairTokenizer(**tokenizers, slots=slots_of(experiment)).copy_table()
    return build(experiment.model, **sizes, copy_table=says)


def abstract_state(experiment: Experiment, model: Model, optimizer) -> TrainState:
    """The shapes of a run's state, nothing allocated."""
    options = {"seed": experiment.seed, "ema": experiment.optimizer.ema}
    return jax.eval_shape(lambda: initial_state(model.init(jax.random.key(0)), optimizer, **options))


def longest_answer(facts: dict[str, Any]) -> int:
    """The bound on a translation's length that nobody set: 1.2 x the longest training target + 10 tokens."""
    return int(1.2 * facts["longest_target"]) + 10


def count(params: Params) -> int:
    """How many numbers there are in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
