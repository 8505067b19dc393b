"""Random segmentations and hidden words: distributions by enumeration, and laws of the plan that draws them."""

import collections
import itertools
import json
import random
import re
import subprocess
import sys

import fake
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s2s_jax.model.interface import shift_right, unroll_targets
from s2s_jax.run.check import _hidden_word_problems
from s2s_jax.run.inputs import read_inputs
from s2s_jax.shapes import EOS, PAD, UNK, Batch
from s2s_jax.text.batches import BatchConfig, BatchPlan, Pairs
from s2s_jax.text.given_tokenizers import MergeCodes
from s2s_jax.text.ragged import Ragged, with_eos
from s2s_jax.text.tagged_tokenizer import TaggedTokenizer
from s2s_jax.text.token_dropout import TokenDropout, token_dropout
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig, train_tokenizer

RNG = random.Random(0)
WORDS = ["".join(RNG.choices("abcdefgh", k=RNG.randint(1, 7))) for _ in range(300)]
LINES = [" ".join(RNG.choices(WORDS, k=RNG.randint(1, 9))) for _ in range(200)]
DRAWS = 1500
Segmentation = tuple[str, ...]


@pytest.fixture(scope="module")
def tokenizers():
    """One tokenizer of each type that has random segmentations."""
    learned = {kind: train_tokenizer(LINES, TokenizerConfig(type=kind, size=420)) for kind in ("bpe", "unigram")}
    merges = [tuple(pair) for pair in itertools.product("abcdefgh", repeat=2)] + [("ab", "c"), ("ab", "c</w>")]
    letters = [letter + end for letter in "abcdefgh" for end in ("", "@@")]
    twos = [left + right + end for left, right in itertools.product("abcdefgh", repeat=2) for end in ("", "@@")]
    symbols = [*letters, *twos, "abc", "abc@@"]
    return {**learned, "codes": MergeCodes(symbols, merges=merges, joins_end=True, undoes=False)}


# --- distributions ----------------------------------------------------------------------------------------------------


def near(tokenizer, line: str, expected: dict[Segmentation, float], *, strength: float) -> None:
    """Check that segmentations are drawn as often as expected, within five standard errors."""
    ids = tokenizer.encode(line)
    drawn = [tokenizer.symbols(tokenizer.redraw(ids, strength=strength, seed=seed)) for seed in range(DRAWS)]
    counts = collections.Counter(map(tuple, drawn))
    assert sum(expected.values()) == pytest.approx(1)
    assert set(counts) <= set(expected)
    for segmentation, probability in expected.items():
        error = np.sqrt(probability * (1 - probability) * DRAWS)
        assert abs(counts[segmentation] - probability * DRAWS) <= 5 * error + 1, segmentation


def merged(ranks, symbols: Segmentation, rate: float, whole=lambda pair: pair) -> dict:
    """Provilkov et al. 2020, algorithm 1, over all outcomes: the word is done in a round where every merge is left out.

    Args:
        ranks: of merges; the smallest is done first.
        whole: the name in `ranks` of a pair of neighbors.
    """
    places = [place for place, pair in enumerate(itertools.pairwise(symbols)) if whole(pair) in ranks]
    places.sort(key=lambda place: ranks[whole(symbols[place : place + 2])])
    parts, left = [], 1.0
    for place in places:  # the best one that is kept; no merge is possible at two places
        done = (*symbols[:place], symbols[place] + symbols[place + 1], *symbols[place + 2 :])
        parts.append((left * (1 - rate), merged(ranks, done, rate, whole)))
        left *= rate
    return added(*parts, (left, {symbols: 1.0}))


def added(*parts: tuple[float, dict]) -> dict:
    """The mixture of distributions."""
    total: collections.Counter = collections.Counter()
    for weight, distribution in parts:
        for outcome, probability in distribution.items():
            total[outcome] += weight * probability
    return dict(total)


def model_scores(tokenizer) -> dict[str, float]:
    pieces = tokenizer._pieces
    return {pieces.id_to_piece(n): pieces.get_score(n) for n in range(260, tokenizer.size)}


