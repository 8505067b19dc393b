"""Losses on the alignment: the papers' sums in loops, padding that has no say, and what training does with them."""

import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.model.interface import unroll_targets
from s2s_jax.model.seq2seq import build
from s2s_jax.shapes import EOS, Batch, real
from s2s_jax.text.batches import BatchConfig, BatchPlan
from s2s_jax.training import alignment_losses, devices, objectives
from s2s_jax.training.devices import DeviceConfig
from s2s_jax.training.metrics_writer import MetricsWriter, RecordConfig, StepSums
from s2s_jax.training.objectives import LossConfig, LossSums, alignment_terms, batch_sums, make_loss
from s2s_jax.training.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.training.run_log import RunLog
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.training.step import initial_state, make_step

TERMS = ("coverage", "fertility", "entropy", "diagonal", "guided")
LENGTHS = [(4, 3), (1, 2), (3, 5), (5, 1), (0, 0)]  # target, source; the last row is no sentence
CHANCE = np.random.default_rng(3)


def tokens(lengths, width):
    """Ids from 4 on, then EOS, then padding."""
    rows = np.zeros((len(lengths), width), np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = [*range(4, 3 + length), EOS][:length] if length else []
    return rows


def drawn_links(chance, lengths, shape):
    """Links by chance; every other target token has none."""
    links = np.zeros(shape, bool)
    for row, (target, source) in enumerate(lengths):
        links[row, :target:2, :source] = chance.random((len(range(0, target, 2)), source)) < 0.6
    return links


def drawn(seed=0, *, wide=0):
    """A batch and its alignments, padded by `wide` more than it needs; on padding stands what must not be read."""
    chance = np.random.default_rng(seed)
    shape = len(LENGTHS), 5, 5
    alignment, links = chance.dirichlet(np.full(5, 0.7), shape[:2]), drawn_links(chance, LENGTHS, shape)
    grow = ((0, 0), (0, wide), (0, wide))
    alignment, links = np.pad(alignment, grow, constant_values=7.0), np.pad(links, grow, constant_values=True)
    target, source = (tokens([pair[side] for pair in LENGTHS], 5 + wide) for side in (0, 1))
    for row, (steps, length) in enumerate(LENGTHS):
        alignment[row, steps:] = alignment[row, :, length:] = 7.0
        inside = alignment[row, :steps, :length]
        inside /= inside.sum(-1, keepdims=True) / chance.uniform(0.6, 1, (steps, 1))  # not all attention sums to 1
        links[row, steps:] = links[row, :, length:] = True
    return Batch(source, target, links), alignment


def by_hand(name, a, links, width=0.2):
    """A term of one sentence without padding, from the papers' formulas in loops."""
    T, S = a.shape
    total = 0.0
    for s in range(S):
        if name == "fertility":
            total += (1 - sum(a[t, s] for t in range(T))) ** 2
    for t in range(T):
        for s in range(S):
            if name == "coverage":
                total += min(a[t, s], sum(a[i, s] for i in range(t)))
            elif name == "entropy" and a[t, s] > 0:
                share = a[t, s] / a[t].sum()
                total -= share * np.log(share)
            elif name == "diagonal":
                total += a[t, s] * (1 - np.exp(-((s / S - t / T) ** 2) / (2 * width**2)))
            elif name == "guided" and links[t, s]:
                total -= np.log(a[t, s]) / links[t].sum()
    return total


def ours(name, alignment, batch, **settings):
    """What the term says of each sentence."""
    extra = {"diagonal": {"width": settings.get("width", 0.2)}, "guided": {"links": jnp.asarray(batch.links)}}
    masks = {"target": jnp.asarray(real(batch.target)), "source": jnp.asarray(real(batch.source))}
    return getattr(alignment_losses, f"{name}_loss")(jnp.asarray(alignment), **masks, **extra.get(name, {}))


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("wide", [0, 3])
def test_each_term_is_its_papers_sum_of_each_sentence(name, wide):
    """However much padding there is, and whatever stands on it; rows that are no sentence add nothing."""
    batch, alignment = drawn(wide=wide)
    wanted = [
        by_hand(name, alignment[row, :steps, :length], batch.links[row, :steps, :length])
        for row, (steps, length) in enumerate(LENGTHS)
    ]
    with jax.enable_x64(True):
        found = np.asarray(ours(name, alignment, batch))
    np.testing.assert_allclose(found, wanted, atol=3e-6)  # the floor of the logarithm is 1e-8
    assert found[-1] == 0
    assert (np.asarray(wanted)[:4] != 0).any()


def test_the_width_of_the_diagonal_is_a_setting():
    batch, alignment = drawn()
    for width in (0.1, 0.5):
        wanted = [by_hand("diagonal", alignment[r, :t, :s], None, width) for r, (t, s) in enumerate(LENGTHS)]
        np.testing.assert_allclose(
            ours("diagonal", alignment.astype(np.float32), batch, width=width), wanted, rtol=1e-5
        )


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_slopes_and_exactly_zero_on_padding(name):
    batch, alignment = drawn()
    with jax.enable_x64(True):
        value = jax.jit(lambda alignment: ours(name, alignment, batch).sum())
        slopes = oracles.gradient(lambda alignment: float(value(alignment)), alignment)
        gradient = np.asarray(jax.grad(value)(jnp.asarray(alignment)))
    np.testing.assert_allclose(gradient, slopes, atol=1e-5 * np.abs(slopes).max())
    padding = ~(real(batch.target)[:, :, None] & real(batch.source)[:, None])
    assert (gradient[padding] == 0).all()
    assert (gradient[~padding] != 0).any()


@pytest.mark.parametrize("name", TERMS)
def test_nan_on_padding_reaches_neither_value_nor_gradient(name):
    batch, alignment = drawn()
    padding = ~(real(batch.target)[:, :, None] & real(batch.source)[:, None])
    clean = alignment.astype(np.float32)
    dirty = np.where(padding, np.float32(np.nan), clean)
    value = jax.value_and_grad(lambda alignment: ours(name, alignment, batch).sum())
    oracles.same(value(dirty), value(clean), tolerance=0.0)


@pytest.mark.parametrize("name", TERMS)
def test_a_sentence_adds_the_same_alone_and_among_others(name):
    batch, alignment = drawn()
    alignment = alignment.astype(np.float32)
    together = ours(name, alignment, batch)
    for row in range(len(LENGTHS)):
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], batch)
        np.testing.assert_allclose(ours(name, alignment[row : row + 1], one)[0], together[row], rtol=1e-6)


