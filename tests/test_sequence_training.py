"""Sequence-level training against enumeration of all outputs of a small vocabulary, the papers' formulas in NumPy."""

import functools
import itertools
import math
import shutil
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from fake import MODEL, WORDS, log_probs, table
from rich.console import Console

from s2s_jax import run
from s2s_jax.evaluate.metrics import METRICS, Predictions
from s2s_jax.run.check import smoothing_warning
from s2s_jax.run.rewards import text_reward
from s2s_jax.shapes import BOS, EOS, PAD, UNK, Batch
from s2s_jax.text.symbol_tokenizers import Words
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.objectives import LossConfig, make_loss
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.training.sequence_level.candidates import log_probs_of, samples_of
from s2s_jax.training.sequence_level.config import SequenceTraining, SequenceTrainingConfig
from s2s_jax.training.sequence_level.estimators import minimum_risk, reinforce, self_critical
from s2s_jax.training.sequence_level.raml import edited
from s2s_jax.training.sequence_level.rewards import REWARDS, host_reward

LONGEST = 4
SOURCE = jnp.array([[3, 2, 0], [4, 3, 2]], jnp.int32)  # two sentences, for which the tables of MODEL differ
TARGET = jnp.array([[4, 4, 2, 0], [4, 2, 0, 0]], jnp.int32)
BATCH = Batch(SOURCE, TARGET)


# -- rewards -----------------------------------------------------------------------------------------------------------


def until_end(ids) -> list[int]:
    ids = [int(number) for number in ids if number != PAD]
    return ids[: ids.index(EOS)] if EOS in ids else ids


def exact_by_hand(candidate, target) -> float:
    one, other = ([int(number) for number in ids if number != PAD] for ids in (candidate, target))
    return float(one == other and UNK not in other)


def edit_by_hand(candidate, target) -> float:
    one, other = until_end(candidate), [-1 if number == UNK else number for number in until_end(target)]
    cost = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i, j in itertools.product(range(1, len(one) + 1), range(1, len(other) + 1)):
        replaced = cost[i - 1, j - 1] + (one[i - 1] != other[j - 1])
        cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, replaced)
    return 1 - cost[len(one), len(other)] / max(len(other), 1)


def bleu_by_hand(candidate, target) -> float:
    one, other = until_end(candidate), [-1 if number == UNK else number for number in until_end(target)]
    logs = []
    for n in range(1, 5):
        ours, theirs = (Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)) for ids in (one, other))
        matches, total = sum((ours & theirs).values()), sum(ours.values())
        if n == 1 and not matches:
            return 0.0
        logs.append(math.log(matches / total) if n == 1 else math.log((matches + 1) / (total + 1)))
    return math.exp(min(0.0, 1 - len(other) / len(one)) + sum(logs) / 4)


BY_HAND = {"exact_match": exact_by_hand, "edit": edit_by_hand, "bleu": bleu_by_hand}


def random_rows(rng, shape: tuple[int, ...], width: int, *, ended: float) -> np.ndarray:
    """Rows of ids 3 to 7 of random lengths, PAD behind; some have no end."""
    rows = np.zeros((*shape, width), np.int32)
    for place in np.ndindex(shape):
        length = rng.integers(0, width)
        rows[place][:length] = rng.integers(3, 8, length)
        if rng.random() < ended or not length:
            rows[place][length] = EOS
    return rows


@pytest.fixture(scope="module")
def ids():
    """Candidates [6, 40, 7] and targets [6, 9], with unknown tokens, empty lines and exact matches."""
    rng = np.random.default_rng(0)
    candidates, target = random_rows(rng, (6, 40), 7, ended=0.8), random_rows(rng, (6,), 9, ended=1.0)
    target[0] = [4, 5, 4, 5, 4, EOS, 0, 0, 0]
    target[1] = [5, UNK, 6, EOS, 0, 0, 0, 0, 0]
    target[2] = [EOS, 0, 0, 0, 0, 0, 0, 0, 0]
    candidates[:3, 0] = target[:3, :7]
    candidates[0, 1] = [4, 5, 4, 5, 4, 0, 0]  # as the target, cut off before its end
    candidates[0, 2] = [4, 5, 4, 5, 4, 5, EOS]
    return candidates, target


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_of_ids_is_the_formula(name, ids):
    candidates, target = ids
    rewards = jax.jit(REWARDS[name])(*ids)
    wanted = [[BY_HAND[name](one, other) for one in rows] for rows, other in zip(candidates, target, strict=True)]
    np.testing.assert_allclose(rewards, wanted, atol=1e-6)
    assert len(np.unique(wanted)) > 1