@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_bpe_dropout_leaves_out_each_possible_merge_with_its_probability(tokenizers, strength):
    tokenizer = tokenizers["bpe"]
    distinct = (word for word in WORDS if len(word) == len(set(word)) == 5)
    word = max(distinct, key=lambda word: -len(tokenizer.encode(word)))
    ranks = {piece: -score for piece, score in model_scores(tokenizer).items()}
    expected = merged(ranks, tuple(word), strength, "".join)
    assert len(expected) > 3
    near(tokenizer, word, expected, strength=strength)


def segmentations(text: str, known) -> list[Segmentation]:
    """All ways to write a text in known pieces."""
    found = []
    for cuts in itertools.product([False, True], repeat=len(text) - 1):
        places = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(text)]
        pieces = tuple(text[start:end] for start, end in itertools.pairwise(places))
        found += [pieces] * all(piece in known for piece in pieces)
    return found


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_unigram_segmentations_are_drawn_in_proportion_to_a_power_of_their_probability(tokenizers, alpha):
    """Kudo 2018, section 3.2, over all segmentations."""
    tokenizer = tokenizers["unigram"]
    scores = model_scores(tokenizer)
    each = {word: segmentations(f"\u2581{word}", scores) for word in WORDS if len(word) < 5}
    word, found = max(each.items(), key=lambda item: len(item[1]))
    weights = {pieces: np.exp(alpha * sum(scores[piece] for piece in pieces)) for pieces in found}
    assert len(weights) > 3
    near(tokenizer, f" {word}", {pieces: w / sum(weights.values()) for pieces, w in weights.items()}, strength=alpha)


def test_dropout_of_codes_leaves_out_merges_anew_in_each_round(tokenizers):
    codes, rate = tokenizers["codes"], 0.3
    ranks = {merge: rank for rank, merge in reversed([*enumerate(codes.merges)])}
    expected: dict[Segmentation, float] = {}
    for symbols, probability in merged(ranks, ("a", "b", "c</w>"), rate).items():
        shown = (*(symbol + "@@" for symbol in symbols[:-1]), symbols[-1].removesuffix("</w>"))
        expected[shown] = expected.get(shown, 0) + probability
    near(codes, "abc", expected, strength=rate)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "codes"])
def test_another_segmentation_is_of_the_same_text_and_a_function_of_the_seed(tokenizers, kind):
    tokenizer, strength = tokenizers[kind], {"bpe": 0.3, "unigram": 0.2, "codes": 0.3}[kind]
    hard = ["", "\u2581 x", "é \ufffd 中", "a  b "] if kind != "codes" else ["abc zz"]
    for seed, line in enumerate([*LINES[:50], *hard]):
        ids = tokenizer.encode(line)
        drawn = tokenizer.redraw(ids, strength=strength, seed=seed)
        assert tokenizer.decode(drawn) == tokenizer.decode(ids)
        assert drawn == tokenizer.redraw(ids, strength=strength, seed=seed)
        assert UNK in ids or UNK not in drawn
    assert any(tokenizer.redraw(tokenizer.encode(line), strength=strength, seed=7) != tokenizer.encode(line)
               for line in LINES)  # fmt: skip


# --- plans ------------------------------------------------------------------------------------------------------------


def side_of(tokenizer, *, tag: bool) -> Ragged:
    """The ids of all lines, the first ones with a tag."""
    first = [[tokenizer.size - 1]] * 50 if tag else []
    ids = [[*(first[n] if n < len(first) else []), *tokenizer.encode(line)] for n, line in enumerate(LINES)]
    rows = with_eos(ids)
    return Ragged(rows.flat, rows.lengths)


@pytest.fixture(scope="module")
def plan_of(tokenizers):
    """Makes a plan of pairs whose tokens are noisy on both sides."""
    source, target = TaggedTokenizer(tokenizers["bpe"], ["<bt>"]), tokenizers["unigram"]
    pairs = Pairs(side_of(source, tag=True), side_of(target, tag=False))
    noise = (
        token_dropout(source, TokenizerConfig(dropout=0.2), "tokenizer.source", guided=0),
        token_dropout(target, TokenizerConfig(type="unigram", sampling_alpha=0.2, word_dropout=0.3), "x", guided=0),
    )

    def make(seed=0, own=lambda rows: slice(0, rows), noise=noise) -> BatchPlan:
        return BatchPlan(pairs, BatchConfig(size=16, buckets=2, prefetch=2), seed=seed, own=own, noise=noise)

    return make, source, target


