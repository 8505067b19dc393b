"""What a new run takes from another one and from files of word vectors, and that none of it is needed again."""

import dataclasses
import gzip
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.cli.command_line import parse
from s2s_jax.config import Experiment, override
from s2s_jax.run import preparation, warm_start
from s2s_jax.run.run_dir import read_facts, read_json
from s2s_jax.run.starting_digests import starting_digests
from s2s_jax.run.warm_start import shared_tokens, vocabulary_axes
from s2s_jax.sweep.fingerprint import trial_identity
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.embedding_file import embedding_files, read_vectors
from s2s_jax.text.features import FeatureTokenizers
from s2s_jax.text.symbol_tokenizers import Words
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.loop import TrainingLoop
from s2s_jax.training.parameter_groups import dotted_paths
from s2s_jax.training.warm_start import SharedTokens, Source, VocabularyAxis, WarmStartConfig, fit, grouped, source_of

QUIET = Console(quiet=True)
SMALL = ("steps=2", "data.train_size=64", "data.eval_size=5", "validation.sentences=0", "optimizer.warmup_steps=0")


@pytest.fixture
def source(trained_run, tmp_path) -> Path:
    """A copy of the tiny run, which may be taken away."""
    return Path(shutil.copytree(trained_run, tmp_path / "source run"))


class Killed(Exception):  # noqa: N818
    """Carries the parameters that the first step would have had."""


@pytest.fixture
def begin(monkeypatch):
    """Begin a run and kill it before its first step, which costs no compilation of the step; its parameters by path."""

    def kill(loop: TrainingLoop) -> None:
        raise Killed(by_path(loop.state.params))

    def begun(given: Experiment, directory: Path, seeds=()) -> dict[str, np.ndarray]:
        def train(given: Experiment, directory: Path):
            if not seeds:
                return run.fit(given, directory, QUIET)
            each = [dataclasses.replace(given, seed=seed) for seed in seeds]
            return run.train_replicas(each, [directory / str(seed) for seed in seeds], QUIET)

        with monkeypatch.context() as patch:
            patch.setattr(TrainingLoop, "run", kill)
            with pytest.raises(Killed) as killed:
                train(given, directory)
        return killed.value.args[0]

    return begun


def experiment(*changes: str):
    return tiny.experiment(*SMALL, *changes)


def by_path(params) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in dotted_paths(params).items()}


# ---- what fits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/a", Source("runs/a")),
        ("runs/a@best", Source("runs/a")),
        ("runs/a@latest", Source("runs/a", "latest")),
        ("runs/a@120", Source("runs/a", 120)),
        ("runs/a@average:3", Source("runs/a", average=3)),
        ("runs@2/a", Source("runs@2/a")),
        ("runs/a@2@best", Source("runs/a@2")),
    ],
)
def test_a_checkpoint_is_named_behind_an_at_sign(text, expected):
    assert source_of(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a@bst",
            "warm_start.run=a@bst: behind the @ stand a step, best, latest or average:N, got 'bst'; write a@bst@",
        ),
        ("a@average:0", "average:N needs a positive N, got 0"),
    ],
)
def test_a_checkpoint_that_cannot_be_meant_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        WarmStartConfig(run=text)


