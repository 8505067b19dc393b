"""What do the papers of attention over several steps say, in slow NumPy? Histories, places, constraints, heads, values.

One sentence at a time, in float64, without padding. Nothing is carried on: each step computes what it remembers from
the list of all earlier steps, so an error in a recurrence of the code has nothing here to agree with.
"""

import math
from typing import NamedTuple

import numpy as np
import oracles


class Now(NamedTuple):
    """All that a step may look at; lists have an entry for each earlier step."""

    weights: dict
    config: object
    memory: np.ndarray  # what keys are made of
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
        now = Now(weights, config, read, queries[: time + 1], so_far, scores, alignments, stops, contexts)
        raw = SCORES[config.score](now)
        alignment, stop = CONSTRAINTS[config.constraint](now, changed(now, raw))
        context = np.zeros(values.shape[-1])
        for weight, value in zip(alignment, values, strict=True):
            context = context + weight * value
        for kept, new in ((scores, raw), (alignments, alignment), (stops, stop), (contexts, context)):
            kept.append(new)
    return np.array(contexts), np.array(alignments)


def halves(weights, config, memory):
    """Daniluk et al. 2017: what is looked for, and what is averaged."""
    if config.values == "split":
        return np.split(memory, 2, axis=-1)
    return memory, memory @ weights["value_kernel"] if config.values == "projected" else memory


def side_by_side(weights, config, queries, memory, _):
    """Vaswani et al. 2017, 3.2.2: every head looks by itself, at maps of its own; an alignment a head."""
    contexts, alignments = [], []
    for head in range(config.heads):
        own = own_of(weights["heads"], head)
        context, alignment = attend(own, config, queries @ own["query_kernel"], memory @ own["memory_kernel"])
        contexts.append(context)
        alignments.append(alignment)
    return np.concatenate(contexts, axis=-1), np.stack(alignments, axis=1)


def own_of(weights, head):
    return {name: own_of(one, head) if isinstance(one, dict) else one[head] for name, one in weights.items()}


# Scores.


def additive(now):
    """Bahdanau et al. 2015; Tu et al. 2016, eq. 7: v . tanh(W q + U h + V C)."""
    score, marks = now.weights["score"], marks_of(now)
    out = np.zeros(now.tokens)
    for s, token in enumerate(now.memory):
        inner = now.query @ score["query_kernel"] + token @ score["memory_kernel"] + marks[s]
        out[s] = score["vector"] @ np.tanh(inner)
    return out


def general(now):
    """Luong et al. 2015, with what the history says added to the key W h."""
    weight, marks = now.weights["score"]["weight"], marks_of(now)
    return np.array([now.query @ (token @ weight + mark) for token, mark in zip(now.memory, marks, strict=True)])


def dot(now):
    return np.array([now.query @ token for token in now.memory])


def location(now):
    asked = now.query @ now.weights["score"]["weight"]
    return np.array([asked[s] for s in range(now.tokens)])


def dynamic_convolution(now):
    """Battenberg et al. 2020, eq. 8-10; the first alignment before the first step is all on the first token."""
    score, n = now.weights["score"], now.tokens
    before = now.alignments[-1] if now.alignments else np.eye(n)[0]
    width = len(score["filters"])
    made = np.tanh(now.query @ score["query_kernel"] + score["query_bias"]) @ score["dynamic_kernel"]
    made = made.reshape(width, -1)
    prior = prior_of(10, 0.1, 0.9)
    out = np.zeros(n)
    for s in range(n):
        static = around(before[:, None], score["filters"][:, None], s)
        dynamic = around(before[:, None], made[:, None], s)
        inner = np.concatenate([static, dynamic]) @ score["weight"] + score["bias"]
        moved = sum(prior[k] * before[s - k] for k in range(11) if s >= k)
        out[s] = score["vector"] @ np.tanh(inner) + np.log(max(moved, 1e-6))
    return out


def prior_of(n, a, b):
    """The beta-binomial distribution: n choose k, B(k + a, n - k + b) / B(a, b)."""

    def beta(x, y):
        return math.gamma(x) * math.gamma(y) / math.gamma(x + y)

    return [math.comb(n, k) * beta(k + a, n - k + b) / beta(a, b) for k in range(n + 1)]


def centers(now, move):
    """Where each component stands: every step so far has moved it on once."""
    return sum(move(raw_mixture(now, query)[2]) for query in now.queries)


def raw_mixture(now, query):
    score = now.weights["score"]
    return np.split(query @ score["query_kernel"] + score["bias"], 3)


def gaussian_mixture(now):
    """Graves 2013, eq. 46-51; the logarithm of his window."""
    weight, spread, _ = raw_mixture(now, now.query)
    center, out = centers(now, np.exp), np.zeros(now.tokens)
    for s in range(now.tokens):
        for i in range(center.size):
            out[s] += np.exp(weight[i]) * np.exp(-np.exp(spread[i]) * (center[i] - (s + 1)) ** 2)
    return np.log(out)


