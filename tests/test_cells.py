"""Every cell computes the formula of its paper: values and gradients against oracles; and its initial weights."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.cells import CELLS, Cell, CellName
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import scan_of_step
from s2s_jax.model.seq2seq import ModelConfig, build

DIRECTIONS, BATCH, INPUTS, EXTRA, SIZE, STEPS = 2, 2, 3, 2, 4, 3


def run(graph, given):
    """The carries and outputs of a few steps; `given` holds cell, state, the inputs of each step and the dropped."""
    cell, carry, result = nnx.merge(graph, given["cell"]), given["carry"], []
    projected = jnp.stack([cell.project(given["x"], direction=direction) for direction in range(DIRECTIONS)], axis=1)
    weights = cell.step_weights(hoisted=given["x"].shape[-1])
    for step in range(STEPS):
        extra = given["extra"][step] if "extra" in given else None
        carry, output = cell(weights, carry, projected[step], extra, drop=given.get("drop"))
        result.append((carry, output))
    return result


def oracle(name, given):
    """The same, one direction and one sentence after the other."""
    params = oracles.precise(nnx.to_pure_dict(given["cell"]))
    x = np.repeat(given["x"][:, None], DIRECTIONS, axis=1)  # what is known before the scan is one for all directions
    x = np.concatenate([x, given["extra"]], axis=-1) if "extra" in given else x
    result = []
    for direction, row in np.ndindex(DIRECTIONS, BATCH):
        cell = {name: leaf[direction] for name, leaf in params.items()}
        carry = tuple(leaf[direction, row] for leaf in given["carry"])
        keep, steps = given["drop"][direction, row] if "drop" in given else 1.0, []
        for step in range(STEPS):
            carry, output = oracles.CELLS[name](cell, carry, x[step, direction, row], keep)
            steps.append((carry, output))
        result.append(steps)
    return jax.tree.map(lambda *rows: np.reshape(rows, (DIRECTIONS, BATCH, -1)), *result)


def given_for(name, *, fed):
    """The graph of a cell; and drawn weights, state and inputs, with or without an input that arrives step by step."""
    extra, lead = EXTRA if fed else 0, (DIRECTIONS, BATCH)
    graph, weights = oracles.made(
        lambda rngs: CELLS[name](INPUTS, SIZE, extra=extra, directions=(DIRECTIONS,), dtype=jnp.float32, rngs=rngs),
        seed=1,
    )
    shapes = {"carry": (np.zeros((*lead, SIZE)),) * CELLS[name].states, "x": np.zeros((STEPS, BATCH, INPUTS))}
    if fed:
        shapes |= {"extra": np.zeros((STEPS, *lead, EXTRA)), "drop": np.zeros((*lead, SIZE))}
    return graph, {"cell": weights, **oracles.drawn(shapes, seed=2)}


def test_every_cell_has_an_oracle():
    assert set(oracles.CELLS) == set(CELLS)


@pytest.mark.parametrize("fed", [False, True], ids=["plain", "fed-and-dropped"])
@pytest.mark.parametrize("name", sorted(oracles.CELLS))
def test_values_and_slopes_are_the_papers(name, fed):
    graph, given = given_for(name, fed=fed)
    along = oracles.drawn(given, seed=3)

    def judged(given):
        result = run(graph, given)
        return oracles.weighed(result), result

    (_, result), gradient = oracles.compiled(jax.value_and_grad(judged, has_aux=True))(given)
    oracles.same(result, oracle(name, oracles.precise(given)), tolerance=1e-5)
    wanted = oracles.weighed(oracles.slope(lambda given: oracle(name, given), given, along))
    oracles.same(oracles.along_gradient(gradient, along), wanted, tolerance=1e-4)


def test_an_input_may_be_known_before_the_scan_or_arrive_step_by_step():
    graphs, givens = zip(*(given_for(name, fed=True) for name in sorted(CELLS)), strict=True)
    # what arrives step by step may differ between the directions, what is known before it may not
    givens = [given | {"extra": jnp.repeat(given["extra"][:, :1], DIRECTIONS, axis=1)} for given in givens]
    early = [given | {"x": jnp.concatenate([given["x"], given["extra"][:, 0]], axis=-1)} for given in givens]
    early = [{name: leaf for name, leaf in given.items() if name != "extra"} for given in early]
    outputs = oracles.compiled(lambda *both: [list(map(run, graphs, givens)) for givens in both])(givens, early)
    oracles.same(*outputs, tolerance=1e-6)


@pytest.fixture(scope="module")
def initial():
    """The first parameters of every cell."""

    def make(key):
        settings = {"extra": EXTRA, "directions": (DIRECTIONS,), "dtype": jnp.float32, "rngs": nnx.Rngs(params=key)}
        cells = {name: CELLS[name](INPUTS, SIZE, **settings) for name in sorted(CELLS)}
        return {name: nnx.to_pure_dict(nnx.state(cell)) for name, cell in cells.items()}

    return jax.tree.map(np.asarray, oracles.compiled(make)(jax.random.key(0)))


@pytest.mark.parametrize("name", sorted(CELLS))
def test_initial_weights(initial, name):
    cell, gates = initial[name], CELLS[name].gates
    if name == "sru":
        assert cell["cell_kernel"].shape == cell["bias"].shape == (DIRECTIONS, 2 * SIZE)
        assert (cell["bias"] == 0).all()
        return
    weight = np.concatenate([cell["input_kernel"], cell["weight"]], axis=1)
    assert weight.shape == (DIRECTIONS, INPUTS + EXTRA + SIZE, gates * SIZE)
    recurrent = [block for direction in weight for block in np.split(direction[-SIZE:], gates, axis=-1)]
    for block in recurrent:
        np.testing.assert_allclose(block @ block.T, np.eye(SIZE), atol=1e-5)
    apart = [np.abs(one - other).max() for i, one in enumerate(recurrent) for other in recurrent[:i]]
    assert min(apart) > 0.1  # each gate of each direction has its own
    # Glorot & Bengio 2010: uniform within sqrt(6 / (fan in + fan out)), the fans of one gate of one direction.
    feeding, bound = weight[:, :-SIZE], np.sqrt(6 / (INPUTS + EXTRA + SIZE))
    assert 0.8 * bound < np.abs(feeding).max() <= bound
    assert np.abs(feeding[0] - feeding[1]).max() > 0.1
    open_forget_gate = np.repeat([0.0, 1.0, 0.0, 0.0], SIZE) if "lstm" in name else np.zeros(gates * SIZE)
    np.testing.assert_array_equal(cell["bias"], [open_forget_gate] * DIRECTIONS)
    if name in ("gru", "layer-norm-gru"):
        np.testing.assert_array_equal(cell["inner_bias"], np.zeros((DIRECTIONS, SIZE)))


@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_starts_at_zero(name):
    graph, weights = oracles.made(lambda rngs: CELLS[name](1, SIZE, dtype=jnp.float32, rngs=rngs), seed=0)
    carry = nnx.merge(graph, weights).start(3)
    assert len(carry) == CELLS[name].states == oracles.LEAVES[name]
    for leaf in carry:
        np.testing.assert_array_equal(leaf, np.zeros((3, SIZE), np.float32))


def test_the_names_of_cells_are_those_of_the_table():
    assert typing.get_args(CellName) == tuple(CELLS)


class Leaky(Cell):
    """A cell from outside: h' = (h + tanh(W x + U h + b)) / 2."""

    def __call__(self, weights, carry, projected, extra=None, *, drop=None):
        (new,), _ = super().__call__(weights, carry, projected, extra, drop=drop)
        state = (carry[0] + new) / 2
        return (state,), state


def test_a_cell_of_ones_own_is_one_class_and_one_line(monkeypatch):
    """In encoder and decoder, where its steps are the scan and some gradient reaches it."""
    monkeypatch.setitem(CELLS, "leaky", Leaky)
    cell = typing.cast(CellName, "leaky")
    config = ModelConfig(
        embedding=3, encoder=EncoderConfig(cell=cell, size=2, layers=2), decoder=DecoderConfig(cell=cell, size=4)
    )
    model = build(config, source_vocabulary=8, target_vocabulary=8)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)
    source, tokens = jnp.array([[4, 5, 2], [6, 2, 0]]), jnp.array([[1, 4], [1, 5]])

    def logits(params):
        memory, state = model.encode(params, source)
        unrolls = model.unroll, scan_of_step(model.step)
        return [unroll(params, memory, state, tokens)[1].logits for unroll in unrolls]

    (fast, stepped), gradient = oracles.compiled(
        lambda params: (logits(params), jax.grad(lambda params: logits(params)[0].sum())(params))
    )(params)
    oracles.same(fast, stepped, tolerance=1e-5)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["encoder"]))
