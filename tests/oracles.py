"""The formulas of the papers in slow NumPy loops, written from the papers and not from the code.

One sentence at a time, in float64, without padding: a wrong mask, axis or precision in the code has nothing here to
agree with. Weights have the layout that the model documents: `vector @ weight`, rows `[inputs | extra inputs | state]`.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# The compiler takes far longer than the computation. jax 0.12 no longer knows the slower of two emitters.
QUICK = {"xla_backend_optimization_level": 0}
QUICK |= {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
compiled = functools.partial(jax.jit, compiler_options=QUICK)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(x):
    """Mean 0, variance 1; the paper has no guard in the root, the code's is 1e-6."""
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-6)


def rows(cell):
    """`[inputs | extra inputs | state]`, which the code keeps in two matrices."""
    return np.concatenate([cell[name] for name in ("input_kernel", "weight") if name in cell])


def blocks(cell, size):
    """The weights of the input and of the state, and the bias, one of each per gate."""
    feeding, recurrent = rows(cell)[:-size], rows(cell)[-size:]
    gates = cell["bias"].size // size
    return (np.split(matrix, gates, axis=-1) for matrix in (feeding, recurrent, cell["bias"]))


def rnn(cell, carry, x, keep=1.0):
    """Elman 1990: h' = tanh(W x + U h + b)."""
    (h,) = carry
    (W,), (U,), (b,) = blocks(cell, h.size)
    new = np.tanh(x @ W + (h * keep) @ U + b)
    return (new,), new


def gru(cell, carry, x, keep=1.0):
    """The cuDNN manual: n = tanh(W x + b + r * (U h + c)), h' = (1 - z) n + z h."""
    (h,) = carry
    (Wr, Wz, Wn), (Ur, Uz, Un), (br, bz, bn) = blocks(cell, h.size)
    seen = h * keep
    r, z = sigmoid(x @ Wr + seen @ Ur + br), sigmoid(x @ Wz + seen @ Uz + bz)
    n = np.tanh(x @ Wn + bn + r * (seen @ Un + cell["inner_bias"]))
    new = (1 - z) * n + z * h
    return (new,), new


def gru_reset_before(cell, carry, x, keep=1.0):
    """Cho et al. 2014, eq. 5-8: n = tanh(W x + U (r * h)), h' = (1 - z) n + z h."""
    (h,) = carry
    (Wr, Wz, Wn), (Ur, Uz, Un), (br, bz, bn) = blocks(cell, h.size)
    seen = h * keep
    r, z = sigmoid(x @ Wr + seen @ Ur + br), sigmoid(x @ Wz + seen @ Uz + bz)
    n = np.tanh(x @ Wn + (r * seen) @ Un + bn)
    new = (1 - z) * n + z * h
    return (new,), new


