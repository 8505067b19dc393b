"""Several corpora: what an epoch has of each, the tags before their sources, and runs that use them."""

import collections
import json
import re

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_jax import config as configs
from s2s_jax.run.inputs import read_inputs
from s2s_jax.run.tokenizers import make_tokenizers, save_tokenizers
from s2s_jax.shapes import PAD
from s2s_jax.sweep.fingerprint import _data_fingerprint
from s2s_jax.text.batches import BatchConfig, BatchPlan, Pairs
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpora import mixture
from s2s_jax.text.corpus import Corpus
from s2s_jax.text.encoding import encode_corpus
from s2s_jax.text.example import Example
from s2s_jax.text.ragged import Ragged
from s2s_jax.text.sources import DataConfig, read_split
from s2s_jax.text.symbol_tokenizers import Characters, Words
from s2s_jax.text.tagged_tokenizer import TaggedTokenizer
from s2s_jax.text.tokenizers import TokenizerConfig, TokenizersConfig, append_eos, load_tokenizer, save_tokenizer

# --- the plan ---------------------------------------------------------------------------------------------------------


def pairs_of(lengths) -> Pairs:
    """Pairs of these lengths whose first token is their number, from 10."""
    side = [append_eos([10 + number, *[4] * (length - 1)]) for number, length in enumerate(lengths)]
    return Pairs(Ragged.of(side), Ragged.of(side))


def counts_of(plan: BatchPlan, epoch: int) -> np.ndarray:
    """How often each pair occurs in an epoch."""
    steps = range(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch)
    firsts = np.concatenate([plan.batch(step).source[:, 0] for step in steps])
    return np.bincount(firsts[firsts != PAD] - 10, minlength=len(plan.pairs.sources))


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([1.0, 2.0, 5.0]),
    weighted=st.booleans(),
    buckets=st.integers(1, 3),
)
@settings(deadline=None, max_examples=40)
def test_an_epoch_has_each_pair_about_as_often_as_the_share_of_its_corpus_says(
    sizes, seed, temperature, weighted, buckets
):
    """Oracle: the formulas, by hand."""
    rng = np.random.default_rng(seed)
    total, weights = sum(sizes), tuple(rng.uniform(0.1, 5, len(sizes))) if weighted else ()
    mixed = mixture(sizes, weights=weights, temperature=temperature)
    parts = weights or [size ** (1 / temperature) for size in sizes]
    copies = np.repeat([part / sum(parts) * total / size for part, size in zip(parts, sizes, strict=True)], sizes)
    plan = BatchPlan(
        pairs_of(rng.integers(1, 12, total)), BatchConfig(size=5, buckets=buckets), seed=seed, mixture=mixed
    )
    epochs = [counts_of(plan, epoch) for epoch in range(3)]
    for counts in epochs:
        assert (counts >= np.floor(copies * (1 - 1e-9))).all()
        assert (counts <= np.ceil(copies * (1 + 1e-9))).all()
        for counted, part in zip(np.split(counts, np.cumsum(sizes)), mixed.shares, strict=False):
            assert abs(counted.sum() - part * total) <= buckets  # each bucket has a whole number of pairs
    assert all((BatchPlan(plan.pairs, plan.config, seed=seed, mixture=mixed).batch(step).source
                == plan.batch(step).source).all() for step in (plan.per_epoch, 0))  # fmt: skip


def test_selections_of_a_large_corpus_go_through_all_of_it_before_they_repeat():
    plan = BatchPlan(pairs_of([3] * 50), BatchConfig(size=8), seed=1, mixture=mixture((40, 10), weights=(1, 4)))
    epochs = [counts_of(plan, epoch) for epoch in range(8)]
    assert all(counts[:40].sum() == 10 and (counts[40:] == 4).all() for counts in epochs)
    assert (sum(epochs[:4])[:40] == 1).all()
    assert (sum(epochs[4:])[:40] == 1).all()
    assert any((first != second).any() for first, second in zip(epochs[:4], epochs[4:], strict=True))


@pytest.mark.parametrize("sizes", [(60,), (25, 35)])
def test_corpora_mixed_by_size_are_batched_as_one_corpus(sizes):
    pairs, config = pairs_of(np.random.default_rng(0).integers(1, 12, 60)), BatchConfig(size=7, buckets=3)
    one = BatchPlan(pairs, config, seed=3)
    for weights in [(), tuple(map(float, sizes))]:
        mixed = BatchPlan(pairs, config, seed=3, mixture=mixture(sizes, weights=weights))
        assert mixed.per_epoch == one.per_epoch
        for step in range(2 * one.per_epoch):
            assert all(np.array_equal(*both) for both in zip(mixed.batch(step), one.batch(step), strict=True))


