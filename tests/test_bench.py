"""The benchmark: operations counted by hand, batches, measurements, and the command as a user runs it."""

import argparse
import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from json_page import check_keys

from s2s_jax.bench import measure, torch_baseline, workloads
from s2s_jax.bench.flops import product_flops
from s2s_jax.bench.measure import BenchConfig
from s2s_jax.bench.profile import PartTime, StepProfile, profile_step
from s2s_jax.bench.roofline import Roofline
from s2s_jax.bench.runner import Runner
from s2s_jax.cli import main
from s2s_jax.cli.arguments import Arguments
from s2s_jax.cli.bench import _write_profile
from s2s_jax.config import override, settings
from s2s_jax.shapes import EOS, real

TINY = dataclasses.replace(
    workloads.WORKLOADS["W1"],
    model=dataclasses.replace(
        workloads.WORKLOADS["W1"].model,
        embedding=4,
        encoder=dataclasses.replace(workloads.WORKLOADS["W1"].model.encoder, size=4),
        decoder=dataclasses.replace(workloads.WORKLOADS["W1"].model.decoder, size=8),
    ),
    source_vocabulary=20,
    target_vocabulary=30,
    batch_size=8,
    max_length=4,
)


def test_operations_are_counted_in_nested_programs_and_as_often_as_a_scan_runs():
    def function(x, w):
        inner = jax.jit(lambda x: jnp.einsum("bi,io->bo", x, w))
        x, _ = jax.lax.scan(lambda x, _: (inner(x), None), x, None, length=5)
        return jnp.tanh(x) @ w

    assert product_flops(function, jnp.ones((3, 4)), jnp.ones((4, 4))) == 2 * 3 * 4 * 4 * 6


def test_the_operations_of_w1_are_those_of_its_formulas():
    """14 source and 13 target tokens; encoder, keys, decoder, readout, attention, vocabulary; the bridge once."""
    encoder = 14 * 2 * (256 + 256) * 1024
    keys = 14 * 512 * 512
    decoder = 13 * ((256 + 512 + 512) * 2048 + 1024 * 512 + 2 * 14 * 512 + 512 * 7859)
    bridge = 512 * 1024
    forward = 2 * (encoder + keys + decoder)
    found = workloads.training_flops(workloads.WORKLOADS["W1"]) * 13 / 3
    assert found == pytest.approx(forward + 2 * bridge, rel=1e-3)


@pytest.mark.parametrize("name", sorted(workloads.WORKLOADS))
def test_every_workload_can_be_built_and_counted(name):
    workload = workloads.WORKLOADS[name]
    one, two, three = (workloads.decoding_flops(workload, width) for width in (1, 2, 3))
    assert 0 < two - one == three - two < one  # each hypothesis adds its steps; the source is encoded once
    lengths = workloads.sample_lengths(workload.lengths, 20_000)
    np.testing.assert_allclose(lengths[:, 0].mean(), workload.lengths.mean + 1, rtol=0.02)
    np.testing.assert_allclose(lengths[:, 1].mean(), workload.lengths.mean * workload.lengths.ratio + 1, rtol=0.02)