def texts(tokenizer, side) -> list[str]:
    rows = ([number for number in row if number not in (PAD, EOS)] for row in side.tolist() if any(row))
    return [tokenizer.decode(row) for row in rows]


def test_every_pair_occurs_once_per_epoch_in_a_random_segmentation(plan_of):
    make, source, target = plan_of
    plan, plain = make(), make(noise=(None, None))
    ends = [range(start, start + plan.per_epoch) for start in (0, plan.per_epoch)]
    first, second = ([plan.batch(step) for step in steps] for steps in ends)
    wanted = collections.Counter(f"<bt> {line}" if n < 50 else line for n, line in enumerate(LINES))
    for batches in (first, second):
        assert collections.Counter(text for batch in batches for text in texts(source, batch.source)) == wanted
        assert sorted(text for batch in batches for text in texts(target, batch.target)) == sorted(LINES)
    rows = [{tuple(row) for batch in batches for row in batch.source.tolist()} for batches in (first, second)]
    assert len(rows[0] & rows[1]) < len(LINES) // 2  # an epoch has other segmentations
    drawn = sum(int((batch.source != PAD).sum()) for batch in first)
    assert drawn > 1.1 * plain.pairs.sources.lengths.sum()  # redrawing what does not fit leaves most of the length
    shapes = {(batch.source.shape, batch.target.shape, batch.fed.shape) for batch in [*first, *second, plan.largest()]}
    assert len(shapes) == len(plan.buckets)


def test_the_decoder_reads_unknown_words_and_predicts_the_true_ones(plan_of):
    plan = plan_of[0]()
    batches = [plan.batch(step) for step in range(plan.per_epoch)]
    fed, target = (np.concatenate([getattr(batch, name).ravel() for batch in batches]) for name in ("fed", "target"))
    words = target > UNK
    assert (fed[~words] == target[~words]).all()
    hidden = fed[words] != target[words]
    assert (fed[words][hidden] == UNK).all()
    assert abs(hidden.mean() - 0.3) < 5 * np.sqrt(0.21 / hidden.size)


def test_segmentations_are_those_of_every_process(tokenizers):
    """The generator of sentencepiece would give each process others."""
    numbers = {kind: tokenizers[kind].encode(LINES[0]) for kind in ("bpe", "unigram")}
    program = f"""
import json, sys
from s2s_jax.text.tokenizers import tokenizer_of
for kind, state in json.loads(sys.stdin.read()).items():
    print(tokenizer_of(state).redraw({numbers}[kind], strength=0.3, seed=5))
"""
    states = json.dumps({kind: tokenizers[kind].state() for kind in numbers})
    done = subprocess.run([sys.executable, "-c", program], input=states, capture_output=True, text=True, check=True)
    here = [tokenizers[kind].redraw(ids, strength=0.3, seed=5) for kind, ids in numbers.items()]
    assert done.stdout.splitlines() == [str(ids) for ids in here]


def test_without_dropout_words_are_merged_as_sentencepiece_merges_them(tokenizers):
    rare = train_tokenizer(LINES, TokenizerConfig(type="bpe", size=420, min_frequency=20))
    for tokenizer in (tokenizers["bpe"], rare):
        for line in (*LINES, "  zz a\u2581é", ""):
            ids = tokenizer.encode(line)
            assert tokenizer.redraw(ids, strength=0.0, seed=0) == ids


def test_tags_and_copied_words_are_never_hidden():
    rows = Ragged.of([[9, *[5] * 400, 3, EOS], [5, 11, EOS]])
    hidden = TokenDropout(None, 9, 0.0, 0.5).hidden(rows, np.random.default_rng(0))
    assert (hidden[0][0], hidden[0][-1], hidden[1][1]) == (9, EOS, 11)
    assert 120 < (hidden[0] == UNK).sum() < 280


