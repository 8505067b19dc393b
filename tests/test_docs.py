"""Does what the docs tell a reader to type work as they say?"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from s2s_jax.config import override
from s2s_jax.decode.greedy import greedy
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.interface import scan_of_step, unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import Batch

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "add-a-score.md"
SETTINGS = (
    "embedding=4",
    "encoder.cell=gru",
    "encoder.size=2",
    "decoder.cell=gru",
    "decoder.size=4",
)


@pytest.fixture
def typed(monkeypatch):
    """The page's code, run; and a clean table afterwards."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setitem(SCORES, "distance", None)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    return code


def test_the_score_of_the_page_trains_and_is_searched(typed):
    config = override(ModelConfig(), *SETTINGS, "attention.score=distance")
    model = build(config, source_vocabulary=8, target_vocabulary=8)
    params = oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=1)
    batch = Batch(jnp.array([[4, 5, 2], [6, 2, 0]]), jnp.array([[5, 4, 2], [7, 2, 0]]))

    def told(params):
        ways = (model.unroll, scan_of_step(model.step))
        steps = [way(params, *model.encode(params, batch.source), batch.target)[1] for way in ways]
        slope = jax.grad(lambda params: (unroll_targets(model, params, batch).logits ** 2).sum())(params)
        return steps, slope, greedy(model, params, batch.source, max_length=3)

    (fast, stepped), slope, found = oracles.compiled(told)(params)
    oracles.same(fast.logits, stepped.logits, tolerance=1e-5)
    assert np.abs(slope["decoder"]["attention"]["score"]["weight"]).max() > 1e-4
    np.testing.assert_allclose(np.asarray(fast.alignment).sum(-1), 1, atol=1e-6)
    assert np.isfinite(found.scores).all()


def test_the_class_is_ten_lines_without_its_docstrings(typed):
    inside = typed.partition("class Distance")[2].partition("SCORES[")[0]
    code = [line for line in inside.splitlines() if line.strip() and not line.strip().startswith('"""')]
    assert len(code) <= 10