# --- tags -------------------------------------------------------------------------------------------------------------


def test_a_tag_is_one_token_at_the_start_of_a_line(tmp_path):
    save_tokenizer(TaggedTokenizer(Characters(list("abt< >")), ["<bt>", "<b>"]), tmp_path / "x.json")
    tokenizer = load_tokenizer(tmp_path / "x.json")
    assert isinstance(tokenizer, TaggedTokenizer)
    assert (tokenizer.type, tokenizer.size) == ("char", 12)
    assert tokenizer.encode("<bt> ab") == [10, 4, 5]
    assert tokenizer.encode("<b>") == [11]
    for line in ("ab", "<bt>a", "a <bt>", "<b ab", ""):
        assert tokenizer.encode(line) == tokenizer.inner.encode(line)
        assert tokenizer.spans(line) == tokenizer.inner.spans(line)
    assert tokenizer.tokenize("<bt> ab") == tokenizer.symbols([10, 4, 5]) == ["<bt>", "a", "b"]
    assert tokenizer.spans("<bt> ab") == [(0, 4), (5, 6), (6, 7)]
    assert tokenizer.decode([10, 4, 5]) == "<bt> ab"


def test_a_run_with_the_tokenizer_of_a_run_with_tags_has_its_own_tags_and_is_resumed(tmp_path):
    corpus, options = Corpus.of([Example("a b", "b")]), {"copy_slots": 0, "print_line": print}
    given = tmp_path / "given.json"
    save_tokenizer(TaggedTokenizer(Words(["a", "b"]), ["<bt>"]), given)
    config = TokenizersConfig(source=TokenizerConfig(file=str(given)), target=TokenizerConfig(type="char"))
    first = make_tokenizers(config, corpus, None, tags=("<x>",), **options)
    save_tokenizers(first, tmp_path)
    again = make_tokenizers(config, corpus, tmp_path, tags=("<x>",), **options)
    assert again.source.state() == first.source.state() == TaggedTokenizer(Words(["a", "b"]), ["<x>"]).state()


