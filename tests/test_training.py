"""Loss, feeding, optimizer and step: sums by hand, feeding laws, devices that do not matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import tiny

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import scan_of_step, shift_right, unroll_targets
from s2s_jax.model.ops.target import built_for
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.run import preparation
from s2s_jax.shapes import BOS, EOS, PAD, Batch
from s2s_jax.training import devices
from s2s_jax.training.devices import DeviceConfig
from s2s_jax.training.objectives import LossConfig, LossSums, batch_sums, make_loss, sum_losses, token_losses
from s2s_jax.training.optimizer import (
    OPTIMIZERS,
    OptimizerConfig,
    check_patterns,
    frozen_mask,
    learning_rate,
    make_optimizer,
    plateau_factor,
    warmup_warning,
)
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig, scheduled_sampling
from s2s_jax.training.step import SPIKE_HISTORY, SPIKE_WINDOW, initial_state, is_spike, make_step

HOST = Batch(
    np.array([[4, 5, 6, 2], [7, 2, 0, 0], [8, 4, 2, 0], [0, 0, 0, 0]], np.int32),
    np.array([[5, 6, 7, 2], [4, 2, 0, 0], [9, 8, 2, 0], [0, 0, 0, 0]], np.int32),
)
BATCH = jax.tree.map(jnp.array, HOST)


@pytest.fixture(scope="module")
def model():
    return build(tiny.experiment().model, source_vocabulary=10, target_vocabulary=11)


@pytest.fixture(scope="module")
def params(model):
    return model.init(jax.random.key(3))


def test_sums_are_the_formula_by_hand():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    target = np.array([[4, 3, 2], [3, 2, 0]], np.int32)
    nats = smoothed = correct = 0.0
    for row, time in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        log_probs = logits[row, time] - np.log(np.exp(logits[row, time]).sum())
        nats -= log_probs[target[row, time]]
        smoothed -= 0.9 * log_probs[target[row, time]] + 0.1 * log_probs.mean()
        correct += log_probs.argmax() == target[row, time]
    sums = sum_losses(token_losses(jnp.array(logits), jnp.array(target), label_smoothing=0.1), jnp.array(target))
    np.testing.assert_allclose(sums[:4], [nats, smoothed, 5, correct], rtol=1e-5)


def test_what_is_fed_is_the_target_one_step_late():
    assert shift_right(jnp.array([[5, 6, 2], [7, 2, 0]])).tolist() == [[BOS, 5, 6], [BOS, 7, 2]]


def feeding(model, tail="argmax"):
    config = ScheduledSamplingConfig(schedule="constant", start=0.5, prediction=tail)
    return jax.jit(lambda params, epsilon, key: mixed(model, params, BATCH, epsilon, config, key))


def mixed(model, params, batch, epsilon, config, key):
    """All steps under scheduled sampling."""
    policy = scheduled_sampling(model, params, epsilon=epsilon, config=config)
    return unroll_targets(model, params, batch, key, policy=policy)


@pytest.fixture(scope="module")
def feed(model):
    return feeding(model)


def test_epsilon_one_is_teacher_forcing_bit_for_bit(model, params, feed):
    given = params, 1.0, jax.random.key(0)
    true = jax.jit(lambda params, key: unroll_targets(model, params, BATCH, key))(params, jax.random.key(0))
    oracles.same(feed(*given), true, tolerance=oracles.rounding())


def said_in(model, params, memory, state, fed):
    """The tokens that an unroll is fed."""
    if fed.sampler is None:
        return fed.tokens
    _, step = model.unroll(params, memory, state, fed.tokens, sampler=fed.sampler)
    times, given = jnp.arange(fed.tokens.shape[1]), fed.sampler.shifted_inputs()
    picked = jax.vmap(fed.sampler.next_token)(step.logits.swapaxes(0, 1), given, times)
    return jnp.concatenate([fed.tokens[:, :1], picked[:-1].T], axis=1)


def test_as_many_passes_as_steps_choose_what_one_step_after_the_other_chooses(model, params):
    steps, passes = (
        ScheduledSamplingConfig(schedule="constant", start=0.5, parallel_passes=count)
        for count in (0, BATCH.target.shape[1])
    )

    @functools.partial(jax.jit, static_argnames="config")
    def fed(key, config):
        memory, state = model.encode(params, BATCH.source)
        choose = scheduled_sampling(model, params, epsilon=jnp.full((), 0.3), config=config)
        return said_in(model, params, memory, state, choose(memory, state, shift_right(BATCH.target), key))

    for seed in range(5):
        one, other = (np.asarray(fed(jax.random.key(seed), config)) for config in (steps, passes))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("decoder", "history", "remat"),
    [
        ({"cell": "lstm"}, "coverage-gru", 2),
        pytest.param({"input_feeding": False, "dropout": 0.3}, "none", 0, marks=pytest.mark.wide),
        pytest.param({"architecture": "bahdanau", "layers": 2}, "none", 0, marks=pytest.mark.wide),
        pytest.param({"copy": "pointer", "copy_slots": 2}, "none", 2, marks=pytest.mark.wide),
        pytest.param({"copy": "copynet", "copy_slots": 2}, "none", 0, marks=pytest.mark.wide),
        pytest.param({"tied_embeddings": True, "self_attention_window": 2}, "none", 0, marks=pytest.mark.wide),
    ],
)
def test_a_mixed_unroll_and_its_slopes_are_the_scan_of_steps(decoder, history, remat):
    config = ModelConfig(
        embedding=6,
        encoder=EncoderConfig(cell="gru", size=3),
        attention=AttentionConfig(score="additive", size=4, history=history),
        decoder=DecoderConfig(**{"cell": "gru", "size": 6} | decoder),
        remat_every=remat,
    )
    fast = build(config, source_vocabulary=12, target_vocabulary=12)
    slow = dataclasses.replace(fast, unroll=scan_of_step(fast.step))
    params, forcing = (
        fast.init(jax.random.key(3)),
        ScheduledSamplingConfig(schedule="constant", start=0.5, prediction="sample"),
    )

    def sloped(model):
        loss = make_loss(model, LossConfig(), forcing)
        return jax.jit(jax.value_and_grad(lambda params, key: loss(params, BATCH, jnp.array(3), key).nats))

    one, other = sloped(fast), sloped(slow)
    for seed in range(3):
        oracles.same(*(run(params, jax.random.key(seed)) for run in (one, other)), tolerance=2e-5)


@pytest.mark.parametrize("tail", ["argmax", "sample"])
def test_epsilon_zero_runs_free(model, params, tail):
    """The truth has no say at all: another target gives the same predictions with the same key."""
    config = ScheduledSamplingConfig(schedule="constant", start=0.0, prediction=tail)
    run = jax.jit(
        lambda target: (
            mixed(model, params, Batch(BATCH.source, target), jnp.zeros(()), config, jax.random.key(1)).logits
        )
    )
    other = jnp.array(np.where(HOST.target > 2, 10, BATCH.target))
    np.testing.assert_array_equal(run(BATCH.target), run(other))
    if tail == "argmax":
        memory, state = model.encode(params, BATCH.source)
        token = jnp.full((4,), BOS, jnp.int32)
        for time in range(4):
            state, step = model.step(params, memory, state, token)
            np.testing.assert_allclose(run(other)[:, time], step.logits, atol=1e-5)
            token = step.logits.argmax(-1).astype(jnp.int32)


@pytest.fixture(scope="module")
def softly(model):
    """What is fed, and the sums under it, by a soft tail at an epsilon and a temperature; both traced."""

    @functools.partial(jax.jit, static_argnames="tail")
    def run(params, epsilon, temperature, key, tail):
        config = ScheduledSamplingConfig(schedule="constant", start=0.5, prediction=tail)
        object.__setattr__(config, "temperature", temperature)
        choose = scheduled_sampling(model, params, epsilon=epsilon, config=config)
        fed = choose(*model.encode(params, BATCH.source), shift_right(BATCH.target), key).tokens
        return fed, batch_sums(model, params, BATCH, key, config=LossConfig(), policy=choose).nats

    return run


def test_soft_tails_feed_true_tokens_where_the_coin_says_so(model, params, softly):
    fed, nats = softly(params, 1.0, 1.0, jax.random.key(0), tail="soft")
    np.testing.assert_array_equal(fed.argmax(-1), shift_right(BATCH.target))
    np.testing.assert_array_equal(fed.max(-1), 1.0)
    np.testing.assert_allclose(nats, batch_sums(model, params, BATCH, config=LossConfig()).nats, rtol=1e-5)


def test_a_cold_soft_tail_is_an_argmax_and_gumbel_feeds_a_sample(model, params, softly):
    key = jax.random.key(1)
    for soft, hard, temperature in (("soft", "argmax", 1e-4), ("gumbel", "sample", 1.0)):
        fed, _ = softly(params, 0.3, temperature, key, tail=soft)
        config = ScheduledSamplingConfig(schedule="constant", start=0.5, prediction=hard)
        choose = scheduled_sampling(model, params, epsilon=jnp.full((), 0.3), config=config)
        memory, state = model.encode(params, BATCH.source)
        fed_hard = choose(memory, state, shift_right(BATCH.target), key)
        wanted = said_in(model, params, memory, state, fed_hard)
        np.testing.assert_allclose(fed, jax.nn.one_hot(wanted, 11), atol=1e-5)


def test_gradients_pass_through_a_soft_tail(params, softly):
    """Central differences of the whole: what is fed moves with the parameters too."""

    def nats(params):
        return softly(params, 0.2, 0.7, jax.random.key(2), tail="soft")[1]

    along = oracles.drawn(params, seed=5)
    found = oracles.along_gradient(jax.grad(nats)(params), along)
    ahead, behind = (
        float(nats(jax.tree.map(step, params, along)))
        for step in (lambda p, v: p + 0.01 * v, lambda p, v: p - 0.01 * v)
    )
    assert float(found) == pytest.approx((ahead - behind) / 0.02, rel=2e-2)


def test_there_is_a_coin_a_token_not_a_coin_a_batch(model, params, feed):
    """Rows, and steps within a row, differ in what they were fed: a named defect of peers."""
    free, true = (np.asarray(feed(params, epsilon, jax.random.key(0)).logits) for epsilon in (0.0, 1.0))
    rows = set()
    for seed in range(12):
        half = np.asarray(feed(params, 0.5, jax.random.key(seed)).logits)
        same_as_true = np.isclose(half, true, atol=1e-6).all(-1)[:3, 1:3]
        rows.add(tuple(map(tuple, same_as_true.tolist())))
    assert len(rows) > 4
    assert any(len(set(row)) > 1 for row in rows)
    assert not np.allclose(free[:3, 1:3], true[:3, 1:3])


def test_one_program_serves_every_probability(feed, params):
    before = feed._cache_size()
    for epsilon in (0.1, 0.7):
        feed(params, epsilon, jax.random.key(2))
    assert feed._cache_size() <= max(before, 1)


def trained(model, params, mesh, steps=3, **options):
    optimizer = make_optimizer(OptimizerConfig(name="sgd", learning_rate=0.1), 10)  # Adam would magnify rounding
    forcing = options.pop("forcing", ScheduledSamplingConfig())
    step = make_step(make_loss(model, LossConfig(label_smoothing=0.1), forcing), optimizer, **options)
    fresh = initial_state(jax.tree.map(jnp.copy, params), optimizer, seed=0, ema=options.get("ema", 0.0))
    state = jax.device_put(fresh, devices.on_all(mesh))
    for _ in range(steps):
        state, metrics = step(state, devices.put(HOST, mesh))
    return state, metrics


@pytest.mark.parametrize(
    "forcing", [ScheduledSamplingConfig(), ScheduledSamplingConfig(schedule="constant", start=0.5, prediction="sample")]
)
def test_one_and_two_devices_train_alike(model, params, forcing):
    states = [
        trained(model, params, devices.make_mesh(DeviceConfig(count=count)), forcing=forcing)[0] for count in (1, 2)
    ]
    for one, two in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_trains_like_the_whole(model, params, parts):
    """Parts hold different numbers of tokens, and three do not divide the four rows."""
    mesh = devices.make_mesh(DeviceConfig(count=2))
    (whole, of_whole), (added, of_parts) = (trained(model, params, mesh, accumulate=count) for count in (1, parts))
    oracles.same(added.params, whole.params, tolerance=1e-6)
    oracles.same(of_parts.sums, of_whole.sums, tolerance=1e-5)


@pytest.mark.parametrize("unroll", ["ours", "scan of step"])
@pytest.mark.parametrize("chunk", [5, 64])
def test_logits_read_in_chunks_lose_nothing(model, params, chunk, unroll):
    """Sums and gradients; 5 does not divide the 16 tokens, 64 is more than all."""
    one = model if unroll == "ours" else dataclasses.replace(model, unroll=scan_of_step(model.step))

    def loss(params, chunk):
        sums = batch_sums(one, params, BATCH, config=LossConfig(label_smoothing=0.1, vocabulary_chunk=chunk))
        return sums.smoothed, sums

    whole, chunked = (jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(params, size) for size in (0, chunk))
    oracles.same(chunked, whole, tolerance=1e-5)


def held(program, shape):
    """Whether a program, or one inside it, ever holds an array of a shape."""
    for equation in program.eqns:
        if any(getattr(out.aval, "shape", ()) == shape for out in equation.outvars):
            return True
        inner = [getattr(one, "jaxpr", one) for one in jax.tree.leaves(list(equation.params.values()))]
        if any(held(one, shape) for one in inner if hasattr(one, "eqns")):
            return True
    return False


def test_a_chunked_loss_never_holds_all_logits(model, params):
    def gradient(chunk):
        sums = lambda params: batch_sums(model, params, BATCH, config=LossConfig(vocabulary_chunk=chunk)).nats  # noqa: E731
        return jax.make_jaxpr(jax.grad(sums))(params).jaxpr

    steps, batch = BATCH.target.T.shape
    assert held(gradient(0), (steps, batch, 11))
    assert not held(gradient(5), (steps, batch, 11))
    assert not held(gradient(5), (batch, steps, 11))
    assert held(gradient(5), (5, 11))


def copied(steps):
    """Batches of up to five letters to copy."""
    chance = np.random.default_rng(4)
    for _ in range(steps):
        letters = chance.integers(4, 10, (32, 6)).astype(np.int32)
        ends = chance.integers(1, 6, (32, 1))
        letters = np.where(np.arange(6) < ends, letters, np.where(np.arange(6) == ends, EOS, PAD)).astype(np.int32)
        yield Batch(jnp.array(letters), jnp.array(letters))


@pytest.mark.wide
def test_bfloat16_learns_as_float32_does_within_the_noise_of_seeds():
    optimizer = make_optimizer(OptimizerConfig(learning_rate=2e-2), steps=1)
    ends = {}
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(tiny.experiment().model, precision=precision)
        model = build(config, source_vocabulary=10, target_vocabulary=11)
        step = make_step(make_loss(model, LossConfig(), ScheduledSamplingConfig()), optimizer)
        for seed in range(3):
            state = initial_state(model.init(jax.random.key(seed)), optimizer, seed=seed, ema=0.0)
            losses = []
            for batch in copied(150):
                state, metrics = step(state, batch)
                losses.append(metrics.sums.nats / metrics.sums.tokens)
            ends[precision, seed] = float(np.mean(losses[-20:]))
    exact, rounded = ([ends[precision, seed] for seed in range(3)] for precision in ("float32", "bfloat16"))
    assert max(exact) < 1.0, ends  # nothing learned would be nothing compared: a guess costs ln 7 = 1.95
    assert abs(np.mean(exact) - np.mean(rounded)) <= max(exact) - min(exact), ends


def test_rows_that_do_not_divide_are_filled_up_and_count_for_nothing(model, params):
    mesh = devices.make_mesh(DeviceConfig(count=2))
    odd = jax.tree.map(lambda rows: rows[:3], HOST)
    assert devices.put(odd, mesh).source.shape == (4, 4)
    loss = make_loss(model, LossConfig(), ScheduledSamplingConfig())
    key, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    run = jax.jit(loss)
    whole = run(params, devices.put(odd, mesh), step, key)
    oracles.same(whole, loss(params, jax.tree.map(jnp.array, odd), step, key), tolerance=1e-6)


def test_the_average_is_an_exponential_one(model, params):
    mesh = devices.make_mesh(DeviceConfig(count=1))
    state, _ = trained(model, params, mesh, steps=1, ema=0.9)
    for shown, new, old in zip(*map(jax.tree.leaves, (state.evaluation_params, state.params, params)), strict=True):
        np.testing.assert_allclose(shown, 0.9 * old + 0.1 * new, atol=1e-6)


def test_a_step_that_is_not_finite_is_not_taken(model, params):
    """Row 28 of the faults: NaN stops before the update."""
    mesh = devices.make_mesh(DeviceConfig(count=1))
    broken = {**params, "embedding": params["embedding"].at[4].set(jnp.nan)}
    state, metrics = trained(model, broken, mesh, steps=2)
    assert not bool(metrics.finite)
    assert int(state.step) == 0
    for after, before in zip(jax.tree.leaves(state.params), jax.tree.leaves(broken), strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_nan_on_one_device_alone_stops_all(model, params):
    """Row 29 of the faults: the decision is one of the whole batch. Token 8 is in a row of the second device only."""
    mesh = devices.make_mesh(DeviceConfig(count=2))
    broken = {**params, "embedding": params["embedding"].at[8].set(jnp.nan)}
    assert (HOST.source[:2] != 8).all()
    state, metrics = trained(model, broken, mesh, steps=1)
    assert not bool(metrics.finite)
    assert int(state.step) == 0
    oracles.same(state.params, broken, tolerance=0)


def line_loss(params, batch, step, key):
    """The gradient is the number in the batch."""
    zero = jnp.zeros(())
    return LossSums(zero, params * batch.source[0, 0].astype(jnp.float32), jnp.ones(()), zero)


def built_on(platform, step):
    """A step that is traced for a platform, and runs here."""

    def built(state, batch):
        with built_for(platform):
            return step(state, batch)

    return built


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_spike_is_skipped_and_resumes_bit_for_bit(platform):
    """Row 33 of the faults: parameters and moments stay, step, schedule and the memory of norms move on."""
    config = OptimizerConfig(
        name="sgd", momentum=0.5, schedule="linear", learning_rate=1.0, clip_norm=0.0, skip_spikes=4.0
    )
    optimizer = make_optimizer(config, 100)
    step = built_on(platform, make_step(line_loss, optimizer, skip_spikes=4.0))
    state = initial_state(jnp.zeros(()), optimizer, seed=0, ema=0.0, skip_spikes=4.0)
    norms = [9, *[2, 2, 3, 2] * (SPIKE_HISTORY // 4), 8, 9, 1000, 2]
    by_hand, direction, skipped = 0.0, 0.0, []
    for count, norm in enumerate(norms):
        batch = Batch(jnp.full((1, 1), norm, jnp.int32), jnp.full((1, 1), EOS, jnp.int32))
        state = jax.tree.map(jnp.array, jax.device_get(state))  # as it comes back from a checkpoint
        state, metrics = step(state, batch)
        if metrics.spike:
            skipped.append(norm)
            continue
        direction = norm + 0.5 * direction
        by_hand -= direction * (1 - count / 100)
    assert skipped == [9, 1000]  # the first 9 came before there was a history; 8 is not more than 4 times 2
    assert int(state.step) == len(norms)
    assert float(state.params) == pytest.approx(by_hand, rel=1e-5)
    assert np.sort(state.norms)[: len(norms)].tolist() == sorted(norms)
    state, metrics = step(state, batch._replace(source=jnp.zeros((1, 1), jnp.int32)))
    assert bool(metrics.finite)
    before = jax.device_get(state)
    state, metrics = step(state._replace(params=jnp.array(jnp.nan)), batch)
    assert not bool(metrics.finite)
    assert not bool(metrics.spike)
    np.testing.assert_array_equal(state.norms, before.norms)


def test_frozen_parameters_stay_and_the_others_have_rates_of_their_own():
    """Two steps by hand: clipping by the norm of what is trained, momentum, decay, multipliers, a plateau's factor."""
    config = OptimizerConfig(
        name="lion", learning_rate=0.1, clip_norm=1.0, weight_decay=0.5, ema=0.5, schedule="plateau",
        freeze=("encoder.*",), multipliers=("*=0.1", "decoder.*=0.5"),
    )  # fmt: skip
    before = {"encoder": {"0": jnp.array([3.0, -0.0])}, "decoder": {"bias": jnp.array([1.0])}, "out": jnp.array([2.0])}

    def loss(params, batch, step, key):
        zero = jnp.zeros(())
        total = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))  # the gradient is twice the parameter
        return LossSums(zero, total, jnp.ones(()), zero)

    optimizer = make_optimizer(config, 10)
    state = initial_state(jax.tree.map(jnp.copy, before), optimizer, seed=0, ema=0.5, plateau=True)
    assert {leaf.shape for leaf in jax.tree.leaves(state.opt)} == {(), (1,)}  # no moments of what is frozen
    step = make_step(loss, optimizer, ema=0.5, frozen=frozen_mask(config))
    trained, average, moment = np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.zeros(2)
    for factor in (1.0, 0.25):
        state = state._replace(rate_factor=jnp.float32(factor))
        state, metrics = step(state, Batch(jnp.ones((1, 1), jnp.int32), jnp.full((1, 1), EOS, jnp.int32)))
        gradient = 2 * trained
        assert float(metrics.norm) == pytest.approx(np.sqrt((gradient**2).sum()))
        gradient = gradient / max(1.0, np.sqrt((gradient**2).sum()))
        direction, moment = np.sign(0.9 * moment + 0.1 * gradient), 0.99 * moment + 0.01 * gradient
        trained = trained - factor * 0.1 * np.array([0.5, 0.1]) * (direction + 0.5 * trained)
        average = 0.5 * average + 0.5 * trained
    for tree, expected in ((state.params, trained), (state.ema, average)):
        found = np.concatenate([tree["decoder"]["bias"], tree["out"]])
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert tree["encoder"]["0"].tobytes() == before["encoder"]["0"].tobytes()
    assert step._cache_size() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("encodr.*",)}, r"optimizer.freeze: no parameter matches 'encodr.\*'; the nearest are encoder"),
        ({"freeze": ("*",)}, r"optimizer.freeze=\['\*'\] leaves no parameter to train"),
        ({"multipliers": ("xyz=2",)}, "optimizer.multipliers: no parameter matches 'xyz'; the nearest are "),
        ({"freeze": ("enc*",), "multipliers": ("*.0=2",)}, r"multipliers=\*.0=2 names frozen parameters alone"),
    ],
)
def test_patterns_that_name_nothing_are_refused(options, message):
    shapes = {"encoder": {"0": jnp.zeros(2)}, "out": jnp.zeros(1)}
    with pytest.raises(ValueError, match=message):
        check_patterns(OptimizerConfig(**options), shapes)