def softplus(x):
    return np.log1p(np.exp(x))


def gaussian_mixture_v2(now):
    """Battenberg et al. 2020, table 1, V2. The paper has no guard in the deviation, the code's is 1e-3."""
    weight, spread, _ = raw_mixture(now, now.query)
    center, out = centers(now, softplus), np.zeros(now.tokens)
    share, deviation = np.exp(weight) / np.exp(weight).sum(), softplus(spread) + 1e-3
    for s in range(now.tokens):
        for i in range(center.size):
            height = 1 / np.sqrt(2 * np.pi * deviation[i] ** 2)
            out[s] += share[i] * height * np.exp(-((s + 1 - center[i]) ** 2) / (2 * deviation[i] ** 2))
    return np.log(out)


SCORES = {
    "additive": additive,
    "location-aware": additive,  # Chorowski et al. 2015, eq. 9: the same formula, its marks convolved
    "general": general,
    "dot": dot,
    "location": location,
    "dynamic-convolution": dynamic_convolution,
    "gaussian-mixture": gaussian_mixture,
    "gaussian-mixture-v2": gaussian_mixture_v2,
}


# Histories: what is said of each token, from all earlier steps.


def marks_of(now):
    """What is added to each key: U past_s, or U (F * past)_s."""
    if "history_features" not in now.weights:
        return np.zeros(now.tokens)
    marks, past = now.weights["history_features"], HISTORIES[now.config.history](now)
    if "filters" in marks:
        past = np.array([around(past, marks["filters"], s) for s in range(now.tokens)])
    return past @ marks["weight"]


def around(past, filters, s):
    """Chorowski et al. 2015, eq. 8: the tokens around s seen through each filter, nothing beyond the ends."""
    reach, out = len(filters) // 2, np.zeros(filters.shape[-1])
    for r in range(len(filters)):
        if 0 <= s + r - reach < len(past):
            out = out + past[s + r - reach] @ filters[r]
    return out


def previous(now):
    return (now.alignments[-1] if now.alignments else np.full(now.tokens, 1 / now.tokens))[:, None]


def coverage(now):
    """See et al. 2017, eq. 10: the sum over t' = 0, ..., t - 1, so this step is not in it."""
    return sum(now.alignments, np.zeros(now.tokens))[:, None]


def previous_and_coverage(now):
    return np.concatenate([previous(now), coverage(now)], axis=-1)


def fertility(now):
    """Tu et al. 2016, eq. 9: N sigmoid(U h)."""
    return now.config.fertility * oracles.sigmoid(now.memory @ now.weights["history"]["weight"][:, 0])


def coverage_fertility(now):
    """Tu et al. 2016, eq. 8: the sum of earlier weights by the fertility."""
    return coverage(now) / fertility(now)[:, None]


def coverage_tanh(now):
    """Tu et al. 2016, section 3.1.2: C_i = tanh(V C_{i-1} + U a_i + W h + Y t_i + b), from C_0 = 0."""
    own, size = now.weights["history"], now.config.coverage_size
    said = np.zeros((now.tokens, size))
    for alignment, query in zip(now.alignments, now.queries, strict=False):
        for s, token in enumerate(now.memory):
            of_rest = (
                alignment[s] * own["weight_feature_kernel"] + token @ own["memory_kernel"] + query @ own["query_kernel"]
            )
            said[s] = np.tanh(said[s] @ own["feature_kernel"] + of_rest + own["bias"])
    return said


def coverage_gru(now):
    """The same by a GRU with input [a_i; h; t_i], as `oracles.gru` has it; no bias on the inner product."""
    own, size = now.weights["history"], now.config.coverage_size
    rows = [own["weight_feature_kernel"][None], own["memory_kernel"], own["query_kernel"], own["feature_kernel"]]
    cell = {"weight": np.concatenate(rows), "bias": own["bias"], "inner_bias": 0.0}
    said = np.zeros((now.tokens, size))
    for alignment, query in zip(now.alignments, now.queries, strict=False):
        for s, token in enumerate(now.memory):
            _, said[s] = oracles.gru(cell, (said[s],), np.concatenate([alignment[s : s + 1], token, query]))
    return said


HISTORIES = {
    "previous": previous,
    "coverage": coverage,
    "previous-and-coverage": previous_and_coverage,
    "coverage-fertility": coverage_fertility,
    "coverage-tanh": coverage_tanh,
    "coverage-gru": coverage_gru,
}


def changed(now, raw):
    """Paulus et al. 2018, eq. 3: exp(e_t) / sum_{j<t} exp(e_j) in place of exp(e_t), from the second step on."""
    if now.config.history != "intra-temporal" or not now.scores:
        return raw
    return np.log(np.exp(raw) / sum(np.exp(earlier) for earlier in now.scores))


# Constraints: the alignment, and what later steps need of it.


def softmax(scores, tokens):
    """Over some tokens, 0 on the others."""
    out = np.zeros(len(scores))
    for s in tokens:
        out[s] = np.exp(scores[s])
    return out / (out.sum() or 1.0)