def test_coverage_leaves_the_step_itself_out():
    """A peer counts step t in: then every weight is its own minimum, here 2 and not 1."""
    batch = Batch(tokens([2], 2), tokens([2], 2))
    twice = np.array([[[1, 0], [1, 0]]], np.float32)
    once = np.array([[[1, 0], [0, 1]]], np.float32)
    assert ours("coverage", twice, batch).tolist() == [1.0]
    assert ours("coverage", once, batch).tolist() == [0.0]
    assert ours("coverage", twice[:, :1], batch._replace(target=tokens([1], 1))).tolist() == [0.0]


@pytest.mark.parametrize("name", TERMS)
def test_hard_and_empty_alignments_have_finite_values_and_gradients(name):
    """Exact zeros, as sparsemax gives, and rows that look nowhere; a guided loss still pulls at a weight of 0."""
    batch, _ = drawn()
    for alignment in (np.zeros((5, 5, 5)), np.eye(5)[None].repeat(5, 0), np.eye(5)[None, ::-1].repeat(5, 0)):
        value, gradient = jax.value_and_grad(lambda alignment: ours(name, alignment, batch).sum())(
            jnp.asarray(alignment, jnp.float32)
        )
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        if name == "guided" and not alignment.any():
            real_links = batch.links & real(batch.target)[:, :, None] & real(batch.source)[:, None]
            assert (gradient[real_links] < -1e6).all()


