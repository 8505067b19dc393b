"""Does one step do what Luong and Bahdanau wrote, and does the fast unroll do what the steps do?"""

import functools
import itertools
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.bridge import BRIDGES, BridgeName
from s2s_jax.model.decoder.architectures import ARCHITECTURES, Advanced, Architecture
from s2s_jax.model.decoder.config import ArchitectureName, DecoderConfig
from s2s_jax.model.decoder.step import Decoder
from s2s_jax.model.decoder.unroll import unroll
from s2s_jax.model.decoder_self_attention import SelfAttentionState
from s2s_jax.model.encoder import Encoded, Encoder, EncoderConfig
from s2s_jax.model.interface import scan_of_step
from s2s_jax.model.readout import GATES, READOUTS, ContextGateName, ReadoutName

LENGTHS, STEPS_BEFORE, SOURCE, SIZE, VOCABULARY, SCORE_SIZE = (3, 2, 0), (0, 1, 4), 3, 4, 7, 5
MASK = np.arange(SOURCE) < np.array(LENGTHS)[:, None]
TOKENS = np.array([[1, 5], [6, 2], [1, 4]])  # two steps from any state stand for all that follow
ENCODER = EncoderConfig(cell="gru", size=3)  # the memory is 6 wide


@functools.cache
def reader(config):
    """The encoder that a decoder asks for its widths."""
    return nnx.eval_shape(lambda: Encoder(config, SIZE, dtype=jnp.float32, rngs=nnx.Rngs(0)))


def made(*, score="general", encoder=ENCODER, embedding=SIZE, **settings):
    """A decoder's config, its graph and its drawn weights."""
    rates = {"dropout": 0.5, "recurrent_dropout": 0.5}  # so that there are masks
    config = DecoderConfig(**{"size": SIZE, **rates, **settings})
    attention, sizes = AttentionConfig(score=score, size=SCORE_SIZE), {"embedding": embedding, "vocabulary": VOCABULARY}
    make = lambda rngs: Decoder(config, attention, reader(encoder), **sizes, dtype=jnp.float32, rngs=rngs)  # noqa: E731
    return config, *oracles.made(make, seed=1)


def left_by(encoder):
    """The shapes of what an encoder leaves behind."""
    width = encoder.width
    end = (np.zeros((len(LENGTHS), width)),) * oracles.LEAVES[encoder.cell]
    return Encoded(np.zeros((len(LENGTHS), SOURCE, width)), (end,) * encoder.layers)


def start(graph, given, key=None):
    return nnx.merge(graph, given["weights"]).start(given["encoded"], jnp.asarray(MASK), key)


def given_for(graph, weights, *, dropped):
    """All that the steps depend on, drawn: weights, memory, a state in mid-sentence, and what dropout multiplies by."""
    given = {"weights": weights, "encoded": oracles.drawn(left_by(ENCODER), seed=2)}
    memory, state = jax.eval_shape(lambda given: start(graph, given, jax.random.key(0)), given)
    past = state.self_attention.states if state.self_attention else ()
    shapes = {"carry": state.carry, "fed": state.feedback, "drops": memory.noise if dropped else (), "past": past}
    shapes["output"] = state.output
    return {**given, **oracles.drawn(shapes, seed=3)}


def both(graph, given):
    """The outputs of `unroll`, and of one `step` after the other."""
    memory, state = start(graph, given)
    memory = memory._replace(noise=given["drops"])
    state = state._replace(carry=given["carry"], feedback=given["fed"], output=given["output"])
    if state.self_attention:
        count = jnp.minimum(jnp.array(STEPS_BEFORE), state.self_attention.states.shape[1])
        state = state._replace(self_attention=SelfAttentionState(given["past"], count))
    decoder, tokens = nnx.merge(graph, given["weights"]), jnp.asarray(TOKENS)
    one_by_one = scan_of_step(lambda _, memory, state, token: decoder.step(memory, state, token))
    return unroll(decoder, memory, state, tokens), one_by_one((), memory, state, tokens)


