"""The benchmark's opponent does our work: the same losses, the same steps, the same searches."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_leaves_with_path

pytest.importorskip("torch")

from s2s_jax import shapes
from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS, Batch
from s2s_jax.training.objectives import LossConfig, make_loss
from s2s_jax.training.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.training.step import initial_state, make_step

FILE = Path(__file__).parent.parent / "experiments" / "bench" / "torch_reference.py"
SOURCE, TARGET, LENGTH, WIDTH, CLIP, RATE = 19, 21, 6, 5, 0.5, 1e-2
MODELS = {
    "lstm-general": ModelConfig(
        embedding=10,
        encoder=EncoderConfig(cell="lstm", size=5, layers=2),
        decoder=DecoderConfig(cell="lstm", size=10, layers=2, residual_from=1),
    ),
    "gru-additive": ModelConfig(
        embedding=8,
        encoder=EncoderConfig(cell="gru", size=6, layers=2, residual_from=2),
        attention=AttentionConfig(score="additive", size=7),
        decoder=DecoderConfig(cell="gru", size=9, layers=2, residual_from=2),
    ),
}


sys.path.insert(0, str(FILE.parent))
network, styles, reference = map(importlib.import_module, ("torch_network", "torch_styles", "torch_reference"))


def sentences(rng, lengths, *, width, vocabulary):
    rows = np.zeros((len(lengths), width), np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = [*rng.integers(EOS + 1, vocabulary, length - 1), EOS]
    return rows


def ragged():
    """One shape, which our side compiles once; short beside long sentences, and columns that nobody fills."""
    rng = np.random.default_rng(5)
    first = sentences(rng, [7, 1, 4], width=8, vocabulary=SOURCE), sentences(rng, [2, 5, 6], width=6, vocabulary=TARGET)
    other = sentences(rng, [3, 4, 2], width=8, vocabulary=SOURCE), sentences(rng, [4, 3, 1], width=6, vocabulary=TARGET)
    return [Batch(*first), Batch(*other)]


BATCHES = ragged()


@pytest.fixture(scope="module", params=MODELS)
def ours(request):
    """The model, and parameters in which every bias is something."""
    config = MODELS[request.param]
    model = build(config, source_vocabulary=SOURCE, target_vocabulary=TARGET)
    rng = np.random.default_rng(1)
    shapes_of = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.array(rng.normal(size=leaf.shape, scale=0.5), jnp.float32), shapes_of)
    return config, model, params


def endless(params):
    """The parameters with an EOS that is never said: for search alone, since no loss outweighs that bias."""
    bias = params["decoder"]["output_bias"].at[EOS].set(-1e9)
    return params | {"decoder": params["decoder"] | {"output_bias": bias}}


def flat(params):
    return {keystr(path, simple=True, separator="/"): leaf for path, leaf in tree_leaves_with_path(params)}


def write(folder, config, params, **changes):
    work = {"model": dataclasses.asdict(config), "source_vocabulary": SOURCE, "target_vocabulary": TARGET}
    work |= {"precision": "float32", "style": "fast", "compile": False, "device": "cpu", "learning_rate": RATE}
    work |= {"clip": CLIP, "max_length": LENGTH, **changes}
    (folder / "work.json").write_text(json.dumps(work))
    np.savez(folder / "params.npz", **flat(params))
    sides = {f"{side}_{i}": getattr(batch, side) for i, batch in enumerate(BATCHES) for side in ("source", "target")}
    np.savez(folder / "batches.npz", **sides)
    return folder


@pytest.fixture(params=reference.STYLES)
def worker(request, ours, tmp_path):
    return reference.Worker(write(tmp_path, ours[0], ours[2], style=request.param))


@pytest.fixture(scope="module")
def our_losses(ours):
    """The losses before each of four steps."""
    _, model, params = ours
    optimizer = make_optimizer(OptimizerConfig(learning_rate=RATE, clip_norm=CLIP), 10)
    step = make_step(make_loss(model, LossConfig(), ScheduledSamplingConfig()), optimizer)
    state, losses = initial_state(jax.tree.map(jnp.copy, params), optimizer, seed=0, ema=0.0), []
    for batch in BATCHES * 2:
        state, metrics = step(state, jax.tree.map(jnp.array, batch))
        losses.append(float(metrics.sums.nats / metrics.sums.tokens))
        assert metrics.norm > CLIP  # or clipping would not be tested
    return losses


@pytest.fixture(scope="module")
def our_searches(ours):
    _, model, params = ours
    source = jnp.array(BATCHES[0].source)

    def search(params):
        found = (
            greedy(model, params, source, max_length=LENGTH),
            beam(model, params, source, width=WIDTH, max_length=LENGTH),
        )
        return [one.tokens[:, 0] for one in found]

    return dict(zip(("greedy", "beam"), (tokens.tolist() for tokens in jax.jit(search)(endless(params))), strict=True))


def test_losses_and_steps_are_ours(our_losses, worker):
    assert worker.answer({"do": "loss", "batches": [0]})["losses"] == pytest.approx(our_losses[:1], rel=1e-4)
    assert worker.answer({"do": "train", "batches": [0, 1, 0]})["losses"] == pytest.approx(our_losses[:3], rel=1e-4)
    assert worker.answer({"do": "loss", "batches": [1]})["losses"] == pytest.approx(our_losses[3:], rel=1e-4)


@pytest.mark.parametrize("style", reference.STYLES)
def test_searches_are_ours(ours, our_searches, style, tmp_path):
    worker = reference.Worker(write(tmp_path, ours[0], endless(ours[2]), style=style))
    assert worker.answer({"do": "greedy", "batches": [0, 1]})["tokens"] == our_searches["greedy"]
    assert worker.answer({"do": "beam", "width": WIDTH, "batches": [0]})["tokens"] == our_searches["beam"]


@pytest.mark.parametrize("style", reference.STYLES)
def test_bfloat16_is_near(ours, our_losses, style, tmp_path):
    worker = reference.Worker(write(tmp_path, ours[0], ours[2], style=style, precision="bfloat16"))
    losses = worker.answer({"do": "train", "batches": [0, 1]})["losses"]
    assert losses == pytest.approx(our_losses[:2], rel=2e-2)
    assert losses != pytest.approx(our_losses[:2], rel=1e-5)  # or nothing was rounded
    assert np.shape(worker.answer({"do": "beam", "width": 2, "batches": [1]})["tokens"]) == (3, LENGTH)


def test_a_row_of_padding_changes_nothing(ours, worker, our_losses):
    filled = (np.pad(side, ((0, 1), (0, 0))) for side in BATCHES[0][:2])
    worker.batches[0] = worker.model.inputs(*filled)
    assert worker.answer({"do": "train", "batches": [0, 1]})["losses"] == pytest.approx(our_losses[:2], rel=1e-4)


def test_top_k_in_two_levels_is_that_of_torch():
    scores = styles.torch.from_numpy(np.random.default_rng(0).permutation(3 * 96).reshape(3, 96))
    best, places = styles.Fast.top_k(None, scores, 5)
    expected = scores.topk(5)
    assert best.tolist() == expected.values.tolist()
    assert places.tolist() == expected.indices.tolist()


@pytest.mark.parametrize("ours", ["gru-additive"], indirect=True)
def test_the_process_keeps_its_protocol(ours, our_losses, tmp_path):
    config, _, params = ours
    orders = [{"do": "greedy", "batches": [0, 1]}, {"do": "train", "batches": [0, 1]}]
    lines = "".join(json.dumps(order) + "\n" for order in orders)
    command = [sys.executable, str(FILE), str(write(tmp_path, config, params))]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    ready, said, trained = map(json.loads, done.stdout.splitlines())
    assert ready["ready"] is True
    assert set(ready) == {"ready", "torch", "threads", "device"}
    assert trained["losses"] == pytest.approx(our_losses[:2], rel=1e-4)
    assert trained["seconds"] > 0
    assert np.shape(said["tokens"]) == (3, LENGTH)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"model": {"decoder": {"architecture": "bahdanau"}}},
            "torch_reference implements only model.decoder.architecture=luong, got bahdanau",
        ),
        ({"model": {"encoder": {"cell": "rnn"}}}, "implements only model.encoder.cell=lstm or gru, got rnn"),
        ({"device": "tpu"}, "torch_reference implements only device=cpu or cuda, got tpu"),
        ({"style": "tutorial", "compile": True}, "compile=true needs style=fast"),
    ],
)
def test_what_it_cannot_do_is_refused(changes, error, tmp_path):
    write(tmp_path, MODELS["lstm-general"], {})
    work = json.loads((tmp_path / "work.json").read_text())
    for part, settings in changes.pop("model", {}).items():
        work["model"][part] |= settings
    (tmp_path / "work.json").write_text(json.dumps(work | changes))
    with pytest.raises(SystemExit, match=error):
        reference.main(tmp_path)


def test_unknown_parameters_and_requests_are_refused(ours, worker):
    with_extra = {**flat(ours[2]), "decoder/extra": np.zeros(1)}
    with pytest.raises(ValueError, match="params.npz has parameters unknown to torch_reference: decoder/extra"):
        worker.model.read(with_extra)
    with pytest.raises(ValueError, match="must be one of train, loss, greedy, beam, got sing"):
        worker.answer({"do": "sing", "batches": [0]})


def test_special_tokens_are_ours():
    assert (network.PAD, network.BOS) == (shapes.PAD, shapes.BOS)