def test_target_tokens_without_links_add_nothing_to_guided():
    batch, alignment = drawn()
    alignment = alignment.astype(np.float32)
    assert not ours("guided", alignment, batch._replace(links=np.zeros_like(batch.links))).any()
    other = np.where(batch.links.any(-1, keepdims=True), alignment, np.float32(0.3))
    np.testing.assert_array_equal(ours("guided", other, batch), ours("guided", alignment, batch))


# --- with a model -----------------------------------------------------------------------------------------------------

LINKS = np.zeros((4, 4, 4), bool)
LINKS[0, [0, 1, 2], [2, 1, 0]] = LINKS[1, 0, 0] = LINKS[2, 0, [0, 1]] = True
HOST = Batch(
    np.array([[4, 5, 6, 2], [7, 2, 0, 0], [8, 4, 2, 0], [0, 0, 0, 0]], np.int32),
    np.array([[5, 6, 7, 2], [4, 2, 0, 0], [9, 8, 2, 0], [0, 0, 0, 0]], np.int32),
    LINKS,
)
BATCH = jax.tree.map(jnp.array, HOST)
WEIGHTS = {"coverage": 1.0, "fertility": 0.5, "entropy": -0.1, "diagonal": 2.0, "guided": 0.3}


@pytest.fixture(scope="module")
def model():
    return build(tiny.experiment().model, source_vocabulary=10, target_vocabulary=11)


@pytest.fixture(scope="module")
def params(model):
    return model.init(jax.random.key(3))


def test_the_weighted_terms_are_minimized_beside_the_nats(model, params):
    alignment = np.asarray(jax.jit(functools.partial(unroll_targets, model))(params, BATCH).alignment, np.float64)
    wanted = 0.0
    for row, (steps, length) in enumerate([(4, 4), (2, 2), (3, 3)]):
        for name, weight in WEIGHTS.items():
            wanted += weight * by_hand(name, alignment[row, :steps, :length], LINKS[row, :steps, :length], 0.3)

    def sums_of(**weights):
        config = LossConfig(label_smoothing=0.1, diagonal_width=0.3, **weights)
        return jax.jit(functools.partial(batch_sums, model, config=config))(params, BATCH)

    sums, without = sums_of(**WEIGHTS), sums_of()
    np.testing.assert_allclose(sums.auxiliary, wanted, rtol=1e-5)
    np.testing.assert_allclose(sums.objective, sums.smoothed + sums.auxiliary, rtol=1e-6)
    oracles.same(sums[:4], without[:4], tolerance=1e-6)
    assert without.auxiliary == ()
    assert without.objective is without.smoothed


def program(model, params, config):
    """The whole gradient, written down."""
    value = lambda params: batch_sums(model, params, BATCH, config=config).objective  # noqa: E731
    return str(jax.make_jaxpr(jax.grad(value))(params))


def test_a_term_without_weight_is_not_in_the_program(model, params, monkeypatch):
    none, others = program(model, params, LossConfig()), {}
    for name in TERMS:
        others[name] = program(model, params, LossConfig(**{name: 0.5}))
    assert len({none, *others.values()}) == 6
    assert program(model, params, LossConfig(diagonal_width=0.7)) == none

    def never(*_, **__):
        raise AssertionError("computed for nothing")

    for name in TERMS[1:]:
        monkeypatch.setattr(objectives, f"{name}_loss", never)
    assert program(model, params, LossConfig()) == none
    assert program(model, params, LossConfig(coverage=0.5)) == others["coverage"]
    with pytest.raises(AssertionError, match="computed for nothing"):
        program(model, params, LossConfig(fertility=0.5))


def test_a_chunked_loss_sees_the_same_alignments(model, params):
    def gradient(chunk):
        def value(params):
            sums = batch_sums(model, params, BATCH, config=LossConfig(vocabulary_chunk=chunk, **WEIGHTS))
            return sums.objective, sums

        return jax.jit(jax.grad(value, has_aux=True))(params)

    oracles.same(gradient(5), gradient(0), tolerance=1e-5)


