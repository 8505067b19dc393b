"""The explorer's values: the beam as a tree against a slow beam, each step against NumPy, and what it refuses."""

import fake
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s2s_jax import run
from s2s_jax.decode.search import SearchConfig
from s2s_jax.evaluate.exposure_bias import free_running_nats
from s2s_jax.explore.beam_tree import beam_tree, path_of, search_with_record
from s2s_jax.explore.explorer import Explorer
from s2s_jax.explore.steps import attention_shapes, steps_of
from s2s_jax.run.model import make_model
from s2s_jax.shapes import BOS, EOS, UNK, Batch

SOURCE = np.array([[4, 3, 2, 0], [3, 4, 4, 2]], np.int32)


@pytest.fixture(scope="module")
def explorer(trained_run):
    return Explorer(run.load(trained_run, changes=["search.beam=3"]))


def slow_tree(table, which, *, width, longest, prefix=()):
    """(path, total, fate) of each continuation that a beam considers, in slow Python."""
    live, ended, nodes = [((), 0.0)], 0, {(): (0.0, "open")}
    for time in range(longest):
        options = []
        for path, total in live:
            of_token = fake.log_probs(table, which, time, path[-1] if path else BOS)
            allowed = prefix[time : time + 1] or range(EOS, fake.WORDS)
            options += [((*path, token), total + of_token[token]) for token in allowed]
        options = sorted(options, key=lambda option: -option[1])[: 2 * width]
        kept = [option for option in options if option[0][-1] != EOS][:width]
        for place, (path, total) in enumerate(options):
            fate = "open" if (path, total) in kept else "ended" if path[-1] == EOS and place < width else "rejected"
            nodes[path] = total, fate
            if fate != "rejected":
                nodes[path[:-1]] = nodes[path[:-1]][0], "continued"
            ended += fate == "ended"
        for path, total in live:
            if nodes[path][1] == "open":
                nodes[path] = total, "pruned"
        live = kept
        if ended >= width:
            break
    return nodes


@pytest.mark.parametrize(("width", "prefix"), [(1, ()), (3, ()), (2, (4, 3))])
def test_the_tree_is_that_of_a_slow_beam(width, prefix):
    table, longest = fake.table(), 6
    given = np.zeros((2, longest), np.int32)
    given[:, : len(prefix)] = prefix
    config = SearchConfig(beam=2, length_penalty=0.0)
    search = jax.jit(
        lambda table, source, given: search_with_record(
            fake.MODEL, table, source, given, config=config, width=width, max_length=longest
        )
    )
    result, record, taken = jax.device_get(search(table, SOURCE, given))
    for row in range(2):
        nodes = beam_tree(record, row, width=width, steps=int(taken[row]))
        found = {path_of(nodes, number): node for number, node in enumerate(nodes)}
        wanted = slow_tree(table, int(SOURCE[row, 0]) % 2, width=width, longest=longest, prefix=prefix)
        assert {path: node.fate for path, node in found.items()} == {path: fate for path, (_, fate) in wanted.items()}
        for path, node in found.items():
            np.testing.assert_allclose(node.total, wanted[path][0], atol=1e-5)
        best = tuple(token for token in result.tokens[row, 0].tolist() if token)
        assert found[best].fate in ("ended", "open")
        assert result.scores[row, 0] == pytest.approx(found[best].total, abs=1e-5)


def test_each_step_is_the_distribution_of_the_model():
    table, target = fake.table(), np.array([[4, 3, 2, 0], [UNK, 2, 0, 0]], np.int32)
    steps = jax.jit(lambda *inputs: steps_of(fake.MODEL, *inputs, alternatives=10))(table, Batch(SOURCE, target))
    for row, time in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        before = target[row, time - 1] if time else BOS
        log_probs = fake.log_probs(table, int(SOURCE[row, 0]) % 2, time, int(before))
        token = target[row, time]
        np.testing.assert_allclose(steps.log_probs[row, time], log_probs[token], atol=1e-5)
        np.testing.assert_allclose(steps.entropy[row, time], -(np.exp(log_probs) * log_probs).sum(), atol=1e-5)
        assert steps.rank[row, time] == (log_probs > log_probs[token]).sum()
        order = [token for token in np.argsort(-log_probs) if token >= EOS]
        assert steps.best[row, time, : len(order)].tolist() == order
        np.testing.assert_allclose(steps.best_log_probs[row, time, : len(order)], log_probs[order], atol=1e-5)


def test_a_trace_is_what_translate_finds_token_by_token(explorer):
    found = explorer.trace("a b c")
    (own,) = explorer.run.translate(["a b c"])
    assert [each["text"] for each in found["hypotheses"]] == [each.text for each in own.hypotheses]
    (scored,) = explorer.run.score([("a b c", own.text)])
    best = found["hypotheses"][0]
    assert (best["tokens"], found["source_tokens"]) == (list(own.tokens), list(own.source_tokens))
    np.testing.assert_allclose(best["log_probs"], scored.log_probs, atol=1e-4)
    np.testing.assert_allclose(best["attention"], own.alignment, atol=1e-4)
    np.testing.assert_allclose(best["coverage"], own.alignment.sum(0), atol=1e-4)
    assert [each[0]["id"] for each in best["alternatives"]] == best["ids"]
    assert best["rank"] == [0] * len(best["ids"])
    ended = [node for node in found["tree"] if node["fate"] == "ended"]
    assert min(abs(node["total"] - sum(best["log_probs"])) for node in ended) < 1e-3


