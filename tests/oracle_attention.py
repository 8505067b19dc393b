"""The papers' formulas of attention over several steps, in slow NumPy: histories, scores, constraints, heads, values.

One sentence at a time, in float64, without padding. There is no recurrent state: each step computes what it remembers
from the list of all earlier steps, so that an error in a recurrence of the code cannot be repeated here.
"""

import math
from typing import NamedTuple

import numpy as np
import oracles


class Step(NamedTuple):
    """Everything on which a step may depend; lists have an entry for each earlier step."""

    weights: dict
    config: object
    memory: np.ndarray  # of which the keys are made
    queries: np.ndarray  # up to this step's
    noises: list | None  # up to this step's; None where nothing is drawn
    scores: list
    alignments: list
    stops: list  # where monotonic walks stopped, and forward attention was
    contexts: list

    @property
    def query(self):
        return self.queries[-1]

    @property
    def time(self):
        return len(self.queries) - 1

    @property
    def tokens(self):
        return len(self.memory)


def attend(weights, config, queries, memory, noises=None):
    """Contexts [T, V] and alignments [T, n] of one sentence."""
    read, values = halves(weights, config, memory)
    scores, alignments, stops, contexts = [], [], [], []
    for time in range(len(queries)):
        so_far = None if noises is None else noises[: time + 1]
        step = Step(weights, config, read, queries[: time + 1], so_far, scores, alignments, stops, contexts)
        raw = SCORES[config.score](step)
        alignment, stop = CONSTRAINTS[config.constraint](step, adjusted(step, raw))
        context = np.zeros(values.shape[-1])
        for weight, value in zip(alignment, values, strict=True):
            context = context + weight * value
        for kept, new in ((scores, raw), (alignments, alignment), (stops, stop), (contexts, context)):
            kept.append(new)
    return np.array(contexts), np.array(alignments)


def halves(weights, config, memory):
    """Daniluk et al. 2017: the states of which keys are made, and those that are averaged."""
    if config.values == "split":
        return np.split(memory, 2, axis=-1)
    return memory, memory @ weights["value_kernel"] if config.values == "projected" else memory


def side_by_side(weights, config, queries, memory, _):
    """Vaswani et al. 2017, 3.2.2: every head attends to its own map of the memory; one alignment per head."""
    contexts, alignments = [], []
    for head in range(config.heads):
        parameters = head_weights(weights["heads"], head)
        context, alignment = attend(
            parameters, config, queries @ parameters["query_kernel"], memory @ parameters["memory_kernel"]
        )
        contexts.append(context)
        alignments.append(alignment)
    return np.concatenate(contexts, axis=-1), np.stack(alignments, axis=1)


def head_weights(weights, head):
    return {name: head_weights(one, head) if isinstance(one, dict) else one[head] for name, one in weights.items()}


# Scores.


def additive(step):
    """Bahdanau et al. 2015; Tu et al. 2016, eq. 7: v . tanh(W q + U h + V C)."""
    score, terms = step.weights["score"], key_terms(step)
    out = np.zeros(step.tokens)
    for s, token in enumerate(step.memory):
        inner = step.query @ score["query_kernel"] + token @ score["memory_kernel"] + terms[s]
        out[s] = score["vector"] @ np.tanh(inner)
    return out


def general(step):
    """Luong et al. 2015, with the history's features added to the key W h."""
    weight, terms = step.weights["score"]["weight"], key_terms(step)
    return np.array([step.query @ (token @ weight + term) for token, term in zip(step.memory, terms, strict=True)])


def dot(step):
    return np.array([step.query @ token for token in step.memory])


def location(step):
    projected = step.query @ step.weights["score"]["weight"]
    return np.array([projected[s] for s in range(step.tokens)])