def test_noise_is_a_function_of_seed_and_step_whoever_reads_the_batch(plan_of):
    """So that a resumed run, and each of several processes, sees the same."""
    make, _, _ = plan_of
    whole, steps = make(seed=3), range(2, 6)
    batches = [whole.batch(step) for step in steps]
    for batch, again in zip(batches, make(seed=3).from_step(2, 6), strict=True):
        assert all(np.array_equal(*both) for both in zip(batch, again, strict=True))
    parts = [make(seed=3, own=lambda rows, n=n: slice(n * (rows // 2), rows // 2 + n * (rows - rows // 2)))
             for n in range(2)]  # fmt: skip
    for step, batch in zip(steps, batches, strict=True):
        own = [part.batch(step) for part in parts]
        half = len(batch.source) // 2
        for name in ("source", "target", "fed"):
            joined = np.concatenate([getattr(own[0], name)[:half], getattr(own[1], name)[half:]])
            assert np.array_equal(joined, getattr(batch, name))
        assert all(((one.target != PAD) == (batch.target != PAD)).all() for one in own)
    assert not np.array_equal(make(seed=4).batch(2).source, batches[0].source)


def test_what_is_fed_is_the_input_of_the_decoder():
    source, target, fed = (jnp.array([row]) for row in ([4, 4, EOS], [4, 4, EOS], [4, UNK, EOS]))
    params = fake.table()
    given = unroll_targets(fake.MODEL, params, Batch(source, target, fed=fed))
    state = fake.MODEL.encode(params, source)
    expected = fake.MODEL.unroll(params, *state, shift_right(fed))[1]
    jax.tree.map(np.testing.assert_array_equal, given, expected)
    plain = unroll_targets(fake.MODEL, params, Batch(source, target))
    assert not np.array_equal(plain.logits, given.logits)


def test_a_target_that_is_written_from_its_end_is_segmented_from_its_start(tokenizers):
    tokenizer = tokenizers["bpe"]
    there, back = (
        token_dropout(tokenizer, TokenizerConfig(dropout=0.3), "x", guided=0, reverses=way) for way in (False, True)
    )
    ids = [tokenizer.encode(line) for line in LINES[:20]]
    plain = there.segmented(Ragged.of([[*row, EOS] for row in ids]), np.random.default_rng(0), longest=99)
    turned = back.segmented(Ragged.of([[*row[::-1], EOS] for row in ids]), np.random.default_rng(0), longest=99)
    for number in range(20):
        assert turned[number].tolist() == [*plain[number].tolist()[-2::-1], EOS]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["type=char", "dropout=0.1"], "dropout=0.1 does not go with a tokenizer of type char: dropout is for bpe, "),
        (["type=unigram", "dropout=0.1"], "dropout=0.1 does not go with a tokenizer of type unigram: "),
        (["type=bpe", "sampling_alpha=0.1"], "sampling_alpha=0.1 does not go with a tokenizer of type bpe: "),
    ],
)
def test_noise_that_a_tokenizer_does_not_have_is_refused_before_anything_is_read(changes, message):
    settings = [f"tokenizer.source.{change}" for change in changes]
    with pytest.raises(ValueError, match=re.escape(f"tokenizer.source.{message}")):
        tiny.experiment(*settings)
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got 1"):
        TokenizersConfig(target=TokenizerConfig(type="bpe", dropout=1.0))


@pytest.mark.parametrize("other", ["loss.objective=raml", "model.decoder.architecture=hard-monotonic"])
def test_words_are_not_hidden_from_a_decoder_that_needs_the_true_ones(other):
    experiment = tiny.experiment("tokenizer.target.word_dropout=0.1", other)
    wanted = (
        rf"tokenizer.target.word_dropout=0.1 hides words .* {other} needs them; set tokenizer.target.word_dropout=0"
    )
    assert any(re.search(wanted, problem) for problem in _hidden_word_problems(experiment))
    assert not [*_hidden_word_problems(tiny.experiment(other))]


def test_gold_links_need_the_tokens_that_they_link(tmp_path):
    tokens = [f"tokenizer.{side}.{name}" for side in ("source", "target") for name in ("type=bpe", "size=300")]
    small = ("data.train_size=60", "data.eval_size=9", "loss.guided=0.5", *tokens)
    with pytest.raises(ValueError, match=r"tokenizer.target.dropout=0.1 changes the tokens that loss.guided=0.5 has"):
        read_inputs(tiny.experiment(*small, "tokenizer.target.dropout=0.1"), lambda line: None, resumed=None)
    hidden = read_inputs(tiny.experiment(*small, "tokenizer.target.word_dropout=0.1"), lambda line: None, resumed=None)
    assert hidden.noise[0] is None
    assert hidden.noise[1].rate == 0.1