def test_norms_that_stay_high_are_a_new_level_and_no_spikes():
    norms = jnp.full(SPIKE_WINDOW, 1.0)
    count = 0
    while bool(is_spike(jnp.array(10.0), norms, 5.0)):
        norms, count = norms.at[count].set(10.0), count + 1
    assert count == SPIKE_WINDOW // 2 + 1


def test_the_rate_climbs_and_falls_as_it_says():
    at = functools.partial(map, float)
    cosine = learning_rate(OptimizerConfig(learning_rate=1.0, schedule="cosine", warmup_steps=10), 110)
    assert list(at(map(cosine, (0, 4, 9, 60, 110)))) == pytest.approx([0.1, 0.5, 1.0, 0.5, 0.0], abs=1e-6)
    root = learning_rate(OptimizerConfig(learning_rate=1.0, schedule="inverse-sqrt", warmup_steps=100), 1000)
    assert list(at(map(root, (100, 400)))) == pytest.approx([1.0, 0.5], rel=1e-6)
    line = learning_rate(OptimizerConfig(learning_rate=1.0, schedule="linear", final_fraction=0.2), 100)
    assert list(at(map(line, (0, 50, 100)))) == pytest.approx([1.0, 0.6, 0.2], rel=1e-6)
    halved = OptimizerConfig(learning_rate=1.0, schedule="step", warmup_steps=10, decay_every=20, final_fraction=0.2)
    by_hand = [0.1, 1.0, 1.0, 0.5, 0.25, 0.2]
    assert list(at(map(learning_rate(halved, 100), (0, 10, 29, 30, 50, 70)))) == pytest.approx(by_hand, rel=1e-6)
    plateau = OptimizerConfig(learning_rate=1.0, schedule="plateau", decay_factor=0.4, final_fraction=0.1)
    assert list(at(map(learning_rate(plateau, 100), (0, 99)))) == [1.0, 1.0]  # what is left is the state's factor
    assert [plateau_factor(plateau, decays) for decays in range(4)] == pytest.approx([1, 0.4, 0.16, 0.1])


