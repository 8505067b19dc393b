"""Phrases that a translation must hold, against brute force over all strings of the fake model."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_search
import pytest
from fake import MODEL, table

from s2s_jax.decode.beam.constrained import allocate, constrained
from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.beam.phrases import Begun, anywhere, phrases_of
from s2s_jax.decode.length_normalization import HypothesisScore
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.shapes import EOS, PAD

SOURCE = jnp.array([[4, 2, 0], [3, 4, 2], [4, 3, 2]], jnp.int32)
RANKING = HypothesisScore(strength=0.6)
# two phrases of at most two tokens for each of three rows; the last row has none
PHRASES = [
    [[[3, 4], [0, 0]], [[4, 4], [3, 0]], [[0, 0], [0, 0]]],
    [[[4, 0], [3, 3]], [[3, 4], [4, 3]], [[0, 0], [0, 0]]],
    [[[3, 3], [3, 3]], [[3, 0], [3, 4]], [[0, 0], [0, 0]]],
]


@functools.cache
def compiled(**options):
    """A constrained search, compiled once for all tests that use it."""
    options = {"scoring": RANKING, **options}
    return jax.jit(
        lambda params, source, phrase_ids, prefix=None: constrained(
            MODEL, params, source, anywhere(phrase_ids), prefix=prefix, **options
        )
    )


def holds(string: tuple[int, ...], phrases) -> bool:
    """Whether each phrase stands somewhere in a string."""
    wanted = [tuple(token for token in phrase if token != PAD) for phrase in phrases]
    places = range(len(string))
    return all(any(string[at : at + len(phrase)] == phrase for at in places) for phrase in wanted)


def by_hand(phrase: list[int], tokens: list[int]) -> int:
    """How many tokens of a phrase stand at the end of what was produced; all, once it was met."""
    text = tuple(tokens)
    if any(text[at : at + len(phrase)] == tuple(phrase) for at in range(len(text))):
        return len(phrase)
    return max(length for length in range(len(phrase)) if text[len(text) - length :] == tuple(phrase[:length]))


@functools.cache
def fewest(string: tuple[int, ...], phrases: tuple[tuple[int, ...], ...]) -> int:
    """The least number of tokens after which a string holds all phrases."""
    more = (rest for length in range(5) for rest in itertools.product((3, 4), repeat=length))
    return next(len(rest) for rest in more if holds(string + rest, phrases))


def in_time(string: tuple[int, ...], phrases, longest: int) -> bool:
    """Whether, wherever it stood, the room that was left was enough for all that was lacking."""
    wanted = tuple(map(tuple, phrases))
    times = range(len(string)) if np.any(phrases) else ()
    return all(time + fewest(string[:time], wanted) + 1 <= longest for time in times)


def found_of(found, row: int) -> list[tuple[int, ...]]:
    return [oracle_search.string_of(tokens) for tokens in found.tokens[row][np.isfinite(found.scores[row])]]


@pytest.mark.parametrize("phrase_ids", PHRASES, ids=str)
def test_a_beam_that_holds_everything_finds_every_string_that_holds_the_phrases(phrase_ids):
    found = jax.device_get(compiled(width=48, max_length=5, stopping="never")(table(), SOURCE, jnp.array(phrase_ids)))
    for row in range(3):
        of = functools.partial(oracle_search.score, np.asarray(table()), np.asarray(SOURCE[row]), weight=0.6)
        holding = [
            one for one in oracle_search.strings(5) if holds(one, phrase_ids[row]) and in_time(one, phrase_ids[row], 5)
        ]
        expected = sorted(((of(string), string) for string in holding), reverse=True)
        complete = ~found.truncated[row] & np.isfinite(found.scores[row])
        assert complete.sum() == len(expected) > 0
        np.testing.assert_allclose(found.scores[row][complete], [score for score, _ in expected], atol=1e-5)
        assert found_of(found, row)[: len(expected)] == [string for _, string in expected]


NARROW = {"width": 2, "max_length": 5, "rules": LogitsRules(min_length=4)}


@pytest.mark.parametrize("options", [{"width": 1, "max_length": 6}, {"width": 4, "max_length": 6}, NARROW], ids=str)
def test_however_narrow_the_beam_every_translation_holds_its_phrases_and_ends(options):
    """With fewer slots than phrase tokens, and no more room than is needed."""
    nothing = (jnp.zeros((3, 3), jnp.int32),) if options is NARROW else ()
    for seed in range(6):
        for phrase_ids in PHRASES:
            found = jax.device_get(compiled(**options)(table(seed), SOURCE, jnp.array(phrase_ids), *nothing))
            for row in range(2):
                strings = found_of(found, row)
                assert strings
                assert all(string[-1] == EOS and holds(string, phrase_ids[row]) for string in strings)
                assert not found.truncated[row].any()


def test_it_finds_likely_translations():
    """The best of all strings, 26 times of 40 with four slots for four banks; by chance it would be once."""
    right = 0
    for seed in range(20):
        found = compiled(width=4, max_length=6)(table(seed), SOURCE, jnp.array(PHRASES[0]))
        for row in range(2):
            of = functools.partial(oracle_search.score, np.asarray(table(seed)), np.asarray(SOURCE[row]), weight=0.6)
            best = max((of(string), string) for string in oracle_search.strings(6) if holds(string, PHRASES[0][row]))
            right += oracle_search.string_of(np.asarray(found.tokens[row, 0])) == best[1]
    assert right >= 24


@pytest.mark.parametrize("width", [1, 4])
def test_without_phrases_it_is_a_plain_beam_whatever_its_neighbors_hold(width):
    plain = jax.jit(lambda params: beam(MODEL, params, SOURCE, width=width, max_length=6, scoring=RANKING))
    for seed in range(10):
        wanted = plain(table(seed))
        for ours, theirs in zip(
            compiled(width=width, max_length=6)(table(seed), SOURCE, jnp.array(PHRASES[1])), wanted, strict=True
        ):
            np.testing.assert_allclose(ours[2], theirs[2], atol=1e-6)


def test_neighbors_and_padding_change_nothing():
    """Neither rows, nor phrases that others have more of."""
    find = compiled(width=4, max_length=6)
    for seed in range(10):
        together = find(table(seed), SOURCE, jnp.array(PHRASES[2]))
        for row in range(3):
            only = jnp.where(jnp.arange(3)[:, None] == row, SOURCE, PAD)
            alone = find(table(seed), only, jnp.pad(jnp.array(PHRASES[2]), ((0, 0), (0, 1), (0, 2))))
            for one, all_of_them in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one[row], all_of_them[row])
            assert not bool(jnp.isfinite(alone.scores[jnp.arange(3) != row]).any())


def test_a_prefix_counts_and_rules_hold():
    """Row 0 is left no room for its phrases: it goes on to the bound and is flagged."""
    prefix = jnp.array([[4, 3, 4], [3, 4, 0], [0, 0, 0]], jnp.int32)
    for seed in range(6):
        found = jax.device_get(compiled(**NARROW)(table(seed), SOURCE, jnp.array(PHRASES[1]), prefix))
        assert found.truncated[0].all()
        for row, begin in enumerate(((4, 3, 4), (3, 4), ())):
            for string in found_of(found, row):
                assert string[: len(begin)] == begin
                assert len(string) >= 4
                assert row != 1 or (string[-1] == EOS and holds(string, PHRASES[1][1]))


def test_a_broken_phrase_continues_from_its_longest_border():
    """3 3 4 after 3 3 3 lacks the 4 alone: three thousand random strings."""
    random = np.random.default_rng(0)
    phrase_ids = np.array([[[3, 3, 4, 0], [3, 4, 3, 3], [4, 0, 0, 0], [0, 0, 0, 0]]], np.int32)
    phrases, lists = (
        jax.jit(phrases_of)(anywhere(jnp.array(phrase_ids))),
        [[token for token in one if token] for one in phrase_ids[0].tolist()],
    )
    tokens = random.integers(3, 6, (3000, 7))
    begun = phrases.nothing((1, 3000))
    after = jax.jit(phrases.after)
    for time in range(7):
        begun = after(begun, jnp.array(tokens[None, :, time], jnp.int32))
        for place in range(0, 3000, 7):
            assert begun.counts[0, place, :, 0].tolist() == [
                by_hand(one, tokens[place, : time + 1].tolist()) if one else 0 for one in lists
            ]


def test_missing_tokens_suffice_and_following_tokens_are_unique():
    phrases = jax.jit(phrases_of)(anywhere(jnp.array([[[3, 4], [3, 5], [6, 0]]])))
    counts = jnp.array([[[0, 0, 0], [1, 1, 0], [2, 1, 0], [2, 0, 1], [2, 2, 1]]])
    begun = Begun(counts[..., None], *[jnp.ones(counts.shape[:2], bool)] * 2)
    assert jax.jit(phrases.missing)(begun).tolist() == [[5, 4, 2, 2, 0]]
    assert jax.jit(phrases.following)(begun).tolist() == [
        [[3, PAD, 6], [4, 5, 6], [PAD, 5, 6], [PAD, 3, PAD], [PAD] * 3]
    ]


def test_what_overlapping_phrases_share_is_missing_once():
    """3 4 3 5 6 holds 3 4 3, 4 3 5 and 5 6."""
    phrases = jax.jit(phrases_of)(anywhere(jnp.array([[[3, 4, 3], [4, 3, 5], [5, 6, 0]]])))
    begun, missing = phrases.nothing((1, 1)), []
    after, missing_of = jax.jit(phrases.after), jax.jit(phrases.missing)
    for token in (3, 4, 3, 5, 6):
        missing.append(int(missing_of(begun)[0, 0]))
        begun = after(begun, jnp.array([[token]]))
    assert [*missing, int(missing_of(begun)[0, 0])] == [5, 4, 3, 2, 1, 0]


def test_slots_are_allocated_evenly_and_spare_ones_to_the_bank_below():
    """Best first; four slots, banks 0, 1 and 2, so a share of one and the last bank has two."""
    nobody = -np.inf
    for met, merit, wanted in (
        ([0, 0, 0, 1, 1, 2, 2, 2], [-1, -2, -3, -4, -5, -6, -7, -8], [0, 3, 5, 6]),
        ([0, 0, 0, 1, 1, 2, 2, 2], [-1, -2, -3, -4, -5, -6, nobody, nobody], [0, 3, 4, 5]),
        ([0, 0, 0, 1, 2, 2, 2, 2], [-1, -2, -3, -4, nobody, nobody, nobody, nobody], [0, 1, 2, 3]),
        ([2, 2, 2, 2, 2, 2, 2, 2], [-1, -2, -3, -4, -5, -6, -7, -8], [0, 1, 2, 3]),
    ):
        place = allocate(jnp.array([merit], jnp.float32), jnp.array([met]), jnp.array([2]), banks=4, width=4)
        assert sorted(place[0].tolist()) == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "sample"}, "must hold need search.method=beam, got sample; leave it out, or the phrases"),
        ({"beam": 4, "groups": 2}, "must hold need search.groups=1, got 2"),
        ({"beam": 4, "sibling_penalty": 0.5}, "must hold need search.sibling_penalty=0.0, got 0.5"),
    ],
)
def test_searches_that_cannot_hold_phrases_are_refused(settings, message):
    find = compiled_search(MODEL, SearchConfig(**settings), 5)
    with pytest.raises(ValueError, match=message):
        find(table(), SOURCE, jnp.arange(3), phrases=anywhere(jnp.array(PHRASES[0])))


def test_the_settings_of_the_beam_are_those_of_a_constrained_one():
    find = compiled_search(MODEL, SearchConfig(beam=4, n_best=2, stopping="bounded", length_penalty=0.6), 6)
    found = find(table(), SOURCE, jnp.arange(3), phrases=anywhere(jnp.array(PHRASES[0])))
    assert found.scores.shape == (3, 2)
    assert all(holds(string, PHRASES[0][row]) for row in range(2) for string in found_of(jax.device_get(found), row))
