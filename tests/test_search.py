"""Greedy and beam search over a fake model: brute force is the oracle."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake import MODEL, WORDS, log_probs, table

from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.length_normalization import HypothesisScore, length_divisor
from s2s_jax.decode.top_k import top_k
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.shapes import BOS, EOS, PAD, UNK

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2], [4, 3, 2]], jnp.int32)
LONGEST = 5
GNMT = HypothesisScore(strength=0.6)


def all_strings(which: int, exponent: float, longest: int = LONGEST) -> list[tuple[float, tuple[int, ...]]]:
    """Every complete string of at most `longest` tokens with its penalized log-probability, best first."""
    numbers, found = np.asarray(table()), []
    for length in range(longest):
        for body in itertools.product(range(UNK, WORDS), repeat=length):
            string = (*body, EOS)
            pairs = enumerate(zip((BOS, *body), string, strict=True))
            total = sum(log_probs(numbers, which, time, before)[token] for time, (before, token) in pairs)
            found.append((total / ((5 + len(string)) / 6) ** exponent, string))
    return sorted(found, reverse=True)


@pytest.fixture(scope="module")
def wide():
    """A beam wide enough to hold every string: its answer is exact."""
    search = jax.jit(lambda params, source: beam(MODEL, params, source, width=80, max_length=LONGEST, scoring=GNMT))
    return jax.device_get(search(table(), SOURCE))


@pytest.mark.parametrize("row", [0, 1])
def test_a_beam_that_holds_everything_finds_every_string_in_order(wide, row):
    expected = all_strings(int(SOURCE[row, 0]) % 2, 0.6)
    complete = ~wide.truncated[row] & np.isfinite(wide.scores[row])
    assert complete.sum() == len(expected) == 31
    np.testing.assert_allclose(wide.scores[row][complete], [score for score, _ in expected], atol=1e-5)
    for slot, (_, string) in enumerate(expected):
        assert tuple(token for token in wide.tokens[row, slot].tolist() if token != PAD) == string


def test_every_token_has_its_own_log_probability_and_alignment(wide):
    """The alignment and the log-probability of each hypothesis are those of its own path, traced back rightly."""
    numbers = np.asarray(table())
    for row in range(2):
        for slot in np.flatnonzero(~wide.truncated[row] & np.isfinite(wide.scores[row])):
            tokens = [token for token in wide.tokens[row, slot].tolist() if token != PAD]
            for time, (before, token) in enumerate(zip([BOS, *tokens], tokens, strict=False)):
                expected = log_probs(numbers, int(SOURCE[row, 0]) % 2, time, before)[token]
                assert wide.log_probs[row, slot, time] == pytest.approx(expected, abs=1e-5)
                assert wide.alignment[row, slot, time].argmax() == (before + time) % 3
            assert not wide.alignment[row, slot, len(tokens) :].any()
            assert not wide.log_probs[row, slot, len(tokens) :].any()


@pytest.fixture(scope="module")
def plain():
    return jax.jit(lambda params, source: greedy(MODEL, params, source, max_length=6, scoring=GNMT))


@pytest.fixture(scope="module")
def three():
    return jax.jit(lambda params, source: beam(MODEL, params, source, width=3, max_length=6, scoring=GNMT))


def test_width_one_is_greedy(plain):
    one = jax.jit(lambda params: beam(MODEL, params, SOURCE, width=1, max_length=6, scoring=GNMT))
    for seed in range(6):
        for narrow, best in zip(one(table(seed)), plain(table(seed), SOURCE), strict=True):
            np.testing.assert_allclose(narrow, best, atol=1e-6)


def test_greedy_takes_the_best_token_at_each_step(plain):
    found = plain(table(), SOURCE)
    numbers = np.asarray(table())
    for row in range(2):
        before, total = BOS, 0.0
        for time, token in enumerate(found.tokens[row, 0].tolist()):
            allowed = log_probs(numbers, int(SOURCE[row, 0]) % 2, time, before).copy()
            allowed[[PAD, BOS]] = -np.inf
            assert token == allowed.argmax()
            total += allowed.max()
            if token == EOS:
                break
            before = token
        assert float(found.scores[row, 0]) == pytest.approx(total / ((6 + time) / 6) ** 0.6, abs=1e-5)


def test_neighbors_and_padding_rows_change_nothing(three):
    """A sentence that is done stays as it is while a neighbor goes on: over many tables, each with each."""
    for seed in range(40):
        together = three(table(seed), SOURCE)
        for row in (0, 1):
            alone = three(table(seed), jnp.concatenate([SOURCE[row : row + 1], jnp.zeros((2, 3), jnp.int32)]))
            for one, all_of_them in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0], all_of_them[row], atol=1e-5)


def test_what_never_ends_is_cut_off_and_flagged(plain, three):
    """A decoder that never produces EOS stops at the bound, and the result is marked as truncated."""
    for impossible in (-jnp.inf, IMPOSSIBLE):  # of the second, finished hypotheses of probability 0 are found as well
        endless = jnp.zeros((2, WORDS, WORDS)).at[:, :, EOS].set(impossible).at[:, :, UNK].set(1.0)
        for found in (plain(endless, SOURCE), three(endless, SOURCE)):
            assert bool(found.truncated.all())
            assert not bool((found.tokens == EOS).any())
            assert bool((found.tokens != PAD).all())


def test_pad_and_bos_are_never_chosen(three):
    tempting = jnp.zeros((2, WORDS, WORDS)).at[:, :, PAD].set(50.0).at[:, :, BOS].set(60.0)
    tokens = np.asarray(three(tempting, SOURCE).tokens)
    assert not (tokens == BOS).any()
    ended = np.maximum.accumulate(tokens == EOS, axis=-1)
    assert not (tokens[~ended] == PAD).any()


def test_a_row_of_padding_ends_at_once(plain):
    found = plain(table(), jnp.zeros((3, 3), jnp.int32))
    assert not bool(found.tokens.any())
    assert not bool(found.truncated.any())


def test_length_divisor_is_gnmts():
    np.testing.assert_allclose(length_divisor(jnp.array([1.0, 7.0, 13.0]), 0.5), [1.0, 2.0**0.5, 3.0**0.5], rtol=1e-6)


@pytest.mark.parametrize("width", [7, 640, 1000, 5000])
def test_the_largest_are_those_of_top_k_equals_in_order_too(width):
    """Whole numbers, so that many are equal; and -inf, as of tokens that are not allowed."""
    random = np.random.default_rng(width)
    x = jnp.array(random.geometric(0.3, (20, 2, width)).astype(np.float32)).at[..., :2].set(-jnp.inf)
    for ours, wanted in zip(top_k(x, 5), jax.lax.top_k(x, 5), strict=True):
        np.testing.assert_array_equal(ours, wanted)
