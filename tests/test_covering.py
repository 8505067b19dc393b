"""Can every choice of attention be combined with every other? Each legal pair trains and is searched.

The combinations are a pairwise covering design over the axes; heads, values, architecture and input feeding rotate. By
default a fifth of the combinations that contain every value once are run; `pytest -m wide tests/test_covering.py` runs
all.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax.decode.beam.engine import beam
from s2s_jax.model.attention.catalogue import legal_combinations, pairwise_design
from s2s_jax.model.attention.config import NOT_ATTENDING, AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS
from s2s_jax.model.compatibility import axis_names
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS, PAD, Batch, real
from s2s_jax.training.objectives import LossConfig, make_loss
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig

STEPS, BEAM, LENGTH = 20, 3, 6
ROTATION = tuple(
    itertools.product((1, 2), ("same", "projected", "split"), (("luong", True), ("luong", False), ("bahdanau", True)))
)


@functools.cache
def rows():
    """The design, each row with its heads, values, architecture and input feeding."""
    combination = pairwise_design()
    return [(axes, *ROTATION[number % len(ROTATION)]) for number, axes in enumerate(combination)]


def row_name(row):
    axes, heads, values, (architecture, feeding) = row
    return "-".join([*axes.values(), str(heads), values, architecture, "feeding" * feeding])


@functools.cache
def some_rows():
    """The rows of a quick run: each contains a value that no row before it contained."""
    left, taken = {(axis, name) for axis, names in axis_names().items() for name in names}, []
    while left:
        best = max(rows(), key=lambda row: len(left & set(row[0].items())))
        taken.append(best)
        left -= set(best[0].items())
    return taken


def model_config(row):
    """The smallest model of a row; without attention it has one head and plain values."""
    axes, heads, values, (architecture, feeding) = row
    if axes["score"] in NOT_ATTENDING:
        heads, values = 1, "same"
    attention = AttentionConfig(**axes, heads=heads, values=values, size=4, positions=8, window=2, filters=2, kernel=3)
    width, prefix = 8 if values == "split" else 4, CONSTRAINTS[axes["constraint"]].reads_prefix
    encoder = EncoderConfig(cell="rnn", size=width if prefix else width // 2, bidirectional=not prefix)
    options = {"architecture": architecture, "input_feeding": feeding, "bridge": "zero" if prefix else "projected"}
    return ModelConfig(
        embedding=4,
        encoder=encoder,
        attention=attention,
        decoder=DecoderConfig(cell="rnn", size=4, **options),
    )


def batch_to_copy():
    """Letters to copy, of every length up to 5, and a row without tokens."""
    chance = np.random.default_rng(0)
    letters = chance.integers(4, 8, (12, LENGTH))
    ends = np.arange(12)[:, None] % LENGTH
    ids = np.where(np.arange(LENGTH) < ends, letters, np.where(np.arange(LENGTH) == ends, EOS, PAD))
    ids[-1] = PAD
    return Batch(*(jnp.array(ids, jnp.int32),) * 2)


def check(row):
    model = build(model_config(row), source_vocabulary=8, target_vocabulary=8)
    loss, batch = make_loss(model, LossConfig(), ScheduledSamplingConfig()), batch_to_copy()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3))

    def trained(params, key):
        def step(carry, number):
            params, state = carry
            of = lambda params: loss(params, batch, number, jax.random.fold_in(key, number)).nats  # noqa: E731
            nats, gradient = jax.value_and_grad(of)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), nats

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(STEPS))
        return params, losses

    params, losses = jax.jit(trained)(model.init(jax.random.key(1)), jax.random.key(2))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-4:]) < np.mean(losses[:2])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    result = jax.jit(functools.partial(beam, model, width=BEAM, max_length=LENGTH))(params, batch.source)
    alignment, sources = np.asarray(result.alignment), np.asarray(real(batch.source))
    assert np.isfinite(np.asarray(result.scores)[:-1]).all()
    assert np.isfinite(alignment).all()
    assert (alignment >= 0).all()
    assert (alignment[np.broadcast_to(~sources[:, None, None], alignment.shape)] == 0).all()
    if row[0]["score"] not in NOT_ATTENDING and row[0]["constraint"] in ("none", "wait-k", "local-m", "window", "milk"):
        assert (alignment.sum(-1)[:, 0, 0][:-1] > 0).all()  # the first token of the best was aligned to something


def test_every_legal_pair_is_in_the_design():
    pairs = lambda combination: {frozenset(pair) for pair in itertools.combinations(combination.items(), 2)}  # noqa: E731
    assert set().union(*map(pairs, legal_combinations())) == set().union(*(pairs(axes) for axes, *_ in rows()))


@pytest.mark.parametrize("row", some_rows()[::5], ids=row_name)
def test_many_values_train_and_search(row):
    check(row)


@pytest.mark.wide
@pytest.mark.parametrize("row", some_rows(), ids=row_name)
def test_every_value_trains_and_searches(row):
    check(row)


@pytest.mark.wide
@pytest.mark.parametrize("row", rows(), ids=row_name)
def test_every_pair_trains_and_searches(row):
    check(row)


def check_rounded(row, number, *, search):
    """Train in bfloat16, every second row with decoder self-attention, every third with copying; and search.

    The programs run, because CPUs lack kernels for products that the compiler accepts.
    """
    config = model_config(row)
    extra = {"self_attention_window": 2 * (number % 2), "copy": ("copynet", "none", "none")[number % 3]}
    if row[0]["score"] in NOT_ATTENDING or row[0]["constraint"] == "wait-k":
        extra["copy"] = "none"
    decoder = dataclasses.replace(config.decoder, **extra)
    model = build(
        dataclasses.replace(config, decoder=decoder, precision="bfloat16"), source_vocabulary=8, target_vocabulary=8
    )
    loss, batch = make_loss(model, LossConfig(), ScheduledSamplingConfig()), batch_to_copy()

    def compute(params, key):
        nats, gradient = jax.value_and_grad(lambda params: loss(params, batch, jnp.int32(0), key).nats)(params)
        found = beam(model, params, batch.source, width=BEAM, max_length=LENGTH).scores[:-1] if search else ()
        return nats, gradient, found

    results = jax.jit(compute)(model.init(jax.random.key(1)), jax.random.key(2))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))


def numbered_name(part):
    return str(part) if isinstance(part, int) else row_name(part)


PLAIN = {"score": "general", "normalizer": "softmax", "history": "none", "constraint": "none"}
ROUNDED = [
    (1, (PLAIN, 1, "same", ("luong", False))),  # all steps of self-attention at once
    (0, (PLAIN, 2, "projected", ("luong", True))),
]


@pytest.mark.parametrize(("number", "row"), ROUNDED, ids=numbered_name)
def test_some_values_train_in_bfloat16(number, row):
    check_rounded(row, number, search=False)


@pytest.mark.wide
@pytest.mark.parametrize(("number", "row"), list(enumerate(rows())), ids=numbered_name)
def test_every_pair_trains_and_searches_in_bfloat16(number, row):
    check_rounded(row, number, search=True)
