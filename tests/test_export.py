"""Exported runs: the same translations bit for bit, without flax, and every damaged file is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import oracles
import pytest
import tiny
from jax import export
from safetensors.numpy import load_file

from s2s_jax import run
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.export.exported import load_exported
from s2s_jax.export.exporter import export_run, named_parameters, serialized_search, source_lengths
from s2s_jax.export.manifest import write_manifest
from s2s_jax.imports import import_once
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.run.inputs import read_inputs
from s2s_jax.run.model import make_model
from s2s_jax.shapes import EOS, PAD
from s2s_jax.training.checkpoint.pytree_io import on_host

LINES = ["a b c", "", "z", " \u00a0", "d e f g h", "unheard of", "a b c d e f g h i j"]  # of two shapes
SHORT = LINES[:3]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run at its first step, since its parameters do not matter here."""
    settings = ("search.batch_size=2", "search.max_length=12", "data.train_size=200", "data.eval_size=10")
    experiment = tiny.experiment(*settings)
    directory = tmp_path_factory.mktemp("export")
    prepared = read_inputs(experiment, lambda line: None, resumed=None)
    model = make_model(experiment.model, prepared.tokenizers)
    return run.Run(
        directory=directory,
        experiment=experiment,
        model=model,
        params=model.init(jax.random.key(1)),
        step=0,
        pair=prepared.tokenizers,
        facts=prepared.facts,
        refused=[],
    )


@pytest.fixture(scope="session")
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "out ü"
    export_run(trained, path, beam=3)
    return path


@pytest.mark.parametrize(("beam", "lines"), [(1, LINES), (3, SHORT)])
def test_an_exported_run_translates_as_the_run_itself(trained, folder, beam, lines):
    exported = load_exported(folder).translate(lines, beam=beam)
    for one, other in zip(exported, trained.translate(lines, beam=beam), strict=True):
        assert one._replace(hypotheses=()) == other._replace(hypotheses=())
        for left, right in zip(one.hypotheses, other.hypotheses, strict=True):
            for name in ("alignment", "log_probs", "score"):
                np.testing.assert_allclose(
                    getattr(left, name), getattr(right, name), rtol=oracles.rounding(), atol=oracles.rounding()
                )
            assert (left.text, left.tokens, left.truncated) == (right.text, right.tokens, right.truncated)


# operations on several tokens at once, on all up to one, or that depend on the length, which is symbolic
@pytest.mark.parametrize(
    "choices",
    [
        {"normalizer": "sigmoid", "constraint": "milk"},
        pytest.param({"score": "location", "positions": 16}, marks=pytest.mark.wide),
        pytest.param({"score": "gaussian-mixture", "normalizer": "top-k", "top_k": 10}, marks=pytest.mark.wide),
        pytest.param({"normalizer": "sigmoid", "constraint": "mocha", "mocha_chunk": 3}, marks=pytest.mark.wide),
        pytest.param({"normalizer": "alpha-entmax", "history": "coverage-tanh"}, marks=pytest.mark.wide),
        pytest.param({"normalizer": "fusedmax", "constraint": "local-p"}, marks=pytest.mark.wide),
    ],
)
def test_attention_of_every_kind_is_one_program_for_all_shapes(choices):
    attention = AttentionConfig(**({"score": "dot"} | choices))
    config = ModelConfig(
        embedding=4,
        encoder=EncoderConfig(cell="rnn", size=2),
        attention=attention,
        decoder=DecoderConfig(cell="rnn", size=4),
    )
    model = build(config, source_vocabulary=8, target_vocabulary=8)
    params, search = model.init(jax.random.key(0)), SearchConfig(max_length=4, beam=2)
    parameters = {path.replace("/", "."): value for path, value in on_host(params).items()}
    program = serialized_search(model, search, parameters, **source_lengths(attention))
    exported = jax.jit(export.deserialize(bytearray(program)).call)
    for rows, tokens in ((3, 12), (2, 16)):
        source = np.full((rows, tokens), 5, np.int32)
        source[0, 5:], source[1] = [EOS, *[PAD] * (tokens - 6)], PAD
        own = compiled_search(model, search, 4)(params, source, np.zeros(rows, np.int32))
        for one, other in zip(exported(parameters, source), own, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_the_command_needs_no_flax(trained, folder, tmp_path):
    file = tmp_path / "lines"
    file.write_text("".join(line + "\n" for line in SHORT))
    code = f"""if True:
        import sys
        from s2s_jax.cli import main
        assert main(["translate", {str(folder)!r}, "--input", {str(file)!r}, "--beam", "1"]) == 0
        heavy = {{"flax", "optax", "orbax", "grain", "tensorflow_datasets"}}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    *translations, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert translations == [one.text for one in trained.translate(SHORT, beam=1)]


def test_parameters_have_names_and_are_those_of_the_run(trained, folder):
    stored = load_file(folder / "parameters.safetensors")
    own = named_parameters(trained)
    assert set(stored) == set(own)
    assert {"embedding", "decoder.attention.score.weight"} <= set(stored)
    for name, value in own.items():
        np.testing.assert_array_equal(stored[name], value)


def test_the_page_lists_the_parameters_of_dates():
    """Each name with the shape that its axes stand for."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `\[(.*)\]` \|", page, re.MULTILINE)
    config = vars(import_once(str(ROOT / "experiments" / "dates.py")))["experiment"]().model
    model = build(config, source_vocabulary=11, target_vocabulary=13)
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape), jax.eval_shape(model.init, jax.random.key(0)))
    size, memory = config.decoder.size, config.encoder.width
    widths = {
        "source words": 11,
        "target words": 13,
        "layers": 1,
        "states": 1,
        "directions": 2,
        "embedding": config.embedding,
        "size": size,
        "gates": 3 * size,
        "attention": config.attention.size,
        "memory": memory,
        "memory + size": memory + size,
    }
    listed = {name: tuple(widths[axis] for axis in axes.split(", ")) for name, axes in rows}
    assert config.encoder.size == size
    assert len(listed) == len(rows)
    assert listed == {path.replace("/", "."): value.shape for path, value in on_host(shapes).items()}


