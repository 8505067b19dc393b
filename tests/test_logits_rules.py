"""Every rule against slow Python, and every search keeps to every rule."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_search
import pytest
from fake import MODEL, WORDS, table

from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.beam.stochastic import stochastic
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules, apply_rules, limits_of
from s2s_jax.decode.sampling import row_keys, sample
from s2s_jax.shapes import BOS, EOS, PAD, UNK

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2], [4, 3, 2]], jnp.int32)
VOCABULARY, LONGEST, ROWS = 8, 7, 40
EACH = {
    "free": NO_RULES,
    "min length": LogitsRules(min_length=4),
    "min ratio": LogitsRules(min_ratio=1.5),
    "no repeated token": LogitsRules(no_repeat_ngram=1),
    "no repeated pair": LogitsRules(no_repeat_ngram=2),
    "no repeated triple": LogitsRules(no_repeat_ngram=3),
    "repetition costs": LogitsRules(repetition_penalty=1.7),
    "banned": LogitsRules(banned=(4, 6)),
    "no unknown": LogitsRules(unknown=False),
    "nothing is left": LogitsRules(banned=(3, 4, 5, 6, 7), min_length=5),
    "all": LogitsRules(
        min_length=2, min_ratio=0.5, no_repeat_ngram=2, repetition_penalty=1.3, banned=(5,), unknown=False
    ),
}


def by_hand(logits, rules: LogitsRules, previous: list[int], *, fewest: int, prefix: list[int]) -> np.ndarray:
    """The same rules, row by row and token by token."""
    time, total = len(previous), np.log(np.exp(logits).sum())
    if time < len(prefix):
        return np.array([logit if token == prefix[time] else -np.inf for token, logit in enumerate(logits)])
    result = np.array(logits)
    for token in range(len(logits)):
        if token in previous:
            result[token] = rules.repetition_penalty * (logits[token] - total) + total
        size = rules.no_repeat_ngram
        runs = [tuple(previous[place : place + size]) for place in range(len(previous) - size + 1)]
        forbidden = (
            token in (PAD, BOS, *rules.banned)
            or (token == UNK and not rules.unknown)
            or (token == EOS and time + 1 < fewest)
            or (size > 0 and tuple([*previous, token][-size:]) in runs)
        )
        if forbidden:
            result[token] = -np.inf
    if np.isinf(result).all():
        result[EOS] = logits[EOS]
    return result


@pytest.mark.parametrize("name", sorted(EACH))
def test_rules_agree_with_slow_python(name):
    rules, random = EACH[name], np.random.default_rng(3)
    source = np.zeros((ROWS, 4), np.int32)
    prefix = np.zeros((ROWS, 3), np.int32)
    for row in range(ROWS):
        source[row, : 1 + row % 4] = EOS
        prefix[row, : row % 4] = random.integers(UNK, VOCABULARY, row % 4)
    limits = limits_of(rules, jnp.array(source), max_length=LONGEST, prefix=jnp.array(prefix))
    apply = jax.jit(lambda logits, time, previous: apply_rules(logits, rules, limits, time=time, previous=previous))
    for time in range(LONGEST):
        previous = np.zeros((ROWS, LONGEST), np.int32)
        previous[:, :time] = random.integers(UNK, VOCABULARY - 2, (ROWS, time))
        logits = random.normal(size=(ROWS, VOCABULARY)).astype(np.float32)
        found = apply(logits, jnp.array(time), jnp.array(previous))
        for row in range(ROWS):
            length = int((source[row] != PAD).sum())
            fewest = min(max(rules.min_length, int(np.ceil(rules.min_ratio * length))), LONGEST)
            begin = [token for token in prefix[row].tolist() if token != PAD]
            wanted = by_hand(logits[row], rules, previous[row, :time].tolist(), fewest=fewest, prefix=begin)
            np.testing.assert_allclose(found[row], wanted, atol=1e-5)


@pytest.mark.parametrize("size", [3, 5, 50, 2**63 - 1])
def test_an_ngram_longer_than_a_translation_never_repeats(size):
    options = {"max_length": 2 if size == 3 else 3}
    free = greedy(MODEL, table(), SOURCE, **options)
    for one, other in zip(
        greedy(MODEL, table(), SOURCE, rules=LogitsRules(no_repeat_ngram=size), **options), free, strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("large", [1e9, 1e30, 3e38])
def test_bounds_beyond_the_longest_translation_are_the_longest_translation(large):
    """A number of tokens that int32 cannot hold would wrap around to a bound of one token, or to none."""
    rules = LogitsRules(min_ratio=large, max_ratio=large, min_length=2**63 - 1)
    limits = limits_of(rules, SOURCE, max_length=LONGEST)
    assert limits.shortest.tolist() == limits.longest.tolist() == [LONGEST] * 3


STRICT = LogitsRules(min_length=3, no_repeat_ngram=2, repetition_penalty=1.4)


@pytest.fixture(scope="module")
def wide():
    return jax.jit(lambda params, source: beam(MODEL, params, source, width=48, max_length=5, rules=STRICT))


def test_a_beam_that_holds_everything_finds_every_string_that_the_rules_allow(wide):
    """The score counts the price of a repetition, the log-probabilities of the tokens are the model's own."""
    numbers, found = np.asarray(table()), jax.device_get(wide(table(), SOURCE))
    for row in range(2):
        expected = []
        for string in oracle_search.strings(5):
            pairs = [string[place : place + 2] for place in range(len(string) - 1)]
            if len(string) < 3 or len(set(pairs)) < len(pairs):
                continue
            own = oracle_search.token_log_probs(numbers, int(SOURCE[row, 0]) % 2, string)
            total = sum(
                one * (1.4 if token in string[:time] else 1)
                for time, (token, one) in enumerate(zip(string, own, strict=True))
            )
            expected.append((total, string, own))
        expected.sort(reverse=True)
        complete = ~found.truncated[row] & np.isfinite(found.scores[row])
        assert complete.sum() == len(expected) > 5
        np.testing.assert_allclose(found.scores[row][complete], [one[0] for one in expected], atol=1e-5)
        for slot, (_, string, own) in enumerate(expected):
            assert oracle_search.string_of(found.tokens[row, slot]) == string
            np.testing.assert_allclose(found.log_probs[row, slot, : len(string)], own, atol=1e-5)