def stepped(model, params, *, devices_count=1, parts=1, batch=HOST, learning_rate=0.1, steps=2, **weights):
    optimizer = make_optimizer(OptimizerConfig(name="sgd", learning_rate=learning_rate), 10)
    step = make_step(make_loss(model, LossConfig(**weights), ScheduledSamplingConfig()), optimizer, accumulate=parts)
    mesh = devices.make_mesh(DeviceConfig(count=devices_count))
    fresh = initial_state(jax.tree.map(jnp.copy, params), optimizer, seed=0, ema=0.0)
    state = jax.device_put(fresh, devices.on_all(mesh))
    for _ in range(steps):
        state, metrics = step(state, devices.put(batch, mesh))
    return state, metrics


def test_parts_and_devices_add_up_to_the_whole(model, params):
    """Three rows on two devices in three parts: links are filled up as tokens are."""
    odd = jax.tree.map(lambda rows: rows[:3], HOST)
    whole, of_whole = stepped(model, params, batch=odd, **WEIGHTS)
    other, of_other = stepped(model, params, batch=odd, devices_count=2, parts=3, **WEIGHTS)
    oracles.same(other.params, whole.params, tolerance=1e-6)
    oracles.same(of_other.sums, of_whole.sums, tolerance=1e-5)
    gradient = jax.jit(jax.grad(lambda params: alignment_terms_of(model, params, odd)))(params)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0.1  # or nothing was compared


def alignment_terms_of(model, params, batch):
    batch = jax.tree.map(jnp.array, batch)
    return batch_sums(model, params, batch, config=LossConfig(**WEIGHTS)).auxiliary


def test_a_term_that_is_not_finite_stops_the_step():
    """Even where everything else is finite, the gradient too."""

    def broken(params, batch, step, key):
        return LossSums(params.sum(), params.sum(), jnp.ones(()), jnp.zeros(()), jnp.full((), jnp.inf))

    optimizer = make_optimizer(OptimizerConfig(), 10)
    state, metrics = make_step(broken, optimizer)(initial_state(jnp.ones(2), optimizer, seed=0, ema=0.0), BATCH)
    assert np.isfinite(metrics.norm)
    assert not metrics.finite
    assert int(state.step) == 0


def test_guided_without_links_and_settings_that_make_no_sense_are_refused(model, params):
    text = (
        r"^loss.guided=0.5 needs the gold links of a batch, and this one has none; give Batch\(source, target, links\)"
    )
    with pytest.raises(ValueError, match=text):
        alignment_terms(jnp.zeros((4, 4, 4)), Batch(*BATCH[:2]), config=LossConfig(guided=0.5))
    for name in ("coverage", "fertility", "diagonal", "guided"):
        with pytest.raises(ValueError, match=f"^loss.{name} must be zero or more, got -1.0$"):
            LossConfig(**{name: -1.0})
    with pytest.raises(ValueError, match="^loss.diagonal_width must be above 0, got 0.0$"):
        LossConfig(diagonal_width=0.0)
    assert LossConfig(entropy=-1.0).terms == ["entropy"]


# --- the whole road ---------------------------------------------------------------------------------------------------

QUIET = Console(quiet=True)