def test_the_search_goes_on_from_a_prefix(explorer):
    first = explorer.trace("a b c")["hypotheses"][0]
    other = first["alternatives"][1][1]
    found = explorer.trace("a b c", prefix=[first["ids"][0], other["id"]], beam=2)
    assert found["beam"] == 2
    for each in found["hypotheses"]:
        assert each["ids"][:2] == [first["ids"][0], other["id"]]
    assert found["hypotheses"][0]["log_probs"][1] == pytest.approx(other["log_prob"], abs=1e-4)


def test_given_weights_make_the_context_that_predicts(explorer):
    """softmax(E tanh(W [context; state]) + b), with a context of the given weights."""
    loaded, weights = explorer.run, [0.2, 0.0, 0.5, 0.3]
    trace = explorer.trace("a b c")["hypotheses"][0]
    found = explorer.attend("a b c", trace["ids"], step=1, weights=weights)
    (states,) = loaded.states([("a b c", trace["text"])])
    decoder = {
        name: np.asarray(leaf, np.float64) for name, leaf in loaded.params["decoder"].items() if hasattr(leaf, "shape")
    }
    context = np.asarray(weights) @ states.encoder[-1]
    read = np.concatenate([context, states.decoder[-1][0][1]])
    logits = (
        decoder["output"] @ np.tanh(read @ np.asarray(loaded.params["decoder"]["readout"]["weight"]))
        + decoder["output_bias"]
    )
    log_probs = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(found["attention"][1], weights, atol=1e-6)
    for each in found["alternatives"][1]:
        assert each["log_prob"] == pytest.approx(log_probs[each["id"]], abs=1e-3)
    for name in ("log_probs", "entropy"):  # without feedback no other step depends on it
        np.testing.assert_allclose(np.delete(found[name], 1), np.delete(trace[name], 1), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "has_weights"),
    [
        (["model.attention.score=none"], False),
        (["model.attention.score=last-state"], False),
        (["model.decoder.architecture=hard", "model.decoder.input_feeding=false"], False),
        (["model.attention.heads=2"], True),
        (["model.decoder.architecture=bahdanau", "model.decoder.copy=pointer"], True),
    ],
)
def test_weights_are_replaced_only_where_a_step_reads_them(explorer, changes, has_weights):
    model = make_model(tiny.experiment(*changes).model, explorer.run.pair)
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = Batch(SOURCE, SOURCE)
    assert attention_shapes(model, params, batch) == ([(2, 4)] if has_weights else [])


def test_a_given_pair_under_both_regimes(explorer):
    found = explorer.forced("a b c", "a c c")
    assert found["tokens"] == ["a", "c", "c", "</s>"]
    assert found["first_wrong"] == 1
    assert found["free"]["text"] == "a b c"
    pair = explorer.run.pair
    source, target = (
        [*encode(line), EOS] for encode, line in ((pair.encode_source, "a b c"), (pair.target.encode, "a c c"))
    )
    batch = Batch(jnp.array([source], jnp.int32), jnp.array([target], jnp.int32))
    nats = free_running_nats(explorer.run.model, explorer.run.params, batch)
    assert -sum(found["free"]["log_probs"]) == pytest.approx(float(nats[0]), rel=1e-4)
    assert explorer.forced("a b c", "a b c")["first_wrong"] is None


def test_influence_has_a_number_per_pair_of_tokens(explorer):
    ids = explorer.trace("a b c")["hypotheses"][0]["ids"]
    found = np.array(explorer.influence("a b c", ids, method="occlusion")["influence"])
    assert found.shape == (len(ids), 4)
    hidden, shown = (explorer.forced(line, "a b c")["log_probs"] for line in ("a zz c", "a b c"))  # zz is unknown
    np.testing.assert_allclose(found[:, 1], np.subtract(shown, hidden), atol=1e-3)


def test_the_nearest_training_sentence_is_the_sentence_itself(explorer):
    index = explorer.index()
    example = index.examples[7]
    ids = [*explorer.run.pair.target.encode(example.target), EOS]
    found = explorer.neighbors(example.source, ids, step=len(ids) - 2, count=4)["neighbors"]
    assert (found[0]["source"], found[0]["target"]) == (example.source, example.target)
    assert found[0]["distance"] < 1e-2
    (states,) = explorer.run.states([(example.source, example.target)])
    distances = np.linalg.norm(index.states - states.decoder[-1][0][len(ids) - 2], axis=-1)
    best = {}
    for place in np.argsort(distances):
        one = index.examples[index.pair[place]]
        best.setdefault((one.source, one.target), distances[place])
    np.testing.assert_allclose([each["distance"] for each in found], list(best.values())[:4], atol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.trace(" "), "the line is blank"),
        (lambda one: one.trace("a", beam=33), "beam must be between 1 and 32, got 33"),
        (lambda one: one.trace("a", prefix=[999]), "prefix must be ids of target tokens below"),
        (lambda one: one.trace("a", prefix=[0]), "and not 0 or 1, got 0"),
        (lambda one: one.trace("a", prefix=[2, 4]), "the end token 2 at the end alone"),
        (lambda one: one.trace("a", prefix=[4] * 99), r"a target may have \d+ tokens"),
        (lambda one: one.attend("a", [], step=0, weights=[]), "ids must have at least 1"),
        (lambda one: one.attend("a", [4, 2], step=2, weights=[1, 0]), "step must be between 0 and 1, got 2"),
        (lambda one: one.attend("a", [4, 2], step=0, weights=[1]), "weights must be 2 numbers of 0 or more"),
        (lambda one: one.attend("a", [4, 2], step=0, weights=[1, float("nan")]), "weights must be 2 numbers"),
        (lambda one: one.influence("a", [4], method="x"), "method must be one of"),
        (lambda one: one.neighbors("a", [4], step=0, count=0), "count must be between 1 and 100"),
    ],
)
def test_what_is_out_of_range_is_refused(explorer, call, message):
    with pytest.raises(ValueError, match=message):
        call(explorer)