SEARCHES = ("greedy", "sample", "beam", "stochastic")


def searches(rules: LogitsRules, prefix=None, max_length: int = 6, names=SEARCHES):
    """One compiled function of some searches."""

    def every(params, source, prefix):
        keys, options = (
            row_keys(0, jnp.arange(len(source))),
            {"max_length": max_length, "rules": rules, "prefix": prefix},
        )
        find = {
            "greedy": lambda: greedy(MODEL, params, source, **options),
            "sample": lambda: sample(MODEL, params, source, keys, samples=3, **options),
            "beam": lambda: beam(MODEL, params, source, width=3, **options),
            "stochastic": lambda: stochastic(MODEL, params, source, keys, width=2, **options),
        }
        return {name: find[name]() for name in names}

    compiled = jax.jit(every)
    return lambda params, source: jax.device_get(compiled(params, source, prefix))


@pytest.fixture(scope="module")
def ruled():
    """No pair twice, between 3 tokens and 2 a source token, and each row begins its own way."""
    rules = LogitsRules(min_length=3, max_ratio=2.0, no_repeat_ngram=2)
    prefix = jnp.array([[4, 3], [3, 0], [0, 0]], jnp.int32)
    find = searches(rules, prefix)
    return [find(table(seed), SOURCE) for seed in range(10)]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_follows_the_rules(ruled, name):
    cut = 0
    for answers in ruled:
        found = answers[name]
        for row, (begin, most) in enumerate((((4, 3), 4), ((3,), 6), ((), 6))):
            for slot in np.flatnonzero(np.isfinite(found.scores[row])):
                string = oracle_search.string_of(found.tokens[row, slot])
                assert 3 <= len(string) <= most
                assert string[: len(begin)] == begin
                pairs = [string[place : place + 2] for place in range(len(string) - 1)]
                assert len(set(pairs)) == len(pairs)
                assert bool(found.truncated[row, slot]) == (string[-1] != EOS)
                assert (EOS in string[:-1]) is False
                assert len(string) == most or string[-1] == EOS
                cut += string[-1] != EOS
    assert cut > 0  # or the bound of a row was never met


def test_a_bound_by_ratio_is_the_same_bound_in_tokens():
    """Row 0 has two tokens, so 2 a token is 4; its neighbors go on to 6 meanwhile."""
    names = ("sample", "beam")  # one of each loop
    by_ratio, by_number = (
        searches(LogitsRules(max_ratio=2.0), names=names),
        searches(NO_RULES, max_length=4, names=names),
    )
    for seed in range(5):
        ours, wanted = by_ratio(table(seed), SOURCE), by_number(table(seed), SOURCE)
        for name in names:
            for one, other in zip(ours[name], wanted[name], strict=True):
                short = one[0][:, :4] if one.ndim > 2 else one[0]
                np.testing.assert_allclose(short, other[0], atol=1e-5)
            assert not ours[name].tokens[0, :, 4:].any()


def test_where_no_token_is_allowed_the_sentence_ends():
    find = searches(LogitsRules(min_length=4, banned=(UNK, 4)), names=("greedy", "beam"))
    for found in find(table(), SOURCE).values():
        assert (found.tokens[:, 0, 0] == EOS).all()


def test_invalid_settings_are_refused():
    for settings, message in (
        ({"min_length": -1}, "search.rules.min_length must be zero or more, got -1"),
        ({"max_ratio": -0.5}, "search.rules.max_ratio must be zero or more, got -0.5"),
        ({"repetition_penalty": 0.5}, "search.rules.repetition_penalty must be at least 1, got 0.5"),
        ({"banned": (EOS,)}, "search.rules.banned must not hold the end token 2; use search.rules.min_length"),
        ({"banned": (-3,)}, "search.rules.banned must be zero or more, got -3"),
    ):
        with pytest.raises(ValueError, match=message):
            LogitsRules(**settings)
    with pytest.raises(ValueError, match=rf"must hold ids of the vocabulary, 0 to {WORDS - 1}, got 9; take ids of"):
        greedy(MODEL, table(), SOURCE, max_length=3, rules=LogitsRules(banned=(9,)))