def test_a_reward_of_text_is_the_metric_of_each_line():
    """Also where unknown tokens stand in both; samples that repeat each other are measured once."""
    tokenizer = Words.train(["a b c d e f g"], size=11, unicode="none")
    encode = lambda line: [*tokenizer.encode(line), EOS]  # noqa: E731
    lines = [("a b c", "a b c"), ("a b", "a b c"), ("", "a"), ("a x", "a y"), ("a b", "a b c")]
    candidates, target = (np.array([(encode(pair[side]) + [0] * 4)[:4] for pair in lines], np.int32) for side in (0, 1))
    wer = text_reward("wer", tokenizer, unit="word")(candidates, target)
    np.testing.assert_allclose(wer, [1, 2 / 3, 0, 1 / 2, 2 / 3])
    np.testing.assert_allclose(
        wer, REWARDS["edit"](jnp.asarray(candidates[:, None]), jnp.asarray(target))[:, 0], atol=1e-6
    )
    chrf = text_reward("chrf", tokenizer, unit="word")(candidates, target)
    known = [pair for pair in lines if "x" not in pair[0]]
    predictions = Predictions([text for text, _ in known], [[line] for _, line in known])
    wanted = METRICS["chrf"].values(METRICS["chrf"].counts(predictions)) / 100
    np.testing.assert_allclose(chrf[[0, 1, 2, 4]], wanted)
    assert text_reward("wer", tokenizer, unit="word")(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.int32)) == 0
    replicas = jnp.asarray(np.stack([candidates, candidates[::-1]])[:, :, None]), jnp.asarray(target)
    reward = jax.vmap(host_reward(text_reward("wer", tokenizer, unit="word")), in_axes=(0, None))(*replicas)
    np.testing.assert_allclose(reward[0, :, 0], wer, atol=1e-6)
    assert float(reward[1, 0, 0]) == pytest.approx(2 / 3)  # "a b" against "a b c"


# -- enumeration: every output of MODEL --------------------------------------------------------------------------------


def all_outputs() -> list[tuple[int, ...]]:
    """Every output of at most LONGEST tokens: ended, or cut off at the bound."""
    words = (UNK, 4)
    ended = [(*ids, EOS) for length in range(LONGEST) for ids in itertools.product(words, repeat=length)]
    return ended + list(itertools.product(words, repeat=LONGEST))


def padded(ids) -> list[int]:
    return [*ids, *[PAD] * (LONGEST - len(ids))]


def log_prob_by_hand(weights: np.ndarray, which: int, output) -> tuple[float, np.ndarray]:
    """log p of an output with PAD and BOS left out, and its gradient by the table."""
    total, gradient, last = 0.0, np.zeros(weights.shape), BOS
    for time, token in enumerate(output):
        p = np.exp(log_probs(weights, which, time, last))
        p[[PAD, BOS]] = 0
        p /= p.sum()
        total += np.log(p[token])
        gradient[which, last] -= p
        gradient[which, last, token] += 1
        last = token
    return total, gradient


class Enumerated:
    """All outputs of both sentences: log-probabilities [B, N], their gradients [B, N, ...], and rewards [B, N]."""

    def __init__(self, reward: str):
        weights, self.outputs = np.asarray(table(), np.float64), all_outputs()
        each = [[log_prob_by_hand(weights, int(row[0]) % 2, one) for one in self.outputs] for row in SOURCE]
        self.log_probs = np.array([[total for total, _ in row] for row in each])
        self.gradients = np.array([[gradient for _, gradient in row] for row in each])
        self.rewards = np.array(
            [[BY_HAND[reward](padded(one), target) for one in self.outputs] for target in np.asarray(TARGET)]
        )
        self.p = np.exp(self.log_probs)

    def risk(self, alpha: float, members=None) -> tuple[float, np.ndarray]:
        """The risk summed over sentences and its gradient; `members` [B, N] are the candidates, None for all."""
        weights = self.p**alpha * (1 if members is None else members)
        weights /= weights.sum(-1, keepdims=True)
        cost, gradient = 1 - self.rewards, 0.0
        for q, losses, log_gradients in zip(weights, cost, self.gradients, strict=True):
            # dQ_i = alpha Q_i (g_i - sum of Q_j g_j)
            gradient += alpha * np.einsum("n,nwab->wab", q * (losses - q @ losses), log_gradients)
        return float((weights * cost).sum()), gradient


def settings(**changes) -> SequenceTraining:
    return SequenceTraining(config=SequenceTrainingConfig(max_length=LONGEST, **changes), vocabulary=WORDS + 1)