def oracle(config, score, given):
    """The formulas of the papers: sentence by sentence, without padding."""
    decoder, rows = oracles.precise(nnx.to_pure_dict(given["weights"])), []
    for row, length in enumerate(LENGTHS):
        names = ("carry", "fed", "drops", "past", "output")
        memory, carries, fed, drops, past, output = jax.tree.map(
            lambda leaf, row=row: np.asarray(leaf[row], np.float64),
            (given["encoded"].outputs, *(given[name] for name in names)),
        )
        if isinstance(output, tuple):  # not kept, because it is the state
            output = carries[0 if config.architecture == "gnmt" else -1][0]
        before = list(past[max(0, config.self_attention_window - STEPS_BEFORE[row]) :])
        state, (logits, alignments, contexts) = oracles.decoder_steps(
            decoder, config, score, memory[:length], (carries, fed, before, output), TOKENS[row], drops or None
        )
        alignments = np.pad(alignments, ((0, 0), (0, SOURCE - length)))
        kept = (
            np.array([*past, *state[2][len(before) :]][-config.self_attention_window :])
            if config.self_attention_window
            else ()
        )
        last = state[3] if len(given["output"]) else ()
        rows.append((tuple(state[0]), state[1] if config.feeds_back else (), kept, last, logits, alignments, contexts))
    return jax.tree.map(lambda *leaves: np.array(leaves), *rows)


def in_order(result):
    state, step = result
    past = state.self_attention.states if state.self_attention else ()
    return state.carry, state.feedback, past, state.output, *step


ORDERS = {
    "fed": {"architecture": "luong", "input_feeding": True},
    "unfed": {"architecture": "luong", "input_feeding": False},
    "bahdanau": {"architecture": "bahdanau"},
}
CELLS, SCORES = ("lstm", "gru", "layer-norm-lstm"), ("none", "general", "additive")
WHOLE = list(itertools.product(ORDERS, (1, 2), CELLS, SCORES))
# A Latin square: every pair of choices meets, and every order, depth and score.
SQUARE = [
    (order, layers, CELLS[(row + layers + column) % 3], score)
    for row, order in enumerate(ORDERS)
    for layers in (1, 2)
    for column, score in enumerate(SCORES)
]


@pytest.mark.parametrize(
    "point",
    [point if point in SQUARE else pytest.param(point, marks=pytest.mark.wide) for point in WHOLE],
    ids=lambda point: "-".join(map(str, point)),
)
def test_steps_are_the_papers_and_unroll_is_its_steps(point):
    """With dropout, from a state in mid-sentence; on the square also the slopes in a drawn direction of all inputs."""
    order, layers, cell, score = point
    residual_from = 2 if layers == 2 and score != "general" else 0
    config, graph, weights = made(
        score=score, bridge="zero", cell=cell, layers=layers, residual_from=residual_from, **ORDERS[order]
    )
    given = given_for(graph, weights, dropped=True)
    with jax.disable_jit():
        (unrolled, stepped), pull = jax.vjp(lambda given: both(graph, given), given)
        if point in SQUARE:
            weights, zero = oracles.drawn(stepped, seed=9), jax.tree.map(jnp.zeros_like, stepped)
            (of_unrolled,), (of_stepped,) = pull((weights, zero)), pull((zero, weights))
    oracles.same(in_order(stepped), oracle(config, score, given), tolerance=1e-5)
    oracles.same(unrolled, stepped, tolerance=1e-5)
    if point in SQUARE:
        along = oracles.drawn(given, seed=4)
        slopes = oracles.slope(lambda given: oracle(config, score, given), given, along)
        wanted = oracles.along_gradient(in_order(weights), slopes)
        oracles.same(oracles.along_gradient(of_stepped, along), wanted, tolerance=2e-4)
        oracles.same(of_unrolled, of_stepped, tolerance=1e-5)