def test_batches_hold_words_and_are_padded_to_few_shapes():
    batches = workloads.training_batches(TINY, 6)
    assert len({batch.target.shape for batch in batches}) <= workloads.TRAINING_SHAPES
    for batch in batches:
        for ids, vocabulary in zip((batch.source, batch.target), (20, 30), strict=True):
            assert len(ids) == TINY.batch_size
            lengths = np.asarray(real(jnp.asarray(ids)).sum(1))
            assert (ids[np.arange(len(ids)), lengths - 1] == EOS).all()
            words = ids[(ids != 0) & (ids != EOS)]
            assert words.min() >= workloads.FIRST_WORD
            assert words.max() < vocabulary
    steps = sorted(batch.target.shape[1] for batch in workloads.training_batches(TINY, 64))
    assert workloads.median_batch(TINY).target.shape[1] == steps[len(steps) // 2]


FAKE_TORCH = """
import json, sys
print(json.dumps({"torch": "0.0"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": 1e9 if json.loads(line)["do"] == "beam" else 1e-9}), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A PyTorch side that is impossibly slow at beam search, and impossibly fast at everything else."""
    (tmp_path / "torch_reference.py").write_text(FAKE_TORCH)
    monkeypatch.setattr(torch_baseline, "PROGRAM", tmp_path / "torch_reference.py")
    monkeypatch.setitem(workloads.WORKLOADS, "W1", TINY)
    return tmp_path


@pytest.mark.wide
def test_a_ratio_above_one_means_that_we_are_faster(fake):
    config = BenchConfig(against="torch", precisions=("float32",), batches=(2,), rounds=3, python=sys.executable)
    rows = list(measure.measure_workload("W1", TINY, config, Roofline({"float32": 1.0}, 1.0)))
    assert [(row["phase"], row["batch"]) for row in rows] == [("train", 8), ("greedy", 2), ("beam5", 2)]
    train, greedy, beam = rows
    assert beam["ratio_min"] > 1e6
    assert greedy["ratio_max"] < 1e-3
    for row in rows:
        assert row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"]
        assert len(row["ratios"]) == 3
        assert row["fraction_of_limit"] > 0
        assert row["peak_megabytes"] > 0
    assert train["tokens_per_s"] > 0
    assert beam["sentences_per_s"] > 0


def test_the_command_prints_one_object(fake, monkeypatch, capsys):
    monkeypatch.setattr("s2s_jax.cli.bench.measure_roofline", lambda: Roofline({"float32": 1.0, "bfloat16": 2.0}, 3.0))
    monkeypatch.setattr("s2s_jax.cli.bench.keep_freed_memory", lambda: None)  # it would change this very process
    assert main(["bench", "w1x"]) == 2
    assert "no workload 'w1x'; did you mean 'W1'?" in capsys.readouterr().err
    assert main(["bench", "W1", "--phases", "greedyy"]) == 2
    assert "did you mean 'greedy'" in capsys.readouterr().err
    assert main(["bench", "W1", "--lengths.men", "3"]) == 2
    assert "no setting --lengths.men; did you mean --lengths.mean?" in capsys.readouterr().err
    assert main(["bench", "W1", "--compare", "loss.vocabulary_chunk"]) == 2
    assert "--compare must be SETTING=VALUE,VALUE" in capsys.readouterr().err
    assert main(["bench", "W1", "--profile", "page.md", "--precisions", "bfloat16"]) == 2
    assert "give --model.precision bfloat16 in place of --precisions bfloat16" in capsys.readouterr().err
    words = "bench W1 --phases greedy --batches 1 --precisions float32 --rounds 1 --json"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["limit"] == {"float32_gflops": 1.0, "bfloat16_gflops": 2.0, "copy_gb_s": 3.0}
    assert found["machine"]["jax"] == jax.__version__
    check_keys("bench", found)
    (row,) = found["rows"]
    assert {"work", "phase", "precision", "batch", "sentences_per_s", "fraction_of_limit"} <= set(row)
    assert "reference" not in row


@pytest.mark.wide
def test_the_cost_of_a_setting_is_relative_to_its_first_value(fake):
    large_vocabulary = dataclasses.replace(TINY, target_vocabulary=3000)
    variants = {chunk: override(large_vocabulary, f"loss.vocabulary_chunk={chunk}") for chunk in ("0", "1")}
    unchunked, chunked = measure.compare_setting("W1", "loss.vocabulary_chunk", variants, BenchConfig(rounds=2))
    assert unchunked["cost_min"] == unchunked["cost_max"] == 1
    assert chunked["cost_median"] > 1  # one token per chunk
    assert chunked["peak_megabytes"] < unchunked["peak_megabytes"]
    assert (chunked["setting"], chunked["value"]) == ("loss.vocabulary_chunk", "1")


@pytest.mark.wide
def test_each_replica_is_initialized_from_its_own_seed(fake):
    runner = Runner(TINY, "train", [workloads.median_batch(TINY)], replicas=2)
    runner.seconds()
    first, second = runner.state.params["decoder"]["readout"]["weight"]
    assert jnp.abs(first - second).max() > 0.1
    row = measure.compare_replicas("W1", TINY, 2, BenchConfig(rounds=2))
    assert row["replicas"] == 2
    assert 0 < row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"]


def test_the_torch_side_reads_parameters_and_settings_that_exist():
    """Also where torch is not installed: renamed parameters and settings would break the comparison."""
    folder = torch_baseline.PROGRAM.parent
    read = re.findall(r'f"{(?:name|score)}/?(\w+)"|"decoder/(?:\w+/)?(\w+)"', (folder / "torch_network.py").read_text())
    shapes = [
        jax.eval_shape(lambda w=workload: workloads.build_workload(w)[1]) for workload in workloads.WORKLOADS.values()
    ]
    leaves = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    assert {first or second for first, second in read} <= leaves
    assert len(read) >= 8
    named = re.findall(r'"(model\.[\w.]+)"', (folder / "torch_reference.py").read_text())
    assert set(named) <= {setting.name for setting in settings(workloads.WORKLOADS["W1"])}
    assert len(named) >= 12


def test_the_last_line_of_a_failed_torch_process_is_shown(fake):
    (fake / "torch_reference.py").write_text("raise SystemExit('no torch here')")
    with pytest.raises(ValueError, match="--against torch: no torch here"):
        torch_baseline.TorchBaseline(TINY, "train", [workloads.median_batch(TINY)], style="fast")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_page_of_a_profile_names_its_command_and_precision(monkeypatch, tmp_path, precision):
    monkeypatch.setattr("s2s_jax.cli.bench.profile_step", lambda *_: StepProfile(2.0, [PartTime("loss", "rest", 1.0)]))
    overrides = [] if precision == "float32" else [f"model.precision={precision}"]
    page = tmp_path / "page.md"
    _write_profile({"W1": override(TINY, *overrides)}, page, Arguments("bench", argparse.Namespace(), overrides))
    text = page.read_text()
    flags = "".join(f"--model.precision {precision} " for _ in overrides)
    assert f"Made by `s2s bench W1 {flags}--profile {page}` on " in text
    assert f"\nIn {precision}, a batch of median length." in text
    assert "| loss | rest | 1.0 | 100.0% |" in text


def test_a_profile_names_the_parts_of_the_model(tmp_path):
    milliseconds, spent = profile_step(TINY, tmp_path)
    parts = {part.part for part in spent}
    assert {"vocabulary, forward", "vocabulary, backward", "decoder, backward", "optimizer"} <= parts
    assert milliseconds > 0
    assert [part.milliseconds for part in spent] == sorted((part.milliseconds for part in spent), reverse=True)
