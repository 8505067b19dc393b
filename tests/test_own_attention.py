"""Do a score, a normalizer, a history and a constraint of a user's own file work without any other edit?"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.config import Experiment, override
from s2s_jax.imports import import_code
from s2s_jax.model.attention.catalogue import catalogue
from s2s_jax.model.attention.normalizers import NORMALIZERS, facts, normalizer_facts
from s2s_jax.model.attention.scores import SCORES, Score
from s2s_jax.model.compatibility import AXES, effective, without_effect
from s2s_jax.model.interface import scan_of_step
from s2s_jax.model.seq2seq import build

OWN = '''
"""A choice of each kind."""

import jax.numpy as jnp
from flax import nnx

from s2s_jax.model.attention.constraints import CONSTRAINTS, Constraint
from s2s_jax.model.attention.history import HISTORIES, Previous
from s2s_jax.model.attention.normalizers import NORMALIZERS
from s2s_jax.model.attention.scores import SCORES, Score
from s2s_jax.model.ops.initializers import glorot


class Distance(Score):
    """score = -|W q - k|^2 / M."""

    def build(self, rngs):
        self.kernel = nnx.Param(glorot(rngs.params(), self.query, self.memory))

    def query_projection(self):
        return self.kernel[...]

    def __call__(self, query, keys):
        return -((query[:, None] - keys) ** 2).mean(-1)


def squares(scores, mask, *, temperature):
    """(e / temperature)^2 / sum (e / temperature)^2."""
    weights = jnp.where(mask, (scores / temperature) ** 2, 0.0)
    return weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-9)


class Doubled(Previous):
    """feature_s = twice the previous weight."""

    def features(self, prepared, state, mask):
        return 2 * super().features(prepared, state, mask)


class Odd(Constraint):
    """Only tokens 0, 2, 4, ..."""

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        return normalize(scores, mask & (jnp.arange(mask.shape[1]) % 2 == 0)[None]), state


SCORES["distance"] = Distance
NORMALIZERS["squares"] = squares
HISTORIES["doubled"] = Doubled
CONSTRAINTS["odd"] = Odd
'''
CHOSEN = [
    *("model.attention.score=distance", "model.attention.normalizer=squares", "model.attention.history=doubled"),
    *(
        "model.attention.constraint=odd",
        "model.attention.temperature=2",
        "model.encoder.size=3",
        "model.decoder.size=5",
    ),
]


@pytest.fixture
def own(tmp_path):
    """The file is imported for one test; its entries leave the tables afterwards."""
    before = {axis: dict(table) for axis, table in AXES.items()}
    path = tmp_path / "own_attention.py"
    path.write_text(OWN)
    import_code([str(path)])
    yield
    for axis, table in AXES.items():
        table.clear()
        table.update(before[axis])


def attended(config):
    """Alignments [B, T, S] of a model with drawn parameters, one step after the other."""
    model = build(config, source_vocabulary=9, target_vocabulary=9)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)
    source, tokens = jnp.array([[4, 5, 6, 7], [4, 5, 0, 0]]), jnp.ones((2, 3), jnp.int32)

    def decode(params):
        memory, state = model.encode(params, source)
        return scan_of_step(model.step)(params, memory, state, tokens)[1].alignment

    return np.asarray(oracles.compiled(decode)(params))


def test_choices_of_the_users_own_work_together_and_with_ours(own):
    config = override(Experiment(), *CHOSEN).model
    alignment = attended(config)
    np.testing.assert_allclose(alignment.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(alignment[..., 1::2], 0.0)
    np.testing.assert_array_equal(alignment[1, :, 2:], 0.0)
    warmer = override(Experiment(), *CHOSEN, "model.attention.temperature=1").model
    np.testing.assert_allclose(attended(warmer), alignment, atol=1e-6)  # a temperature cancels in squares
    for other in ("heads=2", "history=coverage-gru", "values=projected"):
        override(Experiment(), *CHOSEN, f"model.attention.{other}")
    override(Experiment(), CHOSEN[0], "model.attention.constraint=mocha", "model.attention.normalizer=sigmoid")


def test_every_setting_has_effect_where_a_class_does_not_declare_what_it_reads(own):
    config = override(Experiment(), *CHOSEN, "model.attention.mixtures=3").model
    assert without_effect(config) == []
    assert effective(config) == config


def test_a_normalizer_reads_the_settings_that_its_parameters_name(own):
    assert normalizer_facts("squares").settings == ("temperature",)
    assert normalizer_facts("squares").sums_to_one
    with pytest.raises(ValueError, match="model.attention.temperature=2.0 has no effect"):
        override(Experiment(), "model.attention.temperature=2", "model.attention.normalizer=sparsemax")


def test_the_catalogue_lists_them(own):
    kept = {"general", "distance", "softmax", "squares", "none", "doubled", "odd"}  # few, for speed
    for table in AXES.values():
        for name in set(table) - kept:
            del table[name]
    entries = {(entry.axis, entry.name): entry for entry in catalogue()}
    assert entries["score", "distance"].formula == "score = -|W q - k|^2 / M"
    assert ("constraint", "odd") in entries


def test_declared_facts_decide_what_is_legal(monkeypatch):
    class Blind(Score):
        has_keys = False
        settings = ()

    @facts(sums_to_one=False)
    def halves(scores, mask):
        return jnp.where(mask, 0.5, 0.0)

    monkeypatch.setitem(SCORES, "blind", Blind)
    monkeypatch.setitem(NORMALIZERS, "halves", halves)
    with pytest.raises(ValueError, match="history=coverage is added to the keys, which model.attention.score=blind"):
        override(Experiment(), "model.attention.score=blind", "model.attention.history=coverage")
    with pytest.raises(ValueError, match="normalizer=halves and .* they need not sum to 1"):
        override(Experiment(), "model.attention.normalizer=halves", "model.decoder.copy=pointer")
    config = override(Experiment(), "model.attention.score=blind", "model.attention.size=8").model
    assert without_effect(config) == ["model.attention.size"]