def test_processes_know_tags(monkeypatch):
    monkeypatch.setattr("s2s_jax.text.encoding.LARGE", 3)
    monkeypatch.setattr("s2s_jax.text.corpus.BLOCK", 2)
    tokenizers = PairTokenizer(TaggedTokenizer(Words(["a", "b"]), ["<bt>"]), Words(["c"]))
    corpus = Corpus.of([Example(source, "c") for source in ("a b", "<bt> b", "b <bt>", "<bt>")])
    one, two = ([*map(list, encode_corpus(corpus, tokenizers, workers=workers)[0])] for workers in (1, 2))
    assert [[*map(int, row)] for row in one] == [[4, 5, 2], [6, 5, 2], [5, 3, 2], [6, 2]]
    assert one == two


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpora(tmp_path):
    """A large file, a small one as JSON lines with alignments, and settings that train on both."""
    (tmp_path / "large.tsv").write_text("".join(f"a{n % 7} b\tc d\n" for n in range(30)) + "\tblank\n")
    rows = [{"source": f"x{n} y", "target": "z w", "alignment": "0-1"} for n in range(10)]
    (tmp_path / "small.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = json.dumps([str(tmp_path / "large.tsv"), str(tmp_path / "small.jsonl")])
    return (f"data.train={names}", f"data.validation={tmp_path / 'large.tsv'}", "data.weights=[1,1]", "steps=3")


def inputs_of(*changes: str):
    return read_inputs(tiny.experiment(*changes), lambda line: None, resumed=None)


def test_a_run_reads_all_corpora_and_reports_their_shares(corpora):
    printed: list[str] = []
    inputs = read_inputs(tiny.experiment(*corpora), printed.append, resumed=None)
    assert len(inputs.training.sources) == 40
    record = inputs.data.reports["train"].record()
    assert [(each["pairs"], each["share"], each["copies"]) for each in record["corpora"]] == [
        (30, 0.5, pytest.approx(2 / 3)), (10, 0.5, 2.0)
    ]  # fmt: skip
    assert (record["read"], record["kept"]) == (41, 40)
    assert any(re.search(r"10 pairs of .*small.jsonl, 50.0% of an epoch \(2 times each\)", line) for line in printed)
    one = inputs_of(*corpora[1:], corpora[0].replace("small.jsonl", "large.tsv"), "data.weights=[1,2]")
    assert inputs.facts["data"] != one.facts["data"]
    assert "corpora" not in inputs_of("data.train_size=50", "data.eval_size=9").data.reports["train"].record()


def test_where_a_corpus_ends_counts_for_runs_and_sweeps(corpora, tmp_path):
    before = inputs_of(*corpora).facts["data"], _data_fingerprint(tiny.experiment(*corpora).data, {})
    rows = (tmp_path / "large.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "large.tsv").write_text("".join(rows[:29]))
    (tmp_path / "rest.tsv").write_text("".join(rows[29:]))
    names = [str(tmp_path / name) for name in ("large.tsv", "rest.tsv", "small.jsonl")]
    three = [f"data.train={json.dumps(names)}", *corpora[1:], "data.weights=[1,1,1]"]
    for changes in (three, [*three[:-1], "data.weights=[]"]):
        after = inputs_of(*changes).facts["data"], _data_fingerprint(tiny.experiment(*changes).data, {})
        assert after[0] != before[0]
        assert after[1] != before[1]


@pytest.mark.parametrize("shared", [False, True])
def test_the_tag_of_a_corpus_is_the_first_token_of_its_sources(corpora, shared, tmp_path):
    changes = [*corpora, 'data.tags=["", "<bt>"]', f"tokenizer.shared={shared}", "loss.guided=0.1", "data.max_length=2"]
    inputs = inputs_of(*changes)
    plain = inputs_of(*corpora, f"tokenizer.shared={shared}", "loss.guided=0.1", "data.max_length=2")
    source = inputs.tokenizers.source
    tag = source.tag_id("<bt>")
    assert tag == plain.tokenizers.source.size == source.size - 1
    assert inputs.tokenizers.one_vocabulary == shared
    for number in range(40):
        row, untagged = inputs.training.sources[number].tolist(), plain.training.sources[number].tolist()
        assert row == ([tag] if number >= 30 else []) + untagged
        moved = plain.training.links[number] + [number >= 30, 0]
        assert inputs.training.links[number].tolist() == moved.tolist()
    assert inputs.training.links[35].tolist() == [[1, 1]]
    assert source.encode("<bt> x1 y") == inputs.training.sources[31].tolist()[:-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": (1.0,)}, "data.weights must have one entry per corpus of data.train (2), got (1.0,)"),
        ({"tags": ("<bt>",)}, "data.tags must have one entry per corpus of data.train (2), got ('<bt>',)"),
        ({"weights": (1.0, 0.0)}, "data.weights must be positive, got (1.0, 0.0)"),
        ({"temperature": 0}, "data.temperature must be positive, got 0"),
        ({"temperature": 5, "weights": (1, 2)}, "data.temperature=5.0 makes weights of sizes"),
        ({"tags": ("", "a b")}, "data.tags must be texts without spaces, got 'a b'"),
        ({"alignment": "x"}, "data.alignment=x belongs to one corpus, and data.train has 2"),
        ({"train": "[]"}, "data.train must be the name of a source or a JSON list of such names, got []"),
        ({"train": '["a", 3]'}, 'data.train must be the name of a source or a JSON list of such names, got ["a", 3]'),
    ],
)
def test_settings_that_do_not_fit_the_corpora_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DataConfig(**{"train": '["a.tsv", "b.tsv"]', **options})


def test_corpora_have_no_splits_and_each_must_have_pairs(corpora, tmp_path):
    config = configs.override(tiny.experiment(), *corpora).data
    assert DataConfig(train="[odd].tsv").corpora == ("[odd].tsv",)
    with pytest.raises(ValueError, match="data.validation is empty"):
        DataConfig(train='["task:copy", "task:reverse"]').spec("validation")
    (tmp_path / "large.tsv").write_text("\t\n")
    with pytest.raises(ValueError, match=r"data.train=.*large.tsv: 0 of 1 pairs left: 1 x blank"):
        read_split(config, "train")
    assert collections.Counter(example.target for example in read_split(
        DataConfig(train='["task:copy", "task:reverse"]', train_size=4, validation="task:copy"), "train")[0]
    ).total() == 8  # fmt: skip