def test_the_probabilities_of_all_outputs_are_those_of_enumeration_and_sum_to_1():
    found = Enumerated("edit")
    rows = jnp.broadcast_to(jnp.array([padded(one) for one in found.outputs], jnp.int32)[None], (2, 31, LONGEST))
    whole, chunked = (
        jax.jit(lambda params, chunk=chunk: log_probs_of(MODEL, params, SOURCE, rows, chunk=chunk))(table())
        for chunk in (0, 7)
    )
    np.testing.assert_allclose(whole, found.log_probs, rtol=1e-5)
    np.testing.assert_allclose(chunked, whole, rtol=1e-5)
    np.testing.assert_allclose(found.p.sum(-1), 1)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_risk_of_all_outputs_and_its_gradient_are_those_of_enumeration(alpha):
    """A beam as wide as there are outputs finds all of them."""
    found = Enumerated("edit")
    sequence = settings(candidates="beam", samples=len(found.outputs), alpha=alpha)

    @jax.jit
    @jax.value_and_grad
    def computed(params):
        return minimum_risk(MODEL, params, BATCH, jax.random.key(0), sequence=sequence, chunk=0).cost.sum()

    cost, gradient = computed(table())
    wanted, wanted_gradient = found.risk(alpha)
    np.testing.assert_allclose(cost, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, atol=1e-5)
    assert np.abs(wanted_gradient).max() > 1e-2


def test_the_risk_of_samples_leaves_their_repeats_out_and_has_the_reference_in():
    found, key = Enumerated("bleu"), jax.random.key(3)
    sequence = settings(samples=6, alpha=0.5, reward="bleu", reference=True)

    @jax.jit
    def computed(params):
        cost = lambda params: minimum_risk(MODEL, params, BATCH, key, sequence=sequence, chunk=0).cost.sum()  # noqa: E731
        return *jax.value_and_grad(cost)(params), samples_of(MODEL, params, SOURCE, key, samples=6, max_length=LONGEST)

    cost, gradient, drawn = computed(table())
    places = {tuple(padded(one)): place for place, one in enumerate(found.outputs)}
    members = np.zeros(found.p.shape)
    for row, candidates in enumerate([*map(list, np.asarray(drawn))]):
        for candidate in [*candidates, np.asarray(TARGET)[row]]:
            members[row, places[tuple(int(number) for number in candidate)]] = 1
    assert (members.sum(-1) < 7).any()  # there were repeats
    wanted, wanted_gradient = found.risk(0.5, members)
    np.testing.assert_allclose(cost, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, atol=1e-5)


DRAWS = 1000
UNBIASED = {
    "no baseline": (reinforce, {"baseline": "none", "samples": 2}),
    "batch": (reinforce, {"baseline": "batch", "samples": 2}),
    "leave-one-out": (reinforce, {"baseline": "leave-one-out", "samples": 3}),
    "self-critical": (self_critical, {"samples": 2}),
}


@pytest.fixture(scope="module")
def estimates():
    """By estimator, the gradients of many draws [DRAWS, ...]; one compiled program."""

    @jax.jit
    def drawn(params, keys):
        def gradient(estimator, changes, key):
            cost = lambda params: estimator(  # noqa: E731
                MODEL, params, BATCH, key, sequence=settings(**changes), chunk=0
            ).cost.sum()
            return jax.grad(cost)(params)

        return {
            name: jax.vmap(lambda key, given=given: gradient(*given, key))(keys) for name, given in UNBIASED.items()
        }

    return jax.device_get(drawn(table(), jax.random.split(jax.random.key(7), DRAWS)))


@pytest.mark.parametrize("name", UNBIASED)
def test_the_gradient_of_samples_is_that_of_the_expected_reward_on_average(name, estimates):
    found, each = Enumerated("edit"), estimates[name]
    wanted = -np.einsum("bn,bnwij->wij", found.p * found.rewards, found.gradients)
    error = each.std(0) / math.sqrt(DRAWS)
    assert (np.abs(each.mean(0) - wanted) <= 4.5 * error + 1e-6).all()
    assert np.abs(wanted).max() > 20 * error.max()  # the law can fail


def test_a_baseline_of_its_own_sentence_lowers_the_variance(estimates):
    spread = {name: each.var(0).sum() * UNBIASED[name][1]["samples"] for name, each in estimates.items()}
    assert spread["leave-one-out"] < spread["no baseline"]