def none(now, scores):
    return softmax(scores, range(now.tokens)), None


def wait_k(now, scores):
    """Ma et al. 2019: g(t) = min(k + t - 1, n) tokens were read at step t = 1, 2, ..."""
    return softmax(scores, range(min(now.config.wait_k + (now.time + 1) - 1, now.tokens))), None


def near(now, center):
    return [s for s in range(now.tokens) if center - now.config.window <= s <= center + now.config.window]


def local_m(now, scores):
    """Luong et al. 2015, section 3.2: p_t = t."""
    return softmax(scores, near(now, min(now.time, now.tokens - 1))), None


def local_p(now, scores):
    """Luong et al. 2015, eq. 9-10: p_t = n sigmoid(v . tanh(W q)), deviation D / 2."""
    own = now.weights["constraint"]
    center = now.tokens * oracles.sigmoid(own["vector"] @ np.tanh(now.query @ own["query_kernel"]))
    weights, deviation = softmax(scores, near(now, center)), now.config.window / 2
    for s in range(now.tokens):
        weights[s] *= np.exp(-((s - center) ** 2) / (2 * deviation**2))
    return weights / (weights.sum() if now.config.renormalized else 1.0), None


def window(now, scores):
    """Chorowski et al. 2015, section 2.3: around the median of the previous alignment."""
    if not now.alignments:
        return softmax(scores, range(now.tokens)), None
    before, median = now.alignments[-1], 0
    while before[: median + 1].sum() < before.sum() / 2:
        median += 1
    return softmax(scores, near(now, median)), None


def chances(now, scores):
    """sigmoid(e + r + noise)."""
    energies = scores + now.weights["constraint"]["bias"]
    return oracles.sigmoid(energies if now.noises is None else energies + now.config.monotonic_noise * now.noises[-1])


def is_hard(now):
    return now.config.monotonic_hard and now.noises is None


def before_of(now):
    return now.stops[-1] if now.stops else np.eye(now.tokens)[0]


def monotonic(now, scores):
    """Raffel et al. 2017, eq. 8-9: from every token where the last walk stopped, past all between, to a stop."""
    choose, before, out = chances(now, scores), before_of(now), np.zeros(now.tokens)
    if is_hard(now):
        starts = np.flatnonzero(before)
        for s in range(starts[0] if len(starts) else now.tokens, now.tokens):
            if choose[s] > 0.5:
                out[s] = 1.0
                break
        return out, out
    for s in range(now.tokens):
        for k in range(s + 1):
            out[s] += choose[s] * before[k] * np.prod(1 - choose[k:s])
    return out, out


def second_scores(now):
    own = now._replace(weights={"score": now.weights["constraint"]["second_score"]})
    return SCORES[now.config.score](own)


def chunks(stops, energies, width):
    """Chiu & Raffel 2018, eq. 23: a softmax over the tokens of each chunk, by the chance that it ends there."""
    out = np.zeros(len(stops))
    for k in range(len(stops)):
        out += stops[k] * softmax(energies, range(max(0, k - width + 1), k + 1))
    return out


def mocha(now, scores):
    stops, _ = monotonic(now, scores)
    return chunks(stops, second_scores(now), now.config.mocha_chunk), stops


def milk(now, scores):
    """Arivazhagan et al. 2019: what is left goes to the last token, and the chunk begins at the first."""
    stops = monotonic(now, scores)[0].copy()
    stops[-1] += 1 - stops.sum()
    return chunks(stops, second_scores(now), now.tokens), stops


def stepwise(now, scores):
    """He et al. 2019, eq. 8: stay or move on by one; from the last token there is no way on."""
    stay, before, out = chances(now, scores), before_of(now), np.zeros(now.tokens)
    stay = (stay >= 0.5).astype(float) if is_hard(now) else stay
    for s in range(now.tokens):
        if s + 1 < now.tokens:
            out[s] += before[s] * stay[s]
            out[s + 1] += before[s] * (1 - stay[s])
        else:
            out[s] += before[s]
    return out, out


def reached(now, scores, move):
    weights, before = softmax(scores, range(now.tokens)), before_of(now)
    out = np.zeros(now.tokens)
    for s in range(now.tokens):
        out[s] = ((1 - move) * before[s] + move * (before[s - 1] if s else 0.0)) * weights[s]
    return out / out.sum(), out / out.sum()


def forward(now, scores):
    """Zhang et al. 2018, algorithm 1."""
    return reached(now, scores, 0.5)


def forward_agent(now, scores):
    """Zhang et al. 2018, algorithm 2: u_0 = 1/2, u_t = sigmoid(W [c_t; q_t] + b) decides about step t + 1."""
    own = now.weights["constraint"]
    if not now.contexts:
        return reached(now, scores, 0.5)
    said = now.contexts[-1] @ own["context_kernel"] + now.queries[-2] @ own["query_kernel"] + own["bias"]
    return reached(now, scores, oracles.sigmoid(said))


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