def test_parameters_are_matched_by_path_shape_and_token():
    """Token by token, in a loop, where the vocabularies differ."""
    rng = np.random.default_rng(0)
    shapes = {"same": (2, 3), "wider": (2, 4), "new": (5,), "embedding": (6, 2), "output": (3, 6), "narrow": (6, 9)}
    old = {
        "same": rng.normal(size=(2, 3)), "wider": rng.normal(size=(2, 3)), "embedding": rng.normal(size=(5, 2)),
        "output": rng.normal(size=(3, 5)), "narrow": rng.normal(size=(5, 8)), "left": np.zeros(1),
    }  # fmt: skip
    axes = {"embedding": VocabularyAxis(0, "source"), "output": VocabularyAxis(1, "source")}
    axes["narrow"] = VocabularyAxis(0, "source")
    pairs = [(0, 0), (1, 1), (4, 3), (5, 4)]  # id here, id there
    found = fit(shapes, old, axes, {"source": SharedTokens(*np.array(pairs).T)})
    before = {path: rng.normal(size=shape) for path, shape in shapes.items()}
    after = {path: found.taken[path].put_into(leaf) for path, leaf in before.items() if path in found.taken}
    expected = {"same": old["same"], "embedding": before["embedding"].copy(), "output": before["output"].copy()}
    for here, there in pairs:
        expected["embedding"][here] = old["embedding"][there]
        expected["output"][:, here] = old["output"][:, there]
    assert after.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(after[path], leaf)
    assert found.record() == {
        "taken": ["same"],
        "taken_by_token": {"embedding": {"known": 4, "of": 6}, "output": {"known": 4, "of": 6}},
        "other_shape": {"wider": {"here": (2, 4), "there": (2, 3)}, "narrow": {"here": (6, 9), "there": (5, 8)}},
        "not_there": ["new"],
        "not_used_here": ["left"],
    }
    assert found.lines() == [
        "  taken: same",
        "  taken by token: embedding (4 of 6 tokens), output (4 of 6 tokens)",
        "  left as initialized, of another shape: wider (2x4 here, 2x3 there), narrow (6x9 here, 5x8 there)",
        "  left as initialized, not there: new",
        "  there, and not used here: left",
    ]
    many = [f"encoder.{number}" for number in range(9)]
    assert grouped([*many, "embedding"]) == ["encoder.* (9)", "embedding"]


@pytest.mark.parametrize("copy", ["none", "pointer"])
def test_axes_that_grow_with_a_vocabulary_are_found(copy):
    words = [Words(["a", "b", "c"]), Words(["a", "x"])]
    config = tiny.experiment(f"model.decoder.copy={copy}").model
    _, axes = vocabulary_axes(config, PairTokenizer(*words, slots=2 * (copy != "none")))
    featured = PairTokenizer(*words, features=FeatureTokenizers((Words(["PL", "SG", "PST"]),), ";"))
    of_features = vocabulary_axes(tiny.experiment("model.features.encoder=linear").model, featured)[1]
    added = {place.side: path for path, place in of_features.items() if path not in axes}
    assert added.keys() == {"feature1"}
    assert axes == {
        "embedding": VocabularyAxis(0, "source"),
        "decoder.embedding": VocabularyAxis(0, "target"),
        "decoder.output": VocabularyAxis(0, "target"),
        "decoder.output_bias": VocabularyAxis(0, "target"),
    }
    shared = shared_tokens(Words(["x", "b", "</s>"]), Words(["b", "a", "x"]))  # `</s>` here is a word that was typed
    assert list(zip(*map(np.ndarray.tolist, shared), strict=True)) == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 6), (5, 4)]


# ---- runs


def test_a_run_starts_from_the_parameters_of_another_and_needs_it_no_more(source, begin, tmp_path):
    """The tokenizers come with them; resumed from its first checkpoint it learns, bit for bit, the same."""
    before = run.load(source)
    given = experiment(f"warm_start.run={source}@best", "tokenizer.source.type=char", "optimizer.ema=0.5", "seed=3")
    started = begin(given, tmp_path / "run")
    begun = run.load(tmp_path / "run")
    assert begun.step == 0
    assert digest(started) == digest(by_path(begun.params)) == digest(by_path(before.params))
    assert begun.experiment.tokenizer == before.experiment.tokenizer  # and not `char`
    record = read_json(tmp_path / "run" / "warm_start.json")
    assert sorted(record["taken"]) == sorted(started)
    assert record["digest"] == read_facts(tmp_path / "run")["warm_start"]
    whole = run.fit(given, tmp_path / "whole", QUIET)
    source.rename(tmp_path / "gone")
    assert digest(run.fit(given, tmp_path / "run", QUIET)) == digest(whole)
    with pytest.raises(ValueError, match=r"warm_start.run: '.*source run@best' before, '' now"):
        run.fit(experiment("optimizer.ema=0.5", "seed=3"), tmp_path / "run", QUIET)
    with pytest.raises(FileNotFoundError, match=r"^warm_start.run=.*source run@best: no run at"):
        run.fit(given, tmp_path / "other", QUIET)
    assert not (tmp_path / "other" / "config.json").exists()