def dynamic_convolution(step):
    """Battenberg et al. 2020, eq. 8-10; the first alignment before the first step is all on the first token."""
    score, n = step.weights["score"], step.tokens
    before = step.alignments[-1] if step.alignments else np.eye(n)[0]
    width = len(score["filters"])
    filters = np.tanh(step.query @ score["query_kernel"] + score["query_bias"]) @ score["dynamic_kernel"]
    filters = filters.reshape(width, -1)
    prior = prior_of(10, 0.1, 0.9)
    out = np.zeros(n)
    for s in range(n):
        static = around(before[:, None], score["filters"][:, None], s)
        dynamic = around(before[:, None], filters[:, None], s)
        inner = np.concatenate([static, dynamic]) @ score["weight"] + score["bias"]
        moved = sum(prior[k] * before[s - k] for k in range(11) if s >= k)
        out[s] = score["vector"] @ np.tanh(inner) + np.log(max(moved, 1e-6))
    return out


def prior_of(n, a, b):
    """The beta-binomial distribution: n choose k, B(k + a, n - k + b) / B(a, b)."""

    def beta(x, y):
        return math.gamma(x) * math.gamma(y) / math.gamma(x + y)

    return [math.comb(n, k) * beta(k + a, n - k + b) / beta(a, b) for k in range(n + 1)]


def centers(step, move):
    """The center of each component: every step so far has moved it once."""
    return sum(move(raw_mixture(step, query)[2]) for query in step.queries)


def raw_mixture(step, query):
    score = step.weights["score"]
    return np.split(query @ score["query_kernel"] + score["bias"], 3)


def gaussian_mixture(step):
    """Graves 2013, eq. 46-51; the logarithm of his window."""
    weight, spread, _ = raw_mixture(step, step.query)
    center, out = centers(step, np.exp), np.zeros(step.tokens)
    for s in range(step.tokens):
        for i in range(center.size):
            out[s] += np.exp(weight[i]) * np.exp(-np.exp(spread[i]) * (center[i] - (s + 1)) ** 2)
    return np.log(out)


def softplus(x):
    return np.log1p(np.exp(x))


def gaussian_mixture_v2(step):
    """Battenberg et al. 2020, table 1, V2. The paper has no guard in the deviation, the code's is 1e-3."""
    weight, spread, _ = raw_mixture(step, step.query)
    center, out = centers(step, softplus), np.zeros(step.tokens)
    share, deviation = np.exp(weight) / np.exp(weight).sum(), softplus(spread) + 1e-3
    for s in range(step.tokens):
        for i in range(center.size):
            height = 1 / np.sqrt(2 * np.pi * deviation[i] ** 2)
            out[s] += share[i] * height * np.exp(-((s + 1 - center[i]) ** 2) / (2 * deviation[i] ** 2))
    return np.log(out)


SCORES = {
    "additive": additive,
    "location-aware": additive,  # Chorowski et al. 2015, eq. 9: the same formula, its terms convolved
    "general": general,
    "dot": dot,
    "location": location,
    "dynamic-convolution": dynamic_convolution,
    "gaussian-mixture": gaussian_mixture,
    "gaussian-mixture-v2": gaussian_mixture_v2,
}


# Histories: the features of each token, from all earlier steps.


def key_terms(step):
    """The term added to each key: U f_s, or U (F * f)_s."""
    if "history_features" not in step.weights:
        return np.zeros(step.tokens)
    terms, past = step.weights["history_features"], HISTORIES[step.config.history](step)
    if "filters" in terms:
        past = np.array([around(past, terms["filters"], s) for s in range(step.tokens)])
    return past @ terms["weight"]


def around(past, filters, s):
    """Chorowski et al. 2015, eq. 8: the convolution at token s, with zeros beyond the ends."""
    reach, out = len(filters) // 2, np.zeros(filters.shape[-1])
    for r in range(len(filters)):
        if 0 <= s + r - reach < len(past):
            out = out + past[s + r - reach] @ filters[r]
    return out


def previous(step):
    return (step.alignments[-1] if step.alignments else np.full(step.tokens, 1 / step.tokens))[:, None]


def coverage(step):
    """See et al. 2017, eq. 10: the sum over t' = 0, ..., t - 1, so this step is not in it."""
    return sum(step.alignments, np.zeros(step.tokens))[:, None]


def previous_and_coverage(step):
    return np.concatenate([previous(step), coverage(step)], axis=-1)


