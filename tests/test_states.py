"""The states inside a model, against slow NumPy: gates and states of each step follow from those of the one before."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s2s_jax import run
from s2s_jax.evaluate.states import StateReader, states_of
from s2s_jax.run.model import make_model
from s2s_jax.shapes import Batch
from s2s_jax.text.example import Example


@pytest.fixture(scope="module")
def loaded(trained_run):
    return run.load(trained_run)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_states_of_a_line_are_those_of_its_translation(loaded):
    (own,) = loaded.states(["a b c"])
    text = loaded.translate(["a b c"])[0].text
    (given,) = loaded.states([("a b c", text)])
    assert own.tokens == (*text.split(), "</s>")
    for mine, other in zip(jax.tree.leaves(own[1:]), jax.tree.leaves(given[1:]), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_states_are_without_padding_and_agree_with_scoring(loaded):
    pairs = [("a b c", "a b c"), ("a", "a"), ("", "b"), ("c b a c b", "x")]
    for found, scored in zip(loaded.states(pairs), loaded.score(pairs), strict=True):
        source, target = len(scored.source_tokens), len(scored.tokens)
        assert found.source_tokens == scored.source_tokens
        np.testing.assert_allclose(found.log_probs, scored.log_probs, atol=1e-5)
        np.testing.assert_allclose(found.attention, scored.alignment, atol=1e-6)
        assert [layer.shape for layer in found.encoder] == [(source, 32)]
        assert [leaf.shape for leaf in jax.tree.leaves(found.decoder)] == [(target, 32)]
        assert [leaf.shape for leaf in jax.tree.leaves(found.gates)] == [(target, 32)] * 2
        assert found.heads is None


def test_what_is_encoded_is_what_is_attended_to(loaded):
    encoded, (states,) = loaded.encode(["a b c", "a"]), loaded.states([("a b c", "c")])
    np.testing.assert_allclose(encoded[0].outputs, states.encoder[-1], atol=1e-6)
    np.testing.assert_allclose(states.context, states.attention @ encoded[0].outputs, atol=1e-5)
    assert [one.outputs.shape for one in encoded] == [(4, 32), (2, 32)]
    assert encoded[1].source_tokens == ("a", "</s>")
    with pytest.raises(TypeError, match="lines must be several"):
        loaded.encode("a b")


def test_the_gates_of_a_gru_make_its_next_state(loaded):
    """h' = n + z (h - n): with the old state, the new one and z, n must be a tanh, and h' between the two."""
    (found,) = loaded.states([("a b c d", "a b c d")])
    ((after,),), (gates,) = found.decoder, found.gates
    before = np.concatenate([found.start[0][0][None], after[:-1]])
    update = gates["update"]
    candidate = (after - update * before) / (1 - update)
    assert np.abs(candidate).max() <= 1 + 1e-4
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in loaded.params["decoder"]["cells"]["0"].items()}
    tokens = loaded.pair.encode_target("a b c d", "a b c d")
    embedded = np.asarray(loaded.params["decoder"]["embedding"])[[1, *tokens]]
    sums = embedded @ weights["input_kernel"] + weights["bias"]
    recurrent = before @ weights["weight"]
    for name, part in (("reset", slice(0, 32)), ("update", slice(32, 64))):
        np.testing.assert_allclose(gates[name], sigmoid(sums[:, part] + recurrent[:, part]), atol=1e-4)
    inner = recurrent[:, 64:] + weights["inner_bias"]
    np.testing.assert_allclose(candidate, np.tanh(sums[:, 64:] + gates["reset"] * inner), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "gates", "leaves"),
    [
        (("model.decoder.cell=lstm", "model.decoder.layers=2", "model.encoder.layers=2"), [3, 3], 4),
        (("model.decoder.architecture=conditional", "model.encoder.cell=sru"), [2, 2], 1),
        (("model.decoder.cell=rnn",), [], 1),
    ],
)
def test_every_cell_of_a_step_shows_its_gates(loaded, changes, gates, leaves):
    config = tiny.experiment(*changes).model
    model = make_model(config, loaded.pair)
    tokens = jnp.array([[4, 5, 2, 0], [6, 2, 0, 0]])
    found = jax.eval_shape(lambda key: states_of(model, model.init(key), Batch(tokens, tokens)), jax.random.key(0))
    assert [len(one) for one in found.gates] == gates
    assert len(jax.tree.leaves(found.decoder)) == leaves
    assert [layer.shape for layer in found.encoder] == [(2, 4, 32)] * config.encoder.layers


def test_the_page_about_reading_a_model_reads_one(trained_run):
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "read-a-model.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)).replace("runs/mine", str(trained_run))
    names: dict = {}
    exec(code, names)
    assert names["weights"].shape == (33,)
    assert names["forced"].tokens == ("c", "b", "a", "</s>")


def test_a_reader_is_compiled_once_for_a_shape(loaded):
    reader = StateReader(loaded.model, loaded.pair, loaded.experiment.search)
    for line in ("a b", "b c"):
        list(reader.score(loaded.params, [Example(line, line)]))
    assert reader._forced_decoding._cache_size() == 1