def test_tokens_that_both_vocabularies_have_keep_their_rows(source, begin, tmp_path):
    """Own tokenizers of other data, on two devices that share the state; and for two seeds that share a program."""
    file = tmp_path / "pairs.tsv"
    file.write_text("a b ä\tb a é\n" * 9, encoding="utf-8")
    changes = (f"data.train={file}", f"data.validation={file}", "data.lengths=[0, 0]", "warm_start.tokenizers=false")
    given = experiment(f"warm_start.run={source}@latest", *changes, "device.count=2", "device.fsdp=2")
    rows, old = begin(given, tmp_path / "run"), run.load(source, step="latest")
    new, taken = run.load(tmp_path / "run"), by_path(old.params)
    assert new.tokenizers["source"].symbols(range(4, 7)) == ["a", "b", "ä"]
    fresh = begin(experiment(*changes[:3]), tmp_path / "fresh")
    for path, side in (("embedding", "source"), ("decoder.embedding", "target"), ("decoder.output", "target")):
        known = dict(zip(symbols(old, side), taken[path], strict=True))
        for symbol, row, random in zip(symbols(new, side), rows[path], fresh[path], strict=True):
            np.testing.assert_array_equal(row, random if symbol in "äé" else known[symbol])
    np.testing.assert_array_equal(rows["decoder.bridge.weight"], taken["decoder.bridge.weight"])
    record = read_json(tmp_path / "run" / "warm_start.json")
    assert record["taken_by_token"]["embedding"] == {"known": 6, "of": 7}
    both = begin(given, tmp_path / "seeds", seeds=(1, 2))
    embedding = both["embedding"].transpose(1, 0, 2)  # with the seeds behind the tokens
    for symbol, row, (first, second) in zip(symbols(new, "source"), rows["embedding"], embedding, strict=True):
        assert (first == second).all() == (symbol != "ä")
        assert symbol == "ä" or (first == row).all()
    folders = [tmp_path / "seeds" / seed for seed in "12"]
    assert len({read_facts(folder)["warm_start"] for folder in folders}) == 1
    shutil.rmtree(folders[1])
    shutil.rmtree(source / "checkpoints" / "120")
    begin(given, tmp_path / "seeds", seeds=(1, 2))  # the second anew, from what is the latest now
    digests = [read_facts(folder)["warm_start"] for folder in folders]
    assert digests == [read_json(folder / "warm_start.json")["digest"] for folder in folders]
    assert digests[0] != digests[1]