def fertility(step):
    """Tu et al. 2016, eq. 9: N sigmoid(U h)."""
    return step.config.fertility * oracles.sigmoid(step.memory @ step.weights["history"]["weight"][:, 0])


def coverage_fertility(step):
    """Tu et al. 2016, eq. 8: the sum of earlier weights by the fertility."""
    return coverage(step) / fertility(step)[:, None]


def coverage_tanh(step):
    """Tu et al. 2016, section 3.1.2: C_i = tanh(V C_{i-1} + U a_i + W h + Y t_i + b), from C_0 = 0."""
    parameters, size = step.weights["history"], step.config.coverage_size
    outputs = np.zeros((step.tokens, size))
    for alignment, query in zip(step.alignments, step.queries, strict=False):
        for s, token in enumerate(step.memory):
            of_rest = (
                alignment[s] * parameters["weight_feature_kernel"]
                + token @ parameters["memory_kernel"]
                + query @ parameters["query_kernel"]
            )
            outputs[s] = np.tanh(outputs[s] @ parameters["feature_kernel"] + of_rest + parameters["bias"])
    return outputs


def coverage_gru(step):
    """The same by a GRU with input [a_i; h; t_i], as `oracles.gru` has it; no bias on the inner product."""
    parameters, size = step.weights["history"], step.config.coverage_size
    rows = [
        parameters["weight_feature_kernel"][None],
        parameters["memory_kernel"],
        parameters["query_kernel"],
        parameters["feature_kernel"],
    ]
    cell = {"weight": np.concatenate(rows), "bias": parameters["bias"], "inner_bias": 0.0}
    outputs = np.zeros((step.tokens, size))
    for alignment, query in zip(step.alignments, step.queries, strict=False):
        for s, token in enumerate(step.memory):
            _, outputs[s] = oracles.gru(cell, (outputs[s],), np.concatenate([alignment[s : s + 1], token, query]))
    return outputs


HISTORIES = {
    "previous": previous,
    "coverage": coverage,
    "previous-and-coverage": previous_and_coverage,
    "coverage-fertility": coverage_fertility,
    "coverage-tanh": coverage_tanh,
    "coverage-gru": coverage_gru,
}


def adjusted(step, raw):
    """Paulus et al. 2018, eq. 3: exp(e_t) / sum_{j<t} exp(e_j) instead of exp(e_t), from the second step on."""
    if step.config.history != "intra-temporal" or not step.scores:
        return raw
    return np.log(np.exp(raw) / sum(np.exp(earlier) for earlier in step.scores))


# Constraints: the alignment, and what later steps need of it.


def softmax(scores, tokens):
    """The softmax over some tokens, 0 elsewhere."""
    out = np.zeros(len(scores))
    for s in tokens:
        out[s] = np.exp(scores[s])
    return out / (out.sum() or 1.0)


def none(step, scores):
    return softmax(scores, range(step.tokens)), None


def wait_k(step, scores):
    """Ma et al. 2019: g(t) = min(k + t - 1, n) tokens were read at step t = 1, 2, ..."""
    return softmax(scores, range(min(step.config.wait_k + (step.time + 1) - 1, step.tokens))), None


def near(step, center):
    return [s for s in range(step.tokens) if center - step.config.window <= s <= center + step.config.window]


def local_m(step, scores):
    """Luong et al. 2015, section 3.2: p_t = t."""
    return softmax(scores, near(step, min(step.time, step.tokens - 1))), None


def local_p(step, scores):
    """Luong et al. 2015, eq. 9-10: p_t = n sigmoid(v . tanh(W q)), deviation D / 2."""
    parameters = step.weights["constraint"]
    center = step.tokens * oracles.sigmoid(parameters["vector"] @ np.tanh(step.query @ parameters["query_kernel"]))
    weights, deviation = softmax(scores, near(step, center)), step.config.window / 2
    for s in range(step.tokens):
        weights[s] *= np.exp(-((s - center) ** 2) / (2 * deviation**2))
    return weights / (weights.sum() if step.config.renormalized else 1.0), None