def test_every_damaged_file_is_named(folder):
    files = sorted(path for path in folder.iterdir())
    assert len(files) == 6
    for path in files:
        raw = path.read_bytes()
        try:
            for damaged in (raw[: len(raw) // 2], raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]):
                path.write_bytes(damaged)
                with pytest.raises(ValueError, match=f"{path.name} is damaged .*; restore it from a copy") as refused:
                    load_exported(folder)
                assert "\n" not in str(refused.value)
            path.unlink()
            if path.name != "export.json":
                with pytest.raises(ValueError, match=f"{path.name} is missing; restore it"):
                    load_exported(folder)
        finally:
            path.write_bytes(raw)
    load_exported(folder)


def test_another_format_is_refused(folder):
    path = folder / "export.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"format": 1}))
    try:
        with pytest.raises(ValueError, match="has format 1, this version reads 5: .*export the run again"):
            load_exported(folder)
    finally:
        path.write_text(text)


def test_what_was_not_exported_is_refused(trained, folder, tmp_path):
    with pytest.raises(ValueError, match=r"beam must be one that was exported \(1 and 3\), got 2"):
        load_exported(folder).translate(["a"], beam=2)
    with pytest.raises(ValueError, match="exists already; name a new directory"):
        export_run(trained, folder)
    with pytest.raises(TypeError, match="lines must be several"):
        load_exported(folder).translate("a b")
    export_run(trained, tmp_path / "bare", programs=False)
    assert {path.suffix for path in (tmp_path / "bare").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(ValueError, match="holds parameters alone, no programs"):
        load_exported(tmp_path / "bare")


def rewritten(folder, target, **changes) -> None:
    """A copy of an export with other entries in its manifest, sealed anew."""
    target.mkdir()
    for path in folder.iterdir():
        if path.name != "export.json":
            (target / path.name).write_bytes(path.read_bytes())
    entries = json.loads((folder / "export.json").read_text()) | changes
    write_manifest(target, {name: value for name, value in entries.items() if value is not None and name != "sha256"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": None}, "export.json has no entry 'slots': s2s_jax .* wrote it; use that version"),
        ({"platforms": ["tpu", "rocm"]}, "has programs for tpu, rocm, and jax runs on cpu here; set JAX_PLATFORMS"),
        ({"jax": "9.9.9"}, "cannot be read by jax .*; install jax 9.9.9, which wrote it, or export the run again"),
        ({"searches": "newer"}, "a setting that this version does not know, search.shiny: s2s_jax .* wrote it"),
    ],
)
def test_an_export_of_another_version_or_platform_is_refused_in_one_line(folder, tmp_path, changes, message):
    if "searches" in changes:
        searches = json.loads((folder / "export.json").read_text())["searches"]
        changes = {"searches": [{**search, "settings": search["settings"] | {"shiny": 1}} for search in searches]}
    target = tmp_path / "other"
    rewritten(folder, target, **changes)
    if "jax" in changes:
        (target / "greedy.program").write_bytes(b"x" * 100)
        rewritten(target, tmp_path / "sealed")
        target = tmp_path / "sealed"
    with pytest.raises(ValueError, match=message) as refused:
        load_exported(target).translate(["a"], beam=1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["../greedy.program", "/etc/hostname", "unlisted.program"])
def test_an_export_reads_no_file_but_its_own(folder, tmp_path, name):
    """Row 46 of the faults: a manifest is not trusted, whoever sealed it."""
    searches = json.loads((folder / "export.json").read_text())["searches"]
    rewritten(folder, tmp_path / "other", searches=[{**search, "program": name} for search in searches])
    with pytest.raises(ValueError, match="export.json names a file that is not its own") as refused:
        load_exported(tmp_path / "other")
    assert name in str(refused.value)


def test_an_export_tells_nothing_of_the_machine_that_trained(folder):
    manifest = (folder / "export.json").read_text()
    assert not {"device", "checkpoint", "record", "budget"} & set(json.loads(manifest)["config"])
    assert "cache" not in manifest


def test_a_run_with_rematerialized_scans_is_exported(trained, folder):
    """Its program is that of the run without: there is no backward pass to save memory for."""
    experiment = tiny.experiment("model.remat_every=3").model
    model = make_model(experiment, trained.pair)
    parameters = named_parameters(trained)
    (search, _) = json.loads((folder / "export.json").read_text())["searches"]
    program = serialized_search(model, SearchConfig(**search["settings"]), parameters)
    source = np.array([[5, 6, 7, EOS] + [PAD] * 8], np.int32)
    plain = jax.jit(export.deserialize(bytearray((folder / "greedy.program").read_bytes())).call)
    for one, other in zip(
        jax.jit(export.deserialize(bytearray(program)).call)(parameters, source),
        plain(parameters, source),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