def symbols(loaded: run.Run, side: str) -> list[str]:
    tokenizer = loaded.tokenizers[side]
    return tokenizer.symbols(range(tokenizer.size))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("model.builder=x",), "model.builder must be one of"),
        (
            ("tokenizer.source.file=a.json",),
            "a.json and the tokenizers of warm_start.run=.* --warm-start.tokenizers fa",
        ),
        (('optimizer.freeze=["encodr*"]',), r"optimizer.freeze: no parameter matches 'encodr\*'; the nearest are enc"),
    ],
)
def test_what_cannot_be_combined_is_refused_before_anything_is_read(source, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run.fit(experiment(f"warm_start.run={source}", *changes), tmp_path / "run", QUIET)


def test_features_that_the_other_run_has_not_are_split_as_the_settings_say(trained_run):
    new = experiment("warm_start.run=RUN", "data.features=tags", "tokenizer.features.type=char")
    assert warm_start.with_tokenizers_of(new, run.load(trained_run)).tokenizer.features.type == "char"


def test_settings_that_come_with_the_tokenizers_are_checked(trained_run, tmp_path, monkeypatch):
    """A target that the other run writes from its end is none for loss.diagonal."""
    given = run.load(trained_run)
    reversing = override(given.experiment, "tokenizer.reverse_target=true")
    monkeypatch.setattr(preparation, "read_source", lambda *_: dataclasses.replace(given, experiment=reversing))
    with pytest.raises(ValueError, match=r"tokenizers of warm_start.run=RUN .* tokenizer.reverse_target=true reverses"):
        run.fit(experiment("warm_start.run=RUN", "loss.diagonal=1"), tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_schedule_starts_anew():
    """A run that was extended has followed schedules that say nothing of what is fine-tuned from it."""
    extended = experiment("optimizer.schedule=linear", "optimizer.extended=[[1, 1]]")
    assert override(extended, "warm_start.run=RUN").optimizer.extended == ()
    assert override(extended, "seed=1").optimizer.extended == ((1, 1),)


def test_a_warm_start_of_which_nothing_fits_is_refused(source, tmp_path, monkeypatch):
    renamed = dataclasses.replace(run.load(source), params={"other": np.zeros(3, np.float32)})
    monkeypatch.setattr(warm_start, "load", lambda *_, **__: renamed)
    message = (
        r"none of its 1 parameters fits one of the 15 here .* \(left as initialized, not there: decoder.\* "
        r"\(10\), .*; there, and not used here: other\). Train with its model settings: s2s train .* --from "
    )
    with pytest.raises(ValueError, match=message):
        run.fit(experiment(f"warm_start.run={source}"), tmp_path / "run", QUIET)


def test_flags_stand_for_the_settings(s2s, source, tmp_path, monkeypatch):
    fits = []
    monkeypatch.setattr(run, "fit", lambda given, *_, **__: fits.append(given) or jax.tree.map(np.array, STATE))
    words = ("train", "reverse", "--run", str(tmp_path / "run"), "--from", f"{source}@latest")
    assert s2s(*words, "--freeze", "encoder.*", "--freeze=embedding")[0] == 0
    (given,) = fits
    assert given.warm_start.run == f"{source}@latest"
    assert given.optimizer.freeze == ("encoder.*", "embedding")
    code, _, error = s2s(*words, "--warm-start.run", str(source))
    assert (code, error) == (2, "s2s: --from and --warm-start.run are the same setting; leave one of them out\n")


class STATE:
    """A state that only its step is asked for."""

    step = 1


def test_a_sweep_knows_the_parameters_and_vectors_that_its_trials_start_from(source, tmp_path):
    """By what they are, not by where they lie; and after the first plan also when they are gone."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("a 1 2\n")
    known: dict[str, str] = {}
    given = experiment(f"warm_start.run={source}", f"data.embeddings={vectors}")
    plain, first = trial_identity(experiment(), {}), trial_identity(given, known)
    assert {name for name in first if plain.get(name) != first[name]} == {
        "warm_start", "embeddings source", "embeddings target",
    }  # fmt: skip
    moved = shutil.copytree(source, tmp_path / "moved")
    assert trial_identity(experiment(f"warm_start.run={moved}", f"data.embeddings={vectors}"), {}) == first
    tagged = experiment(f"warm_start.run={moved}", "data.features=tags")
    before = starting_digests(tagged, {})
    (moved / "feature1.tokenizer.json").write_text("{}")
    assert before == {"warm_start": first["warm_start"]} != starting_digests(tagged, {})
    shutil.rmtree(source)
    vectors.unlink()
    assert trial_identity(given, known) == first
    for setting in (f"warm_start.run={source}", f"data.embeddings={vectors}"):
        with pytest.raises(FileNotFoundError, match=setting.split("=")[0]):
            trial_identity(experiment(setting), {})


# ---- word vectors


@pytest.mark.parametrize("form", ["word2vec", "glove", "gz"])
def test_vectors_are_read_for_the_tokens_that_are_wanted(tmp_path, form):
    lines = ["the 1 2 3", "ä -1e-3 0 .5 ", "of 7 8 9", "new york 4 5 6", "ä 0 0 0", "x 1 1 1"]
    text = "\n".join([*(["6 3"] if form == "word2vec" else []), *lines]) + "\n"
    path = tmp_path / ("vectors.txt" + ".gz" * (form == "gz"))
    path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    found = read_vectors(path, {"ä": 5, "new york": 4, "The": 6, "of": 9}, width=3)
    assert found.ids.tolist() == [4, 5, 9]
    np.testing.assert_allclose(found.rows, [[4, 5, 6], [-0.001, 0, 0.5], [7, 8, 9]], rtol=1e-6)
    assert found.again == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "3 5\na 1 2 3\n",
            r":1: vectors of 5 numbers, and model.embedding=3; set --model.embedding 5, or give vectors",
        ),
        ("a 1 2\n", r":1: vectors of 2 numbers, and model.embedding=3; set --model.embedding 2"),
        ("a 1 2 3\nb 1 2\n", r":2: a token and 3 numbers are wanted, got 2 numbers; is the file cut off\?"),
        ("b 1 2 3\na 1 x 3\n", r":2: could not convert string to float: b?'x'; 3 numbers behind the token are wanted"),
        ("a 1 nan 3\n", r":1: a number that is not finite; remove the line"),
    ],
)
def test_vectors_that_are_none_are_refused_with_their_line(tmp_path, text, message):
    (tmp_path / "vectors.txt").write_text(text)
    with pytest.raises(ValueError, match=r"vectors\.txt" + message):
        read_vectors(tmp_path / "vectors.txt", {"a": 4}, width=3)


def test_embeddings_start_from_the_vectors_of_a_file(begin, tmp_path):
    """Of the source alone; the file is not needed again."""
    file = tmp_path / "vectors.txt"
    rows = np.arange(32, dtype=np.float32).reshape(2, 16)
    file.write_text("".join(f"{token} {' '.join(map(str, row))}\n" for token, row in zip("bq", rows, strict=True)))
    expected = begin(experiment(), tmp_path / "plain")
    started = begin(experiment(f"data.embeddings={file},"), tmp_path / "a")
    tokenizer = run.load(tmp_path / "a").tokenizers["source"]
    expected["embedding"] = np.array(expected["embedding"])
    for token, row in zip("bq", rows, strict=True):
        expected["embedding"][tokenizer.encode(token)] = row
    for path, leaf in started.items():
        np.testing.assert_array_equal(leaf, expected[path])
    assert "embeddings" in read_facts(tmp_path / "a")
    file.unlink()
    assert digest(begin(experiment(f"data.embeddings={file},"), tmp_path / "a")) == digest(started)  # resumed
    file.write_text("zz " + "1 " * 16 + "\n")
    with pytest.raises(
        ValueError, match=r"has none of the 26 target tokens, such as '\w', '\w', '\w'; tokens are comp"
    ):
        run.fit(experiment(f"data.embeddings=,{file}"), tmp_path / "b", QUIET)
    shared = ("model.shared_embeddings=true", "tokenizer.shared=true", f"data.embeddings={file},x")
    with pytest.raises(ValueError, match=r"there is one embedding for both sides; give one file"):
        run.fit(experiment(*shared), tmp_path / "b", QUIET)
    assert embedding_files("a,b") == {"source": "a", "target": "b"}
    assert embedding_files("a") == {"source": "a", "target": "a"}
    with pytest.raises(ValueError, match="data.embeddings must be FILE or SOURCE_FILE,TARGET_FILE, got 'a,b,c'"):
        embedding_files("a,b,c")


def test_every_command_of_the_page_is_understood():
    """They are not run: the quickstart takes minutes."""
    page = Path(__file__).parent.parent / "docs" / "how-to" / "fine-tune.md"
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    commands = [parse(shlex.split(line)[1:]) for line in "".join(blocks).splitlines()]
    assert [each.command for each in commands] == ["train", "train", "evaluate", "evaluate", "train"]
    for each in commands:
        override(tiny.experiment(), *each.overrides)
    compile(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0], page, "exec")
