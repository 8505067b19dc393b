"""Does the encoder read each sentence as if it were alone? Against an oracle that knows no padding, and laws."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.encoder import Encoder, EncoderConfig
from s2s_jax.model.ops.dropout import keep_mask

LENGTHS, WIDTH, INPUTS = (3, 1, 0), 3, 6
MASK = np.arange(WIDTH) < np.array(LENGTHS)[:, None]


def made(*, seed=1, inputs=INPUTS, **settings):
    """A config, and the graph and drawn weights of its encoder."""
    config = EncoderConfig(**settings)
    return config, *oracles.made(lambda rngs: Encoder(config, inputs, dtype=jnp.float32, rngs=rngs), seed=seed)


def read(graph, weights, embedded, mask=MASK, key=None):
    return nnx.merge(graph, weights)(embedded, jnp.asarray(mask), key)


encoded = oracles.compiled(read, static_argnums=0)


def oracle(config, weights, embedded):
    """Sentence by sentence, each cut to its length; then padded with exact zeros."""
    params = oracles.precise(nnx.to_pure_dict(weights))
    outputs, carries = np.zeros((*embedded.shape[:2], config.width)), []
    for row, length in enumerate(LENGTHS):
        outputs[row, :length], carry = oracles.encode(params, config, embedded[row, :length])
        carries.append(tuple(carry))
    return outputs, jax.tree.map(lambda *rows: np.array(rows), *carries)


SHAPES = [{"cell": cell} for cell in sorted(oracles.CELLS)] + [
    {"cell": "lstm", "residual_from": 2},
    {"cell": "gru", "residual_from": 1},
    {"cell": "lstm", "residual_from": 1, "bidirectional": False},
    {"cell": "gru", "bidirectional": False, "reversed": True},
    {"cell": "lstm", "bidirectional_layers": 1, "learned_start": True, "zoneout": 0.25, "cell_zoneout": 0.5},
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_a_ragged_batch_is_its_sentences_one_by_one(shape):
    size = INPUTS // (1 + shape.get("bidirectional", True))
    config, graph, weights = made(**{"size": size, "layers": 2, **shape})
    embedded = oracles.drawn(np.zeros((len(LENGTHS), WIDTH, INPUTS)), seed=2)
    along = oracles.drawn((weights, embedded), seed=3)

    def judged(at):
        result = read(graph, *at)
        return oracles.weighed(result), result

    (_, result), gradient = oracles.compiled(jax.value_and_grad(judged, has_aux=True))((weights, embedded))
    wanted = oracle(config, weights, np.asarray(embedded, np.float64))
    oracles.same(result, wanted, tolerance=1e-5)
    slopes = oracles.slope(lambda at: oracle(config, *at), (weights, embedded), along)
    oracles.same(oracles.along_gradient(gradient, along), oracles.weighed(slopes), tolerance=2e-4)
    np.testing.assert_array_equal(np.asarray(result[0])[~MASK], 0.0)  # exactly, in value ...
    np.testing.assert_array_equal(np.asarray(gradient[1])[~MASK], 0.0)  # ... and in slope
    for leaf in jax.tree.leaves(result[1]) * (not config.learned_start):
        np.testing.assert_array_equal(leaf[2], 0.0)  # length 0: the initial state itself


@pytest.fixture(scope="module")
def deep():
    """Two bidirectional layers, the upper one residual; a ragged batch with padding far from zero; and the outputs."""
    _, graph, weights = made(cell="lstm", size=3, layers=2, residual_from=2)
    embedded = np.array(oracles.drawn(np.zeros((len(LENGTHS), WIDTH, INPUTS)), seed=2))
    return graph, weights, embedded, encoded(graph, weights, embedded)


def test_wider_padding_changes_nothing(deep):
    graph, weights, embedded, result = deep
    wider = np.concatenate([embedded, np.full((len(LENGTHS), 2, INPUTS), 9.0, np.float32)], axis=1)
    outputs, carries, _ = encoded(graph, weights, wider, np.pad(MASK, ((0, 0), (0, 2))))
    oracles.same(outputs[:, :WIDTH], result.outputs, tolerance=1e-6)
    np.testing.assert_array_equal(outputs[:, WIDTH:], 0.0)
    oracles.same(carries, result.carries, tolerance=1e-6)


def test_what_stands_on_padding_changes_nothing(deep):
    graph, weights, embedded, result = deep
    nonsense = np.where(MASK[..., None], embedded, np.float32(1e3))
    oracles.same(encoded(graph, weights, nonsense), result, tolerance=1e-6)


def test_the_order_of_a_batch_and_the_neighbors_change_nothing(deep):
    graph, weights, embedded, result = deep
    order = np.array([2, 0, 1])
    turned = encoded(graph, weights, embedded[order], MASK[order])
    oracles.same(turned, jax.tree.map(lambda leaf: leaf[order], result), tolerance=1e-6)
    others = np.concatenate([embedded[:1], embedded[1:] + 1], axis=0)
    beside_others = encoded(graph, weights, others, np.array([MASK[0], [True] * 3, [True] * 3]))
    for ours, wanted in zip(jax.tree.leaves(beside_others), jax.tree.leaves(result), strict=True):
        oracles.same(ours[0], wanted[0], tolerance=1e-6)


SIZE, RATE = 8, 0.5


@pytest.fixture(scope="module")
def seen_dropout():
    """Encoders whose outputs show their dropout masks: x stays x, and h stays h, but for what is dropped."""
    keys = [jax.random.key(seed) for seed in (1, 1, 2)]
    x, mask = np.full((2, WIDTH, SIZE), 0.5, np.float32), np.ones((2, WIDTH), bool)
    _, graph, weights = made(inputs=SIZE, cell="rnn", size=SIZE, layers=2, bidirectional=False, dropout=RATE)
    blank = jax.tree.map(jnp.zeros_like, weights)
    eye = np.eye(SIZE, dtype=np.float32)
    for layer in range(2):
        blank["cells"][layer]["input_kernel"].set_value(jnp.asarray(eye[None]))
    of_inputs = [np.asarray(encoded(graph, blank, x, mask, key).outputs) for key in keys]

    _, graph, weights = made(inputs=SIZE, cell="rnn", size=SIZE, bidirectional=True, recurrent_dropout=RATE)
    blank = jax.tree.map(jnp.zeros_like, weights)
    blank["cells"][0]["weight"].set_value(jnp.asarray(np.stack([eye] * 2)))
    blank["cells"][0]["bias"].set_value(jnp.full((2, SIZE), 0.5))
    of_states = []
    for key in keys:
        outputs = np.asarray(encoded(graph, blank, x, mask, key).outputs, np.float64)
        forward, backward = outputs[..., :SIZE], outputs[:, ::-1, SIZE:]
        of_states.append(
            [(np.arctanh(direction[:, 1:]) - 0.5) / direction[:, :-1] for direction in (forward, backward)]
        )
    return of_inputs, of_states


def test_an_input_is_dropped_at_every_step_or_at_none(seen_dropout):
    (first, again, other), _ = seen_dropout
    kept = first[:, 0] > 0
    through_two_layers = np.tanh(np.tanh(0.5 / (1 - RATE)) / (1 - RATE))  # what is kept grows, so that the mean stays
    for step in range(WIDTH):
        np.testing.assert_allclose(first[:, step], kept * through_two_layers, atol=1e-5)
    assert kept.any()
    assert not kept.all()
    assert (kept[0] != kept[1]).any()  # each sentence has its own mask
    np.testing.assert_array_equal(first, again)
    assert (kept != (other[:, 0] > 0)).any()


def test_a_state_is_dropped_at_every_step_or_at_none(seen_dropout):
    _, ((forward, backward), again, other) = seen_dropout
    for direction in (forward, backward):
        kept = direction[:, 0] > 0.5
        for step in range(WIDTH - 1):
            np.testing.assert_allclose(direction[:, step], kept / (1 - RATE), atol=1e-4)
        assert kept.any()
        assert not kept.all()
        assert (kept[0] != kept[1]).any()
    assert ((forward[:, 0] > 0.5) != (backward[:, 0] > 0.5)).any()  # each direction has its own mask
    np.testing.assert_array_equal(forward, again[0])
    assert ((forward[:, 0] > 0.5) != (other[0][:, 0] > 0.5)).any()


def test_no_key_means_no_noise(deep):
    _, weights, embedded, result = deep
    _, noisy, _ = made(cell="lstm", size=3, layers=2, residual_from=2, dropout=0.9, recurrent_dropout=0.9)
    without, within = oracles.compiled(
        lambda weights, key: [read(noisy, weights, jnp.asarray(embedded), MASK, noise) for noise in (None, key)]
    )(weights, jax.random.key(0))
    oracles.same(without, result, tolerance=0)
    assert np.abs(within.outputs - result.outputs).max() > 0.01


def test_dropout_keeps_the_mean():
    mask = np.asarray(keep_mask(jax.random.key(0), 0.3, (20000,)))
    np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.7], rtol=1e-6)
    assert abs(mask.mean() - 1) < 0.02


def test_zoneout_keeps_other_numbers_at_every_step():
    """A cell without weights goes from 0 to tanh(bias) at once, but for what stays 0."""
    _, graph, weights = made(inputs=SIZE, cell="rnn", size=4 * SIZE, bidirectional=False, zoneout=RATE)
    blank = jax.tree.map(jnp.zeros_like, weights)
    blank["cells"][0]["bias"].set_value(jnp.ones((1, 4 * SIZE)))
    x, mask = np.ones((2, WIDTH, SIZE), np.float32), np.ones((2, WIDTH), bool)
    first, again, other = (np.asarray(encoded(graph, blank, x, mask, jax.random.key(s)).outputs) for s in (1, 1, 2))
    new = first > 0
    np.testing.assert_allclose(first, np.tanh(1.0) * new, atol=1e-6)
    assert (new[:, :-1] <= new[:, 1:]).all()  # what has become new stays new
    shares = new.mean((0, 2))
    np.testing.assert_allclose(shares, 1 - RATE ** np.arange(1, WIDTH + 1), atol=0.2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (new[0] != new[1]).any()  # each sentence has its own
    expected = np.asarray(encoded(graph, blank, x, mask).outputs)
    wanted = np.tanh(1.0) * (1 - RATE ** np.arange(1, WIDTH + 1))
    np.testing.assert_allclose(expected, np.broadcast_to(wanted[:, None], expected.shape), atol=1e-6)