def window(step, scores):
    """Chorowski et al. 2015, section 2.3: around the median of the previous alignment."""
    if not step.alignments:
        return softmax(scores, range(step.tokens)), None
    before, median = step.alignments[-1], 0
    while before[: median + 1].sum() < before.sum() / 2:
        median += 1
    return softmax(scores, near(step, median)), None


def probabilities(step, scores):
    """sigmoid(e + r + noise)."""
    energies = scores + step.weights["constraint"]["bias"]
    return oracles.sigmoid(
        energies if step.noises is None else energies + step.config.monotonic_noise * step.noises[-1]
    )


def is_hard(step):
    return step.config.monotonic_hard and step.noises is None


def previous_choice(step):
    return step.stops[-1] if step.stops else np.eye(step.tokens)[0]


def monotonic(step, scores):
    """Raffel et al. 2017, eq. 8-9: from every token of the last choice, past all tokens between, to the next choice."""
    choose, before, out = probabilities(step, scores), previous_choice(step), np.zeros(step.tokens)
    if is_hard(step):
        starts = np.flatnonzero(before)
        for s in range(starts[0] if len(starts) else step.tokens, step.tokens):
            if choose[s] > 0.5:
                out[s] = 1.0
                break
        return out, out
    for s in range(step.tokens):
        for k in range(s + 1):
            out[s] += choose[s] * before[k] * np.prod(1 - choose[k:s])
    return out, out


def second_scores(step):
    parameters = step._replace(weights={"score": step.weights["constraint"]["second_score"]})
    return SCORES[step.config.score](parameters)


def chunks(stops, energies, width):
    """Chiu & Raffel 2018, eq. 23: the softmax over each chunk, weighted by the probability that it ends there."""
    out = np.zeros(len(stops))
    for k in range(len(stops)):
        out += stops[k] * softmax(energies, range(max(0, k - width + 1), k + 1))
    return out


def mocha(step, scores):
    stops, _ = monotonic(step, scores)
    return chunks(stops, second_scores(step), step.config.mocha_chunk), stops


def milk(step, scores):
    """Arivazhagan et al. 2019: the missing weight goes to the last token, and the chunk begins at the first."""
    stops = monotonic(step, scores)[0].copy()
    stops[-1] += 1 - stops.sum()
    return chunks(stops, second_scores(step), step.tokens), stops


def stepwise(step, scores):
    """He et al. 2019, eq. 8: stay or move on by one; the last token is never left."""
    stay, before, out = probabilities(step, scores), previous_choice(step), np.zeros(step.tokens)
    stay = (stay >= 0.5).astype(float) if is_hard(step) else stay
    for s in range(step.tokens):
        if s + 1 < step.tokens:
            out[s] += before[s] * stay[s]
            out[s + 1] += before[s] * (1 - stay[s])
        else:
            out[s] += before[s]
    return out, out


def reached(step, scores, move):
    weights, before = softmax(scores, range(step.tokens)), previous_choice(step)
    out = np.zeros(step.tokens)
    for s in range(step.tokens):
        out[s] = ((1 - move) * before[s] + move * (before[s - 1] if s else 0.0)) * weights[s]
    return out / out.sum(), out / out.sum()


def forward(step, scores):
    """Zhang et al. 2018, algorithm 1."""
    return reached(step, scores, 0.5)


def forward_agent(step, scores):
    """Zhang et al. 2018, algorithm 2: u_0 = 1/2, u_t = sigmoid(W [c_t; q_t] + b) decides about step t + 1."""
    parameters = step.weights["constraint"]
    if not step.contexts:
        return reached(step, scores, 0.5)
    outputs = (
        step.contexts[-1] @ parameters["context_kernel"]
        + step.queries[-2] @ parameters["query_kernel"]
        + parameters["bias"]
    )
    return reached(step, scores, oracles.sigmoid(outputs))


CONSTRAINTS = {
    "none": none,
    "wait-k": wait_k,
    "local-m": local_m,
    "local-p": local_p,
    "window": window,
    "monotonic": monotonic,
    "mocha": mocha,
    "milk": milk,
    "stepwise": stepwise,
    "forward": forward,
    "forward-agent": forward_agent,
}