def test_the_samples_of_a_sentence_do_not_depend_on_the_rows_beside_it():
    more = jnp.concatenate([SOURCE, SOURCE[:1], jnp.zeros((1, 3), jnp.int32)])
    draw = functools.partial(samples_of, MODEL, table(), key=jax.random.key(1), samples=5, max_length=LONGEST)
    alone, together = jax.jit(lambda: (draw(source=SOURCE), draw(source=more)))()
    np.testing.assert_array_equal(alone, together[:2])


# -- RAML --------------------------------------------------------------------------------------------------------------


def edits_by_hand(target: list[int], vocabulary: int, chance: float) -> dict[tuple[int, ...], float]:
    """The probability of each edited target: the weights chance^e of all ways to make e edits, added by result."""
    ordinary = range(4, vocabulary)
    insertions = [((), 1.0), *(((token,), chance / len(ordinary)) for token in ordinary)]
    weights: dict[tuple[int, ...], float] = {(): 1.0}
    for place in range(len(target) + 1):
        words = [((), 1.0)]
        if place < len(target):
            others = [token for token in ordinary if token != target[place]]
            words = [((target[place],), 1.0), ((), chance), *(((token,), chance / len(others)) for token in others)]
        longer: dict[tuple[int, ...], float] = {}
        for (start, weight), (before, one), (word, two) in itertools.product(weights.items(), insertions, words):
            longer[start + before + word] = longer.get(start + before + word, 0.0) + weight * one * two
        weights = longer
    total = sum(weights.values())
    m = len(target)
    assert total == pytest.approx((1 + 2 * chance) ** m * (1 + chance) ** (m + 1))
    return {ids: weight / total for ids, weight in weights.items()}


def test_edited_targets_have_the_probabilities_of_enumeration():
    target, vocabulary, temperature, draws = [5, 4], 7, 0.8, 40_000
    row = jnp.array([*target, EOS, PAD], jnp.int32)
    keys = jax.random.split(jax.random.key(0), draws)
    draw = jax.jit(
        lambda width, keys: jax.vmap(
            lambda key: edited(row, key, temperature=temperature, vocabulary=vocabulary, width=width)
        )(keys),
        static_argnums=0,
    )
    drawn = np.asarray(draw(6, keys))
    counts = Counter(tuple(until_end(ids)) for ids in drawn)
    wanted = edits_by_hand(target, vocabulary, math.exp(-1 / temperature))
    assert set(counts) <= set(wanted)
    for ids, probability in wanted.items():
        error = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[ids] / draws - probability) < 5 * error, ids
    assert (drawn == EOS).sum() == draws
    short = np.asarray(draw(4, keys[:500]))
    assert ((short == EOS).sum(-1) == 1).all()  # what does not fit is left out, and never the end
    assert (np.abs(short[:, 3]) > 0).any()


# -- objectives --------------------------------------------------------------------------------------------------------


OBJECTIVES_AT_5 = {
    "plain": ("cross-entropy", {}),
    "raml": ("raml", {"temperature": 1e-3}),  # exp(-1000) is 0: nothing is edited
    "pure": ("reinforce", {}),
    "mixed": ("reinforce", {"schedule": "linear", "start": 0.9, "decay": 10.0}),  # 0.45 at step 5
}


def test_raml_without_edits_is_cross_entropy_and_the_weight_mixes_both():
    def computed(params, objective: str, changes: dict):
        config, sampling = LossConfig(objective=objective, label_smoothing=0.1), ScheduledSamplingConfig()
        loss = make_loss(MODEL, config, sampling, settings(**changes))

        def total(params):
            sums = loss(params, BATCH, jnp.int32(5), jax.random.key(2))
            return sums.objective, sums

        return jax.value_and_grad(total, has_aux=True)(params)

    each = jax.jit(lambda params: {name: computed(params, *given) for name, given in OBJECTIVES_AT_5.items()})(table())
    sums = {name: found[0][1] for name, found in each.items()}
    gradients = {name: found[1] for name, found in each.items()}
    found = Enumerated("edit")
    own = [found.outputs.index(tuple(number for number in row if number)) for row in np.asarray(TARGET).tolist()]
    wanted = -sum(found.log_probs[row, place] for row, place in enumerate(own))
    assert float(sums["raml"].objective) == pytest.approx(wanted, rel=1e-5)
    assert float(sums["raml"].nats) == pytest.approx(float(sums["plain"].nats), rel=1e-6)
    assert (float(sums["raml"].reward), float(sums["raml"].sentences)) == pytest.approx((2.0, 2.0))
    mixed = 0.45 * sums["plain"].objective + 0.55 * sums["pure"].objective
    assert float(sums["mixed"].objective) == pytest.approx(float(mixed), rel=1e-5)
    np.testing.assert_allclose(gradients["mixed"], 0.45 * gradients["plain"] + 0.55 * gradients["pure"], atol=1e-5)