def lstm(cell, carry, x, keep=1.0):
    """Gers et al. 2000 without peepholes: c' = f c + i g, h' = o tanh(c')."""
    h, c = carry
    weights, recurrent, biases = blocks(cell, h.size)
    i, f, o, g = (x @ W + (h * keep) @ U + b for W, U, b in zip(weights, recurrent, biases, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def layer_norm_lstm(cell, carry, x, keep=1.0):
    """Ba et al. 2016, eq. 20-22: both sums over all four gates normalized, then the cell before its tanh."""
    h, c = carry
    of_input, of_state = x @ rows(cell)[: -h.size], (h * keep) @ rows(cell)[-h.size :]
    gates = cell["input_gain"] * normal(of_input) + cell["state_gain"] * normal(of_state) + cell["bias"]
    i, f, o, g = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(cell["cell_gain"] * normal(c) + cell["cell_bias"])
    return (h, c), h


def layer_norm_gru(cell, carry, x, keep=1.0):
    """Ba et al. 2016, supplement: the sums of both gates normalized together, those of the candidate by themselves."""
    (h,) = carry
    of_input, of_state = x @ rows(cell)[: -h.size], (h * keep) @ rows(cell)[-h.size :]
    both = slice(0, 2 * h.size), slice(2 * h.size, None)
    (x_gates, x_new), (h_gates, h_new) = (
        [cell[gain][part] * normal(sums[part]) for part in both]
        for gain, sums in (("input_gain", of_input), ("state_gain", of_state))
    )
    r, z = np.split(sigmoid(x_gates + h_gates + cell["bias"][both[0]]), 2)
    n = np.tanh(x_new + cell["bias"][both[1]] + r * (h_new + cell["inner_bias"]))
    new = (1 - z) * n + z * h
    return (new,), new


def sru(cell, carry, x, keep=1.0):
    """Lei et al. 2018, eq. 1-4: f, r = sigmoid(W x + v * c + b), c' = f c + (1 - f) W x, h' = r c' + (1 - r) W x."""
    _, c = carry
    of_f, of_r, candidate, shortcut = np.split(x @ rows(cell) if x.size else np.zeros(4 * c.size), 4)
    (v_f, v_r), (b_f, b_r) = np.split(cell["cell_kernel"], 2), np.split(cell["bias"], 2)
    f, r = sigmoid(of_f + v_f * (c * keep) + b_f), sigmoid(of_r + v_r * (c * keep) + b_r)
    c = f * c + (1 - f) * candidate
    h = r * c + (1 - r) * shortcut
    return (h, c), h


CELLS = {
    "rnn": rnn,
    "gru": gru,
    "gru-reset-before": gru_reset_before,
    "layer-norm-gru": layer_norm_gru,
    "lstm": lstm,
    "layer-norm-lstm": layer_norm_lstm,
    "sru": sru,
}
LEAVES = {name: 2 if "lstm" in name or name == "sru" else 1 for name in CELLS}


def zoned(config, before, after):
    """Krueger et al. 2017, eq. 2-3, in expectation: a leaf is z times the old one and 1 - z times the new one."""
    rates = (config.zoneout, config.cell_zoneout)
    return tuple(z * old + (1 - z) * new for z, old, new in zip(rates, before, after, strict=False))


def encode(encoder, config, sentence):
    """Outputs [n, M] and one carry per layer, directions concatenated, of the vectors [n, E] of one sentence."""
    read, carries = sentence, []
    for layer in range(config.layers):
        outputs, ends = [], []
        for direction, backward in enumerate(config.backward(layer)):
            cell = {name: array[direction] for name, array in encoder["cells"][layer].items()}
            order = range(len(sentence))[::-1] if backward else range(len(sentence))
            carry = (np.zeros(config.size),) * LEAVES[config.cell]
            if config.learned_start:
                carry = tuple(encoder["starts"][layer][:, direction])
            states = np.zeros((len(sentence), config.size))
            for position in order:
                carry = zoned(config, carry, CELLS[config.cell](cell, carry, read[position])[0])
                states[position] = carry[0]
            outputs.append(states)
            ends.append(carry)
        output = np.concatenate(outputs, axis=-1)
        ends = ends[-1:] if layer < config.bidirectional_layers < config.layers else ends  # as GNMT: the backward one's
        carries.append(tuple(np.concatenate(leaves) for leaves in zip(*ends, strict=True)))
        # Wu et al. 2016, section 3.1: the input of a layer is added to what the layer above reads.
        read = output + read if 0 < config.residual_from <= layer + 1 else output
    return read, carries


# Every score gets the position of the token; most ignore it.
def dot(score, query, memory, *_):
    return query @ memory


def scaled_dot(score, query, memory, *_):
    return query @ memory / np.sqrt(query.size)


def cosine(score, query, memory, *_):
    """The paper has no guard against zero vectors; the code's is 1e-6 in each root."""
    lengths = np.sqrt(query @ query + 1e-6) * np.sqrt(memory @ memory + 1e-6)
    return score["temperature"] * (query @ memory) / lengths


def linear(score, query, memory, *_):
    return score["weight"] @ np.concatenate([query, memory, query * memory, query - memory]) + score["bias"]


def general(score, query, memory, *_):
    return query @ (memory @ score["weight"])


def scaled_general(score, query, memory, *_):
    return score["gain"] * (query @ (memory @ score["weight"]))


def biaffine(score, query, memory, *_):
    bilinear = query @ (memory @ score["weight"])
    return bilinear + score["query_kernel"] @ query + score["memory_kernel"] @ memory + score["bias"]


def tanh_dot(score, query, memory, *_):
    projected = np.tanh(query @ score["query_kernel"] + score["query_bias"])
    return projected @ np.tanh(memory @ score["memory_kernel"] + score["memory_bias"])


def concat(score, query, memory, *_):
    return score["vector"] @ np.tanh(np.concatenate([query, memory]) @ score["weight"] + score.get("bias", 0.0))


def additive(score, query, memory, *_):
    inner = query @ score["query_kernel"] + memory @ score["memory_kernel"] + score.get("bias", 0.0)
    return score["vector"] @ np.tanh(inner)


def additive_layer_norm(score, query, memory, *_):
    of_query = score["query_gain"] * normal(query @ score["query_kernel"])
    of_memory = score["memory_gain"] * normal(memory @ score["memory_kernel"])
    return score["vector"] @ np.tanh(of_query + of_memory + score.get("bias", 0.0))


def normalized_additive(score, query, memory, *_):
    vector = score["gain"] * score["vector"] / np.sqrt((score["vector"] ** 2).sum())
    return vector @ np.tanh(query @ score["query_kernel"] + memory @ score["memory_kernel"] + score["bias"])


def location(score, query, memory, position):
    return (query @ score["weight"])[position]


SCORES = {
    "dot": dot,
    "scaled-dot": scaled_dot,
    "cosine": cosine,
    "linear": linear,
    "general": general,
    "scaled-general": scaled_general,
    "biaffine": biaffine,
    "tanh-dot": tanh_dot,
    "concat": concat,
    "additive": additive,
    "additive-layer-norm": additive_layer_norm,
    "normalized-additive": normalized_additive,
    "location": location,
    "uniform": lambda *_: 0.0,
}


def attend(score, name, query, memory):
    """Context and alignment over the real tokens of one sentence; zeros where it has none."""
    if name == "none":
        return np.zeros(0), np.zeros(len(memory))
    energies = np.array([SCORES[name](score, query, token, place) for place, token in enumerate(memory)])
    weights = np.exp(energies - energies.max(initial=-np.inf))
    weights /= weights.sum() or 1.0
    context = np.zeros(memory.shape[-1])
    for weight, token in zip(weights, memory, strict=True):
        context += weight * token
    return context, weights


def bridge(weight, name, config, memory, ends):
    """One carry per decoder layer: zeros, the weight itself, copies, tanh(W last) or tanh(W mean)."""
    mean = memory.mean(0) if len(memory) else np.zeros(memory.shape[-1])
    carries = []
    for layer in range(config.layers):
        end, carry = ends[min(layer, len(ends) - 1)], []
        for leaf in range(LEAVES[config.cell]):
            last = end[leaf] if leaf < len(end) else end[0]
            if name == "zero":
                carry.append(np.zeros(config.size))
            elif name == "learned":
                carry.append(weight[layer, leaf])
            elif name == "last":
                carry.append(last)
            else:
                carry.append(np.tanh((mean if name == "mean" else last) @ weight[layer, leaf]))
        carries.append(tuple(carry))
    return carries


def decoder_start(decoder, config, memory, ends):
    """The state before the first token: the bridge's carries, no feedback, no earlier states, and an output.

    The output is the last one of the layer that queries in Bahdanau's order and in GNMT; at first that layer's state.
    """
    carries = bridge(decoder.get("bridge", {}).get("weight"), config.bridge, config, memory, ends)
    fed = np.zeros(decoder["readout"]["weight"].shape[-1] if config.feeds_back else 0)
    return carries, fed, [], carries[0 if config.architecture == "gnmt" else -1][0]


def decoder_step(decoder, config, score, memory, state, token, drops=None):
    """The next state, and (logits, alignment, context) of one step of one sentence."""
    carries, fed, before, last = state
    # One dropout mask for all that read it: the cell and the readout.
    embedded = decoder["embedding"][token] * (1.0 if drops is None else drops.inputs[0])
    of_score = decoder.get("attention", {}).get("score", {})
    if config.architecture in ("bahdanau", "bahdanau-new-state"):  # Bahdanau et al. 2015, A.1.2 and A.2.2
        context, alignment = attend(of_score, score, last, memory)
        carries, top = stack(decoder["cells"], config, carries, embedded, context, drops)
        state_out, last = last if config.architecture == "bahdanau" else top, top
    elif (
        config.architecture == "gnmt"
    ):  # Wu et al. 2016, section 3: y_{i-1} of the bottom layer; a_i goes to all layers
        context, alignment = attend(of_score, score, last, memory)
        (lowest,), last = stack(decoder["cells"], config, carries[:1], embedded, context, drops)
        upper, state_out = stack(
            decoder["cells"], config, carries[1:], last, np.zeros(0), drops, context=context, lowest=1
        )
        carries = [lowest, *upper]
    elif config.architecture == "conditional":  # Sennrich et al. 2017, eq. 4-9: two cells with attention between them
        (lowest,), _ = stack(decoder["cells"], config, carries[:1], embedded, np.zeros(0), drops)
        context, alignment = attend(of_score, score, lowest[0], memory)
        keep_state = 1.0 if drops is None else drops.states[0]
        lowest, below = CELLS[config.cell](decoder["architecture"]["second_cell"], lowest, context, keep_state)
        below = below + embedded if config.residual_from == 1 else below
        upper, state_out = stack(decoder["cells"], config, carries[1:], below, np.zeros(0), drops, lowest=1)
        carries = [lowest, *upper]
    else:
        extra = fed if config.input_feeding else np.zeros(0)
        carries, state_out = stack(decoder["cells"], config, carries, embedded, extra, drops)
        context, alignment = attend(of_score, score, state_out, memory)
    seen = state_out
    if config.self_attention_window:
        recent = before[-config.self_attention_window :]
        seen = np.concatenate([state_out, own_past(decoder["self_attention"]["weight"], state_out, recent)])
    vector = readout_vector(decoder.get("readout", {}), config, context, seen, embedded)
    vector = vector * (1 if drops is None else drops.readout)
    out_of = (decoder["embedding"] if config.tied_embeddings else decoder["output"]).T
    return (carries, vector, [*before, state_out], last), (vector @ out_of + decoder["output_bias"], alignment, context)


def own_past(weight, state, before):
    """Paulus et al. 2018, eq. 6-8: e = h_t W h_j, weights by softmax, the sum of the weighted h_j; zeros at first."""
    energies = [sum(state[a] * weight[a, b] * old[b] for a, b in np.ndindex(weight.shape)) for old in before]
    shares = np.exp(np.array(energies) - max(energies, default=0.0))
    return sum((share / shares.sum() * old for share, old in zip(shares, before, strict=True)), np.zeros(state.size))


def readout_vector(readout, config, context, state_out, embedded):
    """The vector that predicts the token."""
    whole = np.concatenate([context, state_out, embedded])
    if config.context_gate != "none":  # Tu et al. 2017: z weighs source and target, or one of the two
        gate = sigmoid(whole @ readout["weight"])
        target = np.concatenate([state_out, embedded]) @ readout["target_kernel"]
        source = context @ readout["source_kernel"]
        shares = {"both": (1 - gate, gate), "source": (1, gate), "target": (gate, 1)}[config.context_gate]
        return np.tanh(shares[0] * target + shares[1] * source)
    own = {"gnmt": "state", "bahdanau": "deep", "bahdanau-new-state": "deep", "conditional": "attentional-token"}
    kind = config.readout_type
    kind = own.get(config.architecture, "attentional") if kind == "architecture" else kind
    if kind == "state":  # Wu et al. 2016, figure 1: the softmax reads the top state
        return state_out
    if kind == "deep":
        # A.2.2: t~ = U_o s + V_o E y + C_o c, t = the larger of each pair of neighbors.
        pairs = whole @ readout["weight"]
        return np.array([max(pairs[2 * j], pairs[2 * j + 1]) for j in range(pairs.size // 2)])
    seen = whole if kind == "attentional-token" else whole[: context.size + state_out.size]
    return np.tanh(seen @ readout["weight"])


def stack(cells, config, carries, embedded, extra, drops, context=None, *, lowest=0):
    """Layers one step on, from the `lowest` up; layer 0 reads [embedding; extra], those above what is below them.

    A context is read by the upper layers too.
    """
    below, after = embedded, []
    for layer, carry in enumerate(carries, start=lowest):
        keep_input, keep_state = (1.0, 1.0) if drops is None else (drops.inputs[layer], drops.states[layer])
        reads = np.concatenate([below, extra]) if layer == 0 else below * keep_input
        if layer > 0 and context is not None:
            reads = np.concatenate([reads, context])
        new, output = transitions(cells[layer], config, carry, reads, keep_state)
        if config.zoneout or config.cell_zoneout:
            new = zoned(config, carry, new)
            output = new[0]
        after.append(new)
        below = output + below if 0 < config.residual_from <= layer + 1 else output
    return after, below


def transitions(cell, config, carry, reads, keep_state):
    """A cell, and after it those that the state goes through without input."""
    if config.transitions == 1:
        return CELLS[config.cell](cell, carry, reads, keep_state)
    carry, output = CELLS[config.cell](cell["first"], carry, reads, keep_state)
    for more in range(config.transitions - 1):
        carry, output = CELLS[config.cell](cell["more"][more], carry, np.zeros(0), keep_state)
    return carry, output


def decoder_steps(decoder, config, score, memory, state, tokens, drops=None):
    """The last state, and logits [T, V], alignments [T, n] and contexts [T, M] of one sentence."""
    steps = []
    for token in tokens:
        state, step = decoder_step(decoder, config, score, memory, state, token, drops)
        steps.append(step)
    return state, tuple(np.array(part) for part in zip(*steps, strict=True))


def precise(tree):
    """Every array in float64, and layers numbered: what a pure dict of the code is to an oracle."""
    if isinstance(tree, dict):
        return {int(name) if str(name).isdigit() else name: precise(leaf) for name, leaf in tree.items()}
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def drawn(shapes, *, seed, scale=0.7):
    """Normal numbers, float32, in place of every shape: no zero bias and no unit gain that could hide an error."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray((scale * random.normal(size=leaf.shape)).astype(np.float32)), shapes)


class OneKey(nnx.Rngs):
    """The same key for every parameter, where only shapes are wanted: drawing keys is half the time of `made`."""

    def __init__(self):
        pass

    def params(self):
        return jax.random.key(0)


def made(module, *, seed):
    """A module's graph and drawn parameters, without the cost of its own initializers."""
    graph, state = nnx.split(nnx.eval_shape(lambda: module(OneKey())))
    return graph, drawn(state, seed=seed)


def slope(function, at, along, *, step=1e-5):
    """The central difference of a function of a tree, a tree of arrays, in a direction."""

    def moved(shift):
        return jax.tree.map(lambda x, d: np.asarray(x, np.float64) + shift * np.asarray(d, np.float64), at, along)

    ahead, back = function(moved(step)), function(moved(-step))
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, back)


def weighed(outputs, *, seed=9):
    """A weighted sum of all outputs: its gradient depends on the gradient of each of them."""
    weights = drawn(outputs, seed=seed)
    return sum((weight * leaf).sum() for weight, leaf in zip(*map(jax.tree.leaves, (weights, outputs)), strict=True))


def rounding():
    """The tolerance between two equal programs: zero as users compile them, a rounding without optimization."""
    return 1e-6 if "optimization_level=0" in os.environ.get("XLA_FLAGS", "") else 0.0


def along_gradient(gradient, along):
    """The slope in a direction, from a gradient."""
    pairs = zip(*map(jax.tree.leaves, (gradient, along)), strict=True)
    return sum(float((np.asarray(one, np.float64) * np.asarray(other, np.float64)).sum()) for one, other in pairs)


def gradient(function, at, *, step=1e-5):
    """The whole gradient of a number that depends on a tree: a central difference for every entry of every leaf."""
    leaves, shape = jax.tree.flatten(jax.tree.map(lambda leaf: np.array(leaf, np.float64), at))
    slopes = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, out in zip(leaves, slopes, strict=True):
        for index in np.ndindex(leaf.shape):
            kept, sides = leaf[index], []
            for sign in (step, -step):
                leaf[index] = kept + sign
                sides.append(function(jax.tree.unflatten(shape, leaves)))
            leaf[index] = kept
            out[index] = (sides[0] - sides[1]) / (2 * step)
    return jax.tree.unflatten(shape, slopes)


def same(ours, wanted, *, tolerance):
    """Assert that two trees hold the same numbers, relative to the size of each wanted array."""
    ours, wanted = jax.tree.leaves(ours), jax.tree.leaves(wanted)
    assert len(ours) == len(wanted)
    for one, other in zip(ours, wanted, strict=True):
        assert np.shape(one) == np.shape(other)
        bound = tolerance * max(1.0, np.abs(other).max(initial=0.0))
        np.testing.assert_allclose(np.asarray(one, np.float64), np.asarray(other, np.float64), rtol=0, atol=bound)