OTHERS = {
    "rnn": {"cell": "rnn"},
    "gru-reset-before": {"cell": "gru-reset-before", "architecture": "bahdanau", "layers": 2},
    "concat": {"score": "concat"},
    "wide-readout": {"readout": 5},
    "wide-deep-output": {"architecture": "bahdanau", "readout": 5},
    "tied": {"tied_embeddings": True, "embedding": 5},
    "tied-deep-output": {"tied_embeddings": True, "embedding": 5, "architecture": "bahdanau"},
    "residual-from-1": {"residual_from": 1, "layers": 2},
    "residual-from-1-unfed": {"residual_from": 1, "layers": 2, "input_feeding": False},
    "residual-from-1-bahdanau": {"residual_from": 1, "layers": 2, "architecture": "bahdanau"},
    "residual-at-the-top-bahdanau": {"residual_from": 2, "layers": 2, "architecture": "bahdanau", "cell": "lstm"},
    "residual-of-one-layer-bahdanau": {"residual_from": 1, "architecture": "bahdanau"},
    "residual-from-1-conditional": {"residual_from": 1, "layers": 2, "architecture": "conditional"},
    "residual-of-one-layer-conditional": {"residual_from": 1, "architecture": "conditional", "cell": "lstm"},
    "residual-from-1-gnmt": {"residual_from": 1, "layers": 2, "architecture": "gnmt", "cell": "lstm"},
    "conditional": {"architecture": "conditional", "layers": 2},
    "conditional-lstm": {"architecture": "conditional", "cell": "lstm", "context_gate": "target"},
    "bahdanau-new-state": {"architecture": "bahdanau-new-state", "layers": 2},
    "bahdanau-new-state-lstm": {"architecture": "bahdanau-new-state", "cell": "lstm", "residual_from": 1},
    "gnmt": {"architecture": "gnmt", "layers": 3, "residual_from": 3},
    "gnmt-lstm-past": {"architecture": "gnmt", "cell": "lstm", "layers": 2, "self_attention_window": 2},
    "gnmt-tied-thought-vector": {"architecture": "gnmt", "tied_embeddings": True, "score": "none"},
    "gated": {"context_gate": "both"},
    "gated-source-unfed": {"context_gate": "source", "input_feeding": False},
    "past-bahdanau": {"self_attention_window": 2, "architecture": "bahdanau", "cell": "lstm"},
    "past-thought-vector": {"self_attention_window": 3, "score": "none", "input_feeding": False},
    "deep-luong": {"readout_type": "deep", "readout": 5},
    "token-gnmt": {"readout_type": "attentional-token", "architecture": "gnmt", "layers": 2},
    "state-bahdanau": {"readout_type": "state", "architecture": "bahdanau-new-state"},
    "attentional-bahdanau-uniform": {"readout_type": "attentional", "architecture": "bahdanau", "score": "uniform"},
    "sru": {"cell": "sru", "layers": 2},
    "sru-conditional-thought-vector": {"cell": "sru", "architecture": "conditional", "score": "none"},
    "transitions": {"transitions": 3, "layers": 2},
    "transitions-lstm-bahdanau": {"transitions": 2, "cell": "lstm", "architecture": "bahdanau"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_choice_is_the_papers(name):
    config, graph, weights = made(**{"cell": "gru", "bridge": "zero", "score": "general", **OTHERS[name]})
    given = given_for(graph, weights, dropped=True)
    with jax.disable_jit():
        unrolled, stepped = both(graph, given)
    wanted = oracle(config, OTHERS[name].get("score", "general"), given)
    oracles.same(in_order(stepped), wanted, tolerance=1e-5)
    oracles.same(in_order(unrolled), wanted, tolerance=1e-5)


OF_PAPERS = [name for name, kind in ARCHITECTURES.items() if name != "luong" and not kind.latent_alignment]


@pytest.mark.parametrize("architecture", OF_PAPERS)
@pytest.mark.parametrize("layer", [1, 2])
def test_every_residual_connection_changes_the_logits_and_has_the_slopes_of_its_formula(architecture, layer):
    """The connection at one layer, by its difference from a decoder with one connection fewer."""
    settings = {"cell": "gru", "bridge": "zero", "layers": 2, "architecture": architecture}
    config, graph, weights = made(residual_from=layer, **settings)
    given = given_for(graph, weights, dropped=True)
    _, graph_without, _ = made(residual_from=(layer + 1) % 3, **settings)
    start_of = {"output": jax.eval_shape(lambda given: start(graph_without, given)[1].output, given)}
    fewer = {**given, **({} if jax.tree.leaves(start_of) else {"output": ()})}
    with jax.disable_jit():
        (unrolled, stepped), pull = jax.vjp(lambda given: both(graph, given), given)
        (_, plain) = both(graph_without, fewer)
        weights, zero = oracles.drawn(stepped, seed=9), jax.tree.map(jnp.zeros_like, stepped)
        (of_unrolled,), (of_stepped,) = pull((weights, zero)), pull((zero, weights))
    assert np.abs(stepped[1].logits - plain[1].logits)[:, 1:].min(-1).max() > 1e-4
    along = oracles.drawn(given, seed=4)
    slopes = oracles.slope(lambda given: oracle(config, "general", given), given, along)
    oracles.same(
        oracles.along_gradient(of_stepped, along), oracles.along_gradient(in_order(weights), slopes), tolerance=2e-4
    )
    oracles.same(unrolled, stepped, tolerance=1e-5)
    oracles.same(of_unrolled, of_stepped, tolerance=1e-5)


@pytest.mark.parametrize("input_feeding", [True, False])
def test_slopes_through_the_own_past_are_the_papers(input_feeding):
    """Also those of the states from before the unroll; what stands where there was no step yet has none."""
    config, graph, weights = made(cell="gru", bridge="zero", self_attention_window=3, input_feeding=input_feeding)
    given = given_for(graph, weights, dropped=True)
    with jax.disable_jit():
        (_, stepped), pull = jax.vjp(lambda given: tuple(map(in_order, both(graph, given))), given)
        weights, zero = oracles.drawn(stepped, seed=9), jax.tree.map(jnp.zeros_like, stepped)
        weights = (weights[0], weights[1], jnp.zeros_like(weights[2]), *weights[3:])  # the buffer shows its own slopes
        (of_unrolled,), (of_stepped,) = pull((weights, zero)), pull((zero, weights))
    along = oracles.drawn(given, seed=4)
    slopes = oracles.slope(lambda given: oracle(config, "general", given), given, along)
    oracles.same(oracles.along_gradient(of_stepped, along), oracles.along_gradient(weights, slopes), tolerance=2e-4)
    oracles.same(of_unrolled, of_stepped, tolerance=1e-5)
    reached = np.abs(of_unrolled["past"]).max(-1) > 0
    np.testing.assert_array_equal(reached, np.arange(3) >= 3 - np.minimum(STEPS_BEFORE, 3)[:, None])


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_what_an_encoder_left_on_padding_changes_nothing(fill):
    """No value, and no slope of anything: 0 x NaN is NaN, so zero weights alone would let it through."""
    _, graph, weights = made(score="additive", bridge="mean", cell="gru", architecture="bahdanau")
    given = given_for(graph, weights, dropped=False)
    clean, dirty = (
        {**given, "encoded": given["encoded"]._replace(outputs=jnp.where(MASK[..., None], outputs, filling))}
        for outputs in (given["encoded"].outputs,)
        for filling in (0.0, fill)
    )

    def results(given):
        memory, state = start(graph, given)
        result = unroll(nnx.merge(graph, given["weights"]), memory, state, jnp.asarray(TOKENS))
        return oracles.weighed((memory.values, *result))

    with jax.disable_jit():
        wanted, ours = (jax.value_and_grad(results)(given) for given in (clean, dirty))
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)


@pytest.mark.parametrize("order", ["unfed", "bahdanau"])
def test_jit_changes_nothing(order):
    _, graph, weights = made(score="general", bridge="zero", cell="gru", **ORDERS[order])
    given = given_for(graph, weights, dropped=False)
    with jax.disable_jit():
        plain = both(graph, given)
    oracles.same(oracles.compiled(lambda given: both(graph, given))(given), plain, tolerance=1e-5)


ENDS = [
    (EncoderConfig(cell="lstm", size=2, layers=2), DecoderConfig(size=4, cell="lstm")),
    (EncoderConfig(cell="gru", size=2, layers=2), DecoderConfig(size=4, cell="gru", layers=2)),
    # fewer layers: the top one serves them all
    (EncoderConfig(cell="lstm", size=2), DecoderConfig(size=4, cell="lstm", layers=2)),
    # no cell state: the output serves for it
    (EncoderConfig(cell="gru", size=3), DecoderConfig(size=4, cell="lstm", layers=2)),
    (EncoderConfig(cell="lstm", size=3, bidirectional=False), DecoderConfig(size=4, cell="gru")),
]


def bridge_between(encoder, decoder, *, name):
    """The graph and the drawn weights of a bridge."""
    widths = {"end": encoder.width, "ends": encoder.layers, "layers": decoder.layers}
    states = {"end_states": oracles.LEAVES[encoder.cell], "states": oracles.LEAVES[decoder.cell]}
    return oracles.made(
        lambda rngs: BRIDGES[name](**widths, **states, size=decoder.size, dtype=jnp.float32, rngs=rngs), seed=1
    )


@pytest.mark.parametrize("name", sorted(BRIDGES))
def test_bridges_are_the_papers(name):
    ends = ENDS[:3] if name == "last" else ENDS
    graphs, weights = zip(*(bridge_between(*pair, name=name) for pair in ends), strict=True)
    left = [oracles.drawn(left_by(encoder), seed=2) for encoder, _ in ends]
    left = [one._replace(outputs=jnp.asarray(one.outputs * np.float32(MASK[..., None]))) for one in left]

    def crossed(weights, left):
        bridges = map(nnx.merge, graphs, weights)
        return [bridge(encoded, jnp.asarray(MASK)) for bridge, encoded in zip(bridges, left, strict=True)]

    for carry, weight, encoded, (_, config) in zip(
        oracles.compiled(crossed)(weights, left), weights, left, ends, strict=True
    ):
        params = oracles.precise(nnx.to_pure_dict(weight))
        weight = params.get("weight", params.get("start"))
        for row, length in enumerate(LENGTHS):
            memory, end = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row], np.float64), tuple(encoded[:2]))
            wanted = oracles.bridge(weight, name, config, memory[:length], end)
            oracles.same(jax.tree.map(lambda leaf, row=row: leaf[row], carry), wanted, tolerance=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "gmnt"}, "did you mean 'gnmt'"),
        ({"transitions": 0}, "model.decoder.transitions must be positive, got 0"),
        ({"transitions": 2, "cell": "sru"}, "transitions=1, or model.decoder.cell=gru"),
        ({"self_attention_window": -1}, "model.decoder.self_attention_window must be zero or more, got -1"),
    ],
)
def test_choices_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DecoderConfig(**settings)