QUIET = Console(quiet=True)


def test_a_run_with_a_reward_of_text_is_resumed_bit_for_bit_and_records_it(tmp_path):
    """With gradient accumulation, dropout and a schedule; metrics.jsonl has the reward and the weight."""
    base = tiny.experiment(
        *("steps=4", "data.train_size=300", "batch.size=16", "validation.every=4", "validation.sentences=0"),
        *("checkpoint.every=2", "record.log_every=2", "optimizer.schedule=constant", "optimizer.accumulate=2"),
        *("loss.objective=minimum-risk", "sequence_training.reward=text:chrf", "sequence_training.samples=3"),
        *("sequence_training.schedule=linear", "sequence_training.start=0.5", "sequence_training.decay=4"),
        "model.decoder.dropout=0.1",
    )
    whole = run.train(base, tmp_path, QUIET).params
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    resumed = run.train(base, tmp_path, QUIET).params
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    records = [record for record in read_metrics(tmp_path / "metrics.jsonl") if record["kind"] == "train"]
    assert [record["cross_entropy_weight"] for record in records] == [0.375, 0.125]
    assert all(0 < record["reward"] < 1 for record in records)


def test_copied_words_bfloat16_and_chunks_can_be_trained_with_candidates_of_a_beam():
    run.check_trainable(
        tiny.experiment(
            *("loss.objective=minimum-risk", "sequence_training.candidates=beam", "model.decoder.copy=pointer"),
            *("model.precision=bfloat16", "loss.vocabulary_chunk=20", "sequence_training.reference=true"),
        )
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "edits"}, "sequence_training.reward must be one of .*did you mean 'edit'"),
        ({"samples": 0}, "sequence_training.samples must be positive, got 0"),
        ({"candidates": "beams"}, "did you mean 'beam'"),
        ({"baseline": "batches"}, "did you mean 'batch'"),
        ({"alpha": 0.0}, "sequence_training.alpha must be positive, got 0.0"),
        ({"temperature": -1.0}, "sequence_training.temperature must be positive, got -1.0"),
        ({"start": 2.0}, r"sequence_training.start must be a probability in \[0, 1\], got 2.0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SequenceTrainingConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("reinforce", "sequence_training.candidates=beam"), "set sequence_training.candidates=sample"),
        (
            ("raml", "sequence_training.candidates=beam"),
            "edited targets alone; set sequence_training.candidates=sample",
        ),
        (("reinforce", "sequence_training.reference=true"), "set sequence_training.reference=false"),
        (("minimum-risk", "loss.coverage=1"), "set loss.coverage=0, or sequence_training.start above 0"),
        (("raml", "scheduled_sampling.start=0.5"), r"set scheduled_sampling.start=1.0, or sequence_training.start"),
        (("raml", "scheduled_sampling.schedule=linear"), "set scheduled_sampling.schedule=constant, or"),
        (("reinforce", "sequence_training.samples=1"), "set sequence_training.samples=2 or more, or .*baseline=batch"),
        (("minimum-risk", "sequence_training.samples=1"), "set sequence_training.samples=2 or more"),
        (
            ("raml", "sequence_training.reward=text:per"),
            "sequence_training.reward=text:per needs evaluation.unit=phone",
        ),
        (("raml", "sequence_training.reward=text:loss"), "sequence_training.reward=text:loss needs forced decoding"),
        (
            ("raml", "sequence_training.reward=text:chrf", "model.decoder.copy=pointer"),
            "reads text, and model.decoder.copy=pointer writes words .* one of exact_match, edit, bleu",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(changes, message):
    objective, *others = changes
    with pytest.raises(ValueError, match=message):
        run.check_trainable(tiny.experiment(f"loss.objective={objective}", *others))


def test_label_smoothing_without_effect_is_reported():
    changes = ("loss.objective=raml", "loss.label_smoothing=0.1")
    assert smoothing_warning(tiny.experiment(*changes)).startswith("loss.label_smoothing=0.1 has no effect")
    assert smoothing_warning(tiny.experiment(*changes, "sequence_training.start=0.5")) is None
    assert smoothing_warning(tiny.experiment(changes[1])) is None


def test_an_unknown_metric_of_texts_is_refused_by_its_setting():
    with pytest.raises(ValueError, match=r"sequence_training.reward=text:METRIC.* did you mean 'chrf'"):
        tiny.experiment("sequence_training.reward=text:chr")