def told(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


def test_training_with_gold_alignments_learns_where_to_look(tmp_path):
    """The task's links come through tokens and batches to the loss, and the recorder tells how it falls."""
    changes = ("data.train=task:reverse", "data.train_size=600", "data.eval_size=20", "validation.sentences=0")
    run.train(tiny.experiment(*changes, "steps=60", "record.log_every=15", "loss.guided=1"), tmp_path, QUIET)
    terms = [record["auxiliary"] for record in told(tmp_path)]
    assert len(terms) == 4
    assert terms[-1] < terms[0] / 2


@pytest.fixture
def prepared(tmp_path):
    """What a run makes of two pairs of words, cut into letters, and a file of alignments."""

    def prepare(*changes, gold="1-0\n0-0\n", folder="run"):
        for name, text in (("pairs.tsv", "ab c\tde\nf\tg\n"), ("gold", gold)):
            (tmp_path / name).write_text(text)
        files = (f"data.{split}={tmp_path / 'pairs.tsv'}" for split in ("train", "validation"))
        letters = ("tokenizer.source.type=char", "tokenizer.target.type=char", "data.lengths=[0, 0]")
        (tmp_path / folder).mkdir(exist_ok=True)
        changes = (f"data.alignment={tmp_path / 'gold'}", *changes)
        return tiny.prepare(tiny.experiment(*files, *letters, *changes), tmp_path / folder, lambda _: None).training

    return prepare


def test_links_of_words_are_spread_over_their_tokens(prepared):
    training = prepared("loss.guided=1")
    assert [one.tolist() for one in training.links] == [[[3, 0], [3, 1]], [[0, 0]]]  # "c" with "d" and with "e"
    batch = BatchPlan(training, BatchConfig(size=2, buckets=1), seed=0).batch(0)
    assert batch.links.shape == (2, 3, 5)
    assert not prepared(folder="plain").links


def test_links_of_pairs_that_are_cut_or_dropped_are_cut_and_dropped(prepared):
    cut, dropped = (
        prepared("loss.guided=1", "data.max_length=1", f"data.too_long={policy}", gold="0-0\n0-0\n", folder=policy)
        for policy in ("truncate", "drop")
    )
    assert [one.tolist() for one in cut.links] == [[[0, 0]], [[0, 0]]]
    assert [one.tolist() for one in dropped.links] == [[[0, 0]]]
    assert len(dropped.sources) == 1


def test_gold_alignments_that_are_learned_from_are_part_of_the_data_of_a_run(prepared, tmp_path):
    """A run is resumed on data of the same fingerprint alone."""

    def fingerprint(*changes, **options):
        prepared(*changes, **options)
        return json.loads((tmp_path / "run" / "facts.json").read_text())["data"]

    assert fingerprint("loss.guided=1") == fingerprint("loss.guided=1")
    assert fingerprint("loss.guided=1") != fingerprint("loss.guided=1", gold="1-0\n\n")
    assert fingerprint() == fingerprint(gold="1-0\n\n")  # nothing that is learned depends on it


def test_what_a_term_needs_is_demanded_at_once(prepared, tmp_path):
    with pytest.raises(ValueError) as refused:
        prepared("loss.guided=1", "data.alignment=")
    assert str(refused.value) == (
        f"loss.guided=1.0 needs gold alignments, and data.train={tmp_path / 'pairs.tsv'} has none; name a file of "
        "them in data.alignment, or set loss.guided=0."
    )
    text = "^loss.coverage=0.5 is a term on the alignment, and model.attention.score=none has none; choose another "
    with pytest.raises(ValueError, match=text + "model.attention.score, or set loss.coverage=0.$"):
        run.train(tiny.experiment("model.attention.score=none", "loss.coverage=0.5"), tmp_path, QUIET)


def test_the_number_is_told_only_where_a_term_has_a_weight(tmp_path):
    config, said = RecordConfig(log_every=2), io.StringIO()
    for term in (None, 3.0):
        with MetricsWriter(tmp_path, config, steps=4, log=RunLog(Console(file=said, width=200))) as writer:
            for step in range(1, 5):
                writer.step(StepSums(step, 8.0, 4.0, 2.0, 1.0, term and term * step))
        shown = [record.get("auxiliary") for record in told(tmp_path)]
        assert shown == ([None, None] if term is None else [1.125, 2.625])  # 3 (1 + 2) / 8 and 3 (3 + 4) / 8
        assert ("auxiliary 1.1250 per token" in said.getvalue()) == (term is not None)
        assert all(record["loss"] == 2.0 for record in told(tmp_path))