def test_the_names_of_choices_are_those_of_the_tables():
    assert typing.get_args(ArchitectureName) == tuple(ARCHITECTURES)
    assert typing.get_args(BridgeName) == tuple(BRIDGES)
    assert typing.get_args(ContextGateName) == ("none", *GATES)
    assert typing.get_args(ReadoutName) == ("architecture", *READOUTS)


class TwoQueries(Architecture):
    """An architecture from outside: the mean of the old and the new top state queries and predicts."""

    has_input_feeding = True

    def advance(self, layers, carries, attend):
        bottom, output = layers.bottom(carries[0], layers.feedback)
        upper, output = layers.upper(carries[1:], output)
        mean = (output + carries[-1][0]) / 2
        return Advanced((bottom, *upper), attend(mean), mean)


@pytest.mark.parametrize("layers", [1, 2])
def test_an_architecture_of_ones_own_is_one_class_and_one_line(monkeypatch, layers):
    """Its unroll is the scan of its steps, with dropout, in value and gradient."""
    monkeypatch.setitem(ARCHITECTURES, "two-queries", TwoQueries)
    config, graph, weights = made(architecture="two-queries", cell="gru", bridge="zero", layers=layers)
    assert config.feeds_back
    given = given_for(graph, weights, dropped=True)
    with jax.disable_jit():
        (unrolled, stepped), pull = jax.vjp(lambda given: both(graph, given), given)
    oracles.same(unrolled, stepped, tolerance=1e-5)
    weights, zero = oracles.drawn(stepped, seed=9), jax.tree.map(jnp.zeros_like, stepped)
    (of_unrolled,), (of_stepped,) = pull((weights, zero)), pull((zero, weights))
    oracles.same(of_unrolled, of_stepped, tolerance=1e-5)
    assert np.abs(of_stepped["weights"]["readout"]["weight"][...]).max() > 1e-3