def test_an_exponential_rate_ends_at_its_final_fraction():
    config = OptimizerConfig(learning_rate=1.0, schedule="exponential", final_fraction=0.01)
    assert [float(learning_rate(config, 100)(step)) for step in (0, 50, 100)] == pytest.approx([1.0, 0.1, 0.01])


def test_a_warm_up_that_never_reaches_its_peak_is_warned_of():
    config = OptimizerConfig(warmup_steps=4000)
    assert warmup_warning(config, 4000) is None
    assert warmup_warning(config, 1000) == (
        "optimizer.warmup_steps=4,000 is more than steps=1,000: the learning rate ends at 25.0% of its peak; give more "
        "--steps, or fewer --optimizer.warmup-steps."
    )


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "adadelta", "lion", "radam", "rmsprop", "sgd"])
def test_every_optimizer_goes_downhill(name):
    config = OptimizerConfig(name=name, learning_rate=0.05 if name != "adadelta" else 1.0, clip_norm=1.0)
    optimizer, x = make_optimizer(config, 100), jnp.array([3.0, -2.0])
    state = optimizer.init(x)
    for _ in range(20):
        updates, state = optimizer.update(2 * x, state, x)
        x = optax.apply_updates(x, updates)
    assert float((x**2).sum()) < 13.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # m = 0.3 g, v = 0.2 g^2 after the first step, both divided by 1 - beta
        ({"name": "adam", "beta1": 0.7, "beta2": 0.8, "epsilon": 0.1}, lambda g: g / (np.abs(g) + 0.1)),
        ({"name": "rmsprop", "beta2": 0.8, "epsilon": 0.1}, lambda g: g / np.sqrt(0.2 * g**2 + 0.1)),
        ({"name": "sgd", "momentum": 0.5}, lambda g: 1.5 * g),
        ({"name": "sgd"}, lambda g: g),
    ],
)
def test_moments_are_those_of_the_settings(options, expected):
    """The second step of sgd, the first one of the others, by hand."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, clip_norm=0.0, **options), 10)
    gradient = np.array([0.5, -2.0], np.float32)
    state, params = optimizer.init(jnp.zeros(2)), jnp.zeros(2)
    for _ in range(2 if options["name"] == "sgd" else 1):
        updates, state = optimizer.update(jnp.array(gradient), state, params)
    np.testing.assert_allclose(updates, -expected(gradient), rtol=1e-5)


def test_the_usual_moments_are_those_of_optax():
    usual = {
        "adam": optax.scale_by_adam, "adamw": optax.scale_by_adam, "adagrad": optax.scale_by_rss,
        "adadelta": optax.scale_by_adadelta, "lion": optax.scale_by_lion, "radam": optax.scale_by_radam,
        "rmsprop": optax.scale_by_rms, "sgd": optax.identity,
    }  # fmt: skip
    assert set(usual) == set(OPTIMIZERS)
    params, gradient = jnp.zeros(2), jnp.array([0.5, -2.0])
    with jax.numpy_dtype_promotion("standard"):
        for name, make in usual.items():
            ours, theirs = OptimizerConfig(name=name).direction(), make()
            found, wanted = (one.update(gradient, one.init(params), params)[0] for one in (ours, theirs))
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("undecayed", "still"),
    [
        ((), {"bias", "cell_gain", "embedding", "weight"}),
        (("biases", "norms"), {"embedding", "weight"}),
        (("embeddings",), {"bias", "cell_gain", "weight"}),
    ],
)
def test_only_some_parameters_decay(undecayed, still):
    params = {"cells": {"bias": 1.0, "cell_gain": 1.0, "weight": 1.0}, "embedding": 1.0}
    params = jax.tree.map(jnp.array, params)
    config = OptimizerConfig(name="adamw", learning_rate=1.0, weight_decay=0.1, undecayed=undecayed)
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    flat = {**updates["cells"], "embedding": updates["embedding"]}
    assert {name for name, value in flat.items() if value != 0} == still


def test_a_gradient_too_long_is_scaled_down():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", learning_rate=1.0, clip_norm=0.5), 10)
    updates, _ = optimizer.update(jnp.array([30.0, 40.0]), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adamm"}, "did you mean 'adam"),
        ({"learning_rate": -1.0}, r"optimizer.learning_rate must be zero or more, got -1.0"),
        ({"weight_decay": 0.1}, "optimizer.weight_decay needs optimizer.name=adamw or lion, got adam"),
        (
            {"momentum": 0.9},
            "optimizer.momentum=0.9 is not read by optimizer.name=adam, but by sgd; leave it out, or choose one",
        ),
        ({"name": "sgd", "beta2": 0.9}, "optimizer.beta2=0.9 is not read by optimizer.name=sgd, but by adam, adamw, a"),
        (
            {"skip_spikes": 0.5},
            "optimizer.skip_spikes must be 0 for none, or a multiple of the median above 1, got 0.5",
        ),
        ({"beta1": 1.0}, "optimizer.beta1 must be at least 0 and below 1, got 1.0"),
        ({"epsilon": -1.0}, "optimizer.epsilon must be zero or more, got -1.0"),
        (
            {"undecayed": ("biases",)},
            r"optimizer.undecayed=\['biases'\] needs weight decay; set optimizer.weight_decay",
        ),
        (
            {"name": "adamw", "weight_decay": 0.1, "undecayed": ("bias",)},
            "optimizer.undecayed must be one of .*; did you mean 'biases'?",
        ),
        ({"schedule": "exponential"}, "never reaches optimizer.final_fraction=0; use --optimizer.final-fraction 0.01"),
        ({"schedule": "step", "decay_factor": 1.0}, "optimizer.decay_factor must be above 0 and below 1, got 1.0"),
        (
            {"schedule": "plateau", "decay_every": 10},
            "decay_every=10 is not read by optimizer.schedule=plateau, but by step; leave it out, or choose step",
        ),
        ({"decay_factor": 0.3}, "not read by optimizer.schedule=constant, but by step and plateau; leave it out"),
        ({"multipliers": ("encoder.*",)}, r"must be PATTERN=FACTOR with a factor above 0, .* got 'encoder.\*'"),
        ({"multipliers": ("encoder.*=0",)}, "a factor of 0 is optimizer.freeze"),
        ({"ema": 1.0}, "optimizer.ema must be at least 0 and below 1, got 1.0"),
    ],
)
def test_optimizers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**options)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"device.count=64, but jax found 2 \(cpu\)"):
        devices.make_mesh(DeviceConfig(count=64))
    with pytest.raises(ValueError, match="device.platform=gpu, but jax found cpu; install jax for gpu."):
        devices.make_mesh(DeviceConfig(platform="gpu"))


def test_a_gpu_that_jax_does_not_use_is_told(monkeypatch):
    """Row 48 of the faults: falling back to the CPU is printed when training starts; device.platform refuses it."""
    monkeypatch.setattr(devices, "gpus", lambda: ["NVIDIA H100"])
    warning = "running on the CPU although there is a NVIDIA H100; install jax[cuda13]."
    assert devices.accelerator_left_idle() == warning
    printed = []
    preparation.print_devices(printed.append, devices.make_mesh(DeviceConfig(count=1)), "float32")
    assert printed == ["devices: 1 x cpu (cpu); precision: float32", f"warning: {warning}"]
    monkeypatch.setattr(devices, "gpus", list)
    assert devices.accelerator_left_idle() is None
