"""Features of a source, from the columns of a file to the numbers of a model."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.feature_attention import FEATURE_ATTENTIONS
from s2s_jax.model.feature_encoders import FeatureEncoders, FeatureRows, FeaturesConfig
from s2s_jax.model.seq2seq import build
from s2s_jax.run.batches import encode
from s2s_jax.run.check import check_experiment
from s2s_jax.run.tokenizers import make_tokenizers
from s2s_jax.shapes import BOS, EOS, Sources, real
from s2s_jax.sweep.fingerprint import _data_fingerprint
from s2s_jax.text.batches import BatchConfig, BatchPlan
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpus import Corpus
from s2s_jax.text.encoding_processes import EncodingProcesses
from s2s_jax.text.example import Example
from s2s_jax.text.features import FeatureTokenizers
from s2s_jax.text.inflection import Noun, append_suffix, inflect
from s2s_jax.text.pairs import stream_pairs
from s2s_jax.text.sources import DataConfig, read_split
from s2s_jax.text.symbol_tokenizers import Characters, Words
from s2s_jax.text.synthetic_tasks import make_examples, split_of
from s2s_jax.text.tokenizers import FeatureTokenizerConfig, TokenizerConfig, TokenizersConfig, save_tokenizer

FIRST = Example("kitap", "kitaba", features=("N;SG;DAT",))

# Reading.


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("kitap\tkitaba\tN;SG;DAT", {"features": ("3",)}),  # SIGMORPHON 2017-2022, and yoyodyne
        ("kitap\tN;SG;DAT\tkitaba", {"target": "3", "features": ("2",)}),  # SIGMORPHON 2016 and 2023
        ('{"tags": "N;SG;DAT", "source": "kitap", "target": "kitaba"}', {"features": ("tags",)}),
    ],
)
def test_columns_are_read_in_any_order(tmp_path, line, settings):
    path = tmp_path / ("a.jsonl" if line.startswith("{") else "a.tsv")
    path.write_text(f"{line}\n", encoding="utf-8")
    config = DataConfig(train=str(path), **settings)
    assert read_split(config, "train")[0] == [FIRST]
    assert list(stream_pairs(str(path), stdin=(), **settings)) == [FIRST]


def test_features_of_parallel_files_are_further_files(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for path, text in zip(files, ("kitap", "kitaba", "N;SG;DAT"), strict=True):
        path.write_text(f"{text}\n{text}\n", encoding="utf-8")
    spec = ",".join(map(str, files))
    config = DataConfig(train=spec, features=("tags",))
    assert read_split(config, "train")[0] == [FIRST, FIRST] == list(stream_pairs(spec, stdin=(), features=("tags",)))
    with pytest.raises(
        ValueError, match=re.escape("names 3 parallel files, 2 are wanted (source, target, and one per")
    ):
        read_split(DataConfig(train=spec), "train")
    files[2].write_text("one line\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{files[0]} has 2 lines, {files[2]} has 1"):
        read_split(config, "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ("3",)}, "a.tsv:2: 2 tab-separated columns, and column 3 is wanted (source is column 1, target "
         "column 2, features 3); set data.source, data.target and data.features to columns that every line has."),
        ({"features": ("2",)}, "source, target and features are columns 1, 2, 2 of "),
        ({"features": ("tags",)}, "data.features names a column of a TSV file by number (1 is the first), got 'tags'"),
        ({"train": "task:copy", "train_size": 1, "features": ("t",)}, "task:copy:1: 0 features, data.features=t names"),
        ({"features": ("3", "3")}, "data.features must be different names, got 3 more than once"),
    ],
)  # fmt: skip
def test_what_is_missing_is_refused(tmp_path, settings, message):
    path = tmp_path / "a.tsv"
    path.write_text("kitap\tkitaba\tN;SG;DAT\nev\teve\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_split(DataConfig(**{"train": str(path), **settings}), "train")


def test_blank_features_are_reported_and_kept(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("kitap\tkitap\t\nev\teve\tN;\x07\n", encoding="utf-8")
    examples, report = read_split(DataConfig(train=str(path), features=("3",)), "train")
    assert [example.source for example in examples] == ["kitap"]
    assert report.counts == {"blank feature 3, pair kept": 1, "control characters, pair dropped": 1}
    assert report.places["blank feature 3, pair kept"] == [f"{path}:1"]


def test_a_list_of_names_is_written_with_commas():
    override = configs.override(Experiment(), "data.features=3,tags")
    assert override.data.features == ("3", "tags")
    assert configs.override(override, 'data.features=["4"]').data.features == ("4",)
    assert configs.override(override, "data.features=[]").data.features == ()


# Tokenizing and batching.

TAGS = Words(["SG", "DAT", "N"])


@pytest.fixture
def pair():
    own = FeatureTokenizers((TAGS, Characters("ab")), ";")
    return PairTokenizer(Characters("abc"), Characters("ab"), features=own)


def examples_of(count):
    return [
        Example("abc"[: 1 + row % 3], "ab", features=("N;SG" * (row % 3), "ab" * (row % 4))) for row in range(count)
    ]


def test_features_are_split_at_the_separator_and_end_with_eos(pair):
    pairs = encode([Example("a", "b", features=("SG;N  what", "")), Example("a", "b", features=("DAT", "b;a"))], pair)
    assert [row.tolist() for row in pairs.features[0]] == [[4, 6, 3, EOS], [5, EOS]]
    assert [row.tolist() for row in pairs.features[1]] == [[EOS], [5, 3, 4, EOS]]  # a character that is not known
    with pytest.raises(
        ValueError, match=re.escape("2 features are wanted beside each source line (data.features), got 1: 'N'.")
    ):
        pair.features.encode(["N"])


def test_the_separator_is_for_words_also_where_their_tokenizer_is_given(tmp_path):
    corpus, (words, codes) = (
        Corpus.of([Example("a", "b", features=("b;c",))]),
        (tmp_path / "w.json", tmp_path / "codes"),
    )
    save_tokenizer(Words(["b", "c"]), words)
    codes.write_text("#version: 0.2\nb ;\n")
    for file, tokens in ((words, ["b", "c"]), (codes, ["b;@@", "c"])):
        config = TokenizersConfig(
            **{side: TokenizerConfig(type="char") for side in ("source", "target")},
            features=FeatureTokenizerConfig(file=str(file)),
        )
        features = make_tokenizers(config, corpus, None, copy_slots=0, print_line=print).features
        assert features.tokenizers[0].symbols(features.encode(["b;c"])[0]) == tokens


def test_other_processes_give_the_same_ids(pair):
    corpus, (packed,) = Corpus.of(examples_of(50)), Corpus.of(examples_of(50)).packed()
    with EncodingProcesses(pair, 1) as processes:
        (there,) = processes.encode([packed])
    for rows, here in zip(there, encode(corpus, pair)[:2] + encode(corpus, pair).features, strict=True):
        np.testing.assert_array_equal(rows.flat, here.flat)
    assert list(corpus) == examples_of(50)


def test_each_bucket_has_one_width_per_feature_and_rows_stay_together(pair):
    examples = examples_of(40)
    plan = BatchPlan(encode(examples, pair), BatchConfig(size=4, buckets=2), seed=3)
    batches = [plan.batch(step) for step in range(plan.per_epoch)]
    assert len({(*batch.source.shape, *(each.shape for each in batch.features)) for batch in batches}) == 2
    expected = sorted(
        str([row.tolist() for row in rows])
        for rows in zip(*encode(examples, pair)[:2], *encode(examples, pair).features, strict=True)
    )
    found = []
    for batch in batches:
        for rows in zip(batch.source, batch.target, *batch.features, strict=True):
            if rows[0].any():
                found.append(str([row[real(row)].tolist() for row in rows]))
    assert sorted(found) == expected


def test_the_largest_batch_is_that_of_the_most_positions_features_included(pair):
    """Of two buckets of 4 rows, that of short pairs with long features: it needs the most memory."""
    short, long = Example("a", "b", features=("N", "ab" * 20)), Example("abcabc", "ab", features=("N", "a"))
    plan = BatchPlan(encode([short, long] * 4, pair), BatchConfig(size=4, buckets=2), seed=3)
    largest = plan.largest()
    assert [side.shape for side in (largest.source, *largest.features)] == [(4, 2), (4, 2), (4, 41)]


# The language of the task.

# Turkish, whose regular nouns the task imitates
FORMS = """
kitap PL ABL PSS1S kitaplarımdan | ev SG LOC PSS3S evinde | göz SG ACC - gözü | ağaç SG DAT - ağaca
araba SG ACC PSS3S arabasını | kitap SG LOC - kitapta | kuş SG ABL - kuştan | okul PL LOC - okullarda
köpek SG NOM PSS1S köpeğim | anne SG NOM PSS1P annemiz | top SG NOM PSS1S topum | araba SG INS - arabayla
kalem SG INS - kalemle | gün PL GEN - günlerin | araba SG GEN - arabanın | kapı SG DAT - kapıya
defter SG NOM PSS2P defteriniz
"""


def test_nouns_are_inflected_as_in_turkish():
    for case in re.split(r"[|\n]", FORMS.strip()):
        lemma, number, case, possessive, form = case.split()
        noun = Noun(lemma, number, case, possessive.strip("-"))
        assert inflect(noun) == form
        assert noun.tags == ";".join(filter(None, ["N", number, case, possessive.strip("-")]))
    assert append_suffix("ev", "") == "ev"


def test_forms_of_a_lemma_are_in_one_split():
    for split in ("train", "test"):
        for source, target, _, (tags,) in make_examples("inflection", split=split, count=50):
            assert split_of(source) == split
            number, case, *possessive = tags.split(";")[1:]
            assert inflect(Noun(source, number, case, "".join(possessive))) == target
    (in_line,) = make_examples("inflection-in-line", split="test", count=1)
    assert in_line.features == ()
    assert all(in_line.source[i] == in_line.target[j] or j == len(in_line.links) - 1 for i, j in in_line.links)


# The numbers of a model.

SIZE, WIDTH, LENGTHS = 5, 6, (3, 1)


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


@pytest.mark.parametrize(("combination", "pooling"), [("concatenate", "sum"), ("concatenate", "mean"), ("sum", "mean")])
def test_vectors_enter_the_embeddings(combination, pooling):
    config = FeaturesConfig(size=SIZE, pooling=pooling, combination=combination)
    source = EncoderConfig(size=4)
    encoders = FeatureEncoders(
        config, source, (9, 7), embedding=WIDTH, remat=0, dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    tokens, embedded = [np.array([[5, 4, 2], [2, 0, 0]]), np.array([[6, 2], [5, 2]])], drawn(1, 2, 4, WIDTH)
    encoded = encoders(tuple(map(jnp.asarray, tokens)))
    combined = np.asarray(encoders.combine(jnp.asarray(embedded), encoded))
    tables = [np.asarray(each.embedding[...]) for each in encoders.encoders]
    for row in range(2):
        vectors = []
        for table, ids in zip(tables, tokens, strict=True):
            rows = [table[token] for token in ids[row] if token]
            vectors.append(sum(rows) / (len(rows) if pooling == "mean" else 1))
        for place in range(4):
            if combination == "concatenate":
                expected = np.concatenate([embedded[row, place], *vectors])
            else:
                expected = embedded[row, place] + sum(v @ np.asarray(encoders.maps[n]) for n, v in enumerate(vectors))
            np.testing.assert_allclose(combined[row, place], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combination", sorted(FEATURE_ATTENTIONS))
def test_contexts_of_several_sources(combination):
    """Libovicky & Helcl 2017, eq. 5-10, with a dot product as score."""
    config = AttentionConfig(score="dot", size=4)
    attention = FEATURE_ATTENTIONS[combination](
        config, WIDTH, WIDTH, (SIZE, SIZE), dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    memory, query = drawn(1, 2, 3, WIDTH), drawn(2, 2, WIDTH)
    mask = np.arange(3) < np.array(LENGTHS)[:, None]
    others = [drawn(3, 2, 2, SIZE), drawn(4, 2, 4, SIZE)]
    masks = [np.array([[True, False], [True, True]]), np.ones((2, 4), bool)]
    rows = [
        FeatureRows(jnp.asarray(r), jnp.asarray(m), jnp.zeros((2, SIZE))) for r, m in zip(others, masks, strict=True)
    ]
    keys = attention.prepare(jnp.asarray(memory), jnp.asarray(mask), tuple(rows))
    values = attention.values(jnp.asarray(memory))
    state = attention.start(keys, jnp.asarray(mask))
    output = attention.attend(attention.step_weights(), state, jnp.asarray(query), keys, values, jnp.asarray(mask))
    maps = np.asarray(attention.maps[...])
    for b in range(2):
        real_rows = [
            memory[b][mask[b]],
            *(r[b][m[b]] @ maps[n] for n, (r, m) in enumerate(zip(others, masks, strict=True))),
        ]
        if combination == "flat":
            together = np.concatenate(real_rows)
            weights = softmax(together @ query[b])
            expected, alignment = weights @ together, weights[: LENGTHS[b]]
        else:
            weights = [softmax(each @ query[b]) for each in real_rows]
            contexts, alignment = [w @ each for w, each in zip(weights, real_rows, strict=True)], weights[0]
            expected = np.concatenate(contexts)
        if combination == "hierarchical":
            names = ("query_kernel", "key_kernels", "energy", "value_kernels")
            w, u, v, out = (np.asarray(getattr(attention, name)[...]) for name in names)
            beta = softmax(np.array([(v.T @ np.tanh(query[b] @ w + c @ u[k])).item() for k, c in enumerate(contexts)]))
            expected = sum(beta[k] * (c @ out[k]) for k, c in enumerate(contexts))
        np.testing.assert_allclose(output.context[b], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.alignment[b], np.pad(alignment, (0, 3 - LENGTHS[b])), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "combination", "heads"),
    [
        ("linear", "concatenate", 1),
        ("recurrent", "sum", 1),
        ("linear", "flat", 2),
        ("recurrent", "separate", 1),
        ("shared", "hierarchical", 2),
    ],
)
def test_padding_changes_nothing_and_tags_have_no_order(encoder, combination, heads):
    config = configs.override(
        tiny.experiment(), f"model.features.encoder={encoder}", f"model.features.combination={combination}",
        f"model.attention.heads={heads}", "model.attention.score=additive", "model.attention.size=8",
    ).model  # fmt: skip
    sizes = {"source_vocabulary": 9, "target_vocabulary": 8, "feature_vocabularies": (9,)}
    model = build(config, **sizes)
    params = model.init(jax.random.key(0))
    source = jnp.array([[5, 4, 2], [6, 2, 0]] * 2)
    tags = jnp.array([[4, 7, 5, 2], [6, 2, 0, 0], [5, 4, 7, 2], [6, 2, 0, 0]])  # and once more in another order

    @jax.jit
    def outputs(params, *features):
        found = []
        for ids in features:
            memory, state = model.encode(params, Sources(source, (ids,)))
            found.append(model.step(params, memory, state, jnp.full((4,), BOS))[1])
        return found

    plain, wider = outputs(params, tags, jnp.pad(tags, ((0, 0), (0, 3))))
    assert plain.alignment.shape == (4, 3)
    for before, after in zip(jax.tree.leaves(plain), jax.tree.leaves(wider), strict=True):
        np.testing.assert_allclose(before, after, rtol=2e-5, atol=1e-6)
    change = np.abs(plain.logits[:2] - plain.logits[2:]).max(-1)
    assert change[1] < 1e-6
    assert (change[0] < 1e-6) == (encoder == "linear")


def test_settings_beside_features_are_checked():
    inflection = ("data.features=tags", "model.encoder.residual_from=1", "model.embedding=32")
    with pytest.raises(
        ValueError, match=re.escape("set model.encoder.residual_from=0, or model.features.combination=sum")
    ):
        check_experiment(tiny.experiment(*inflection))
    shared = ("model.features.encoder=shared", "model.features.combination=flat", "tokenizer.features.type=char")
    with pytest.raises(ValueError, match="features have the source's tokenizer"):
        check_experiment(tiny.experiment("data.features=tags", *shared))


# A run.


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A run on TSV with tags, trained in two parts, and the settings with which it was trained."""
    from rich.console import Console

    from s2s_jax import run

    folder = tmp_path_factory.mktemp("tagged")
    for split, count in (("train", 200), ("validation", 20)):
        examples = make_examples("inflection", split=split, count=count)
        lines = (f"{example.source}\t{example.features[0]}\t{example.target}\n" for example in examples)
        (folder / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
    experiment = tiny.experiment(
        f"data.train={folder / 'train.tsv'}", f"data.validation={folder / 'validation.tsv'}", "data.features=2",
        "data.target=3", "tokenizer.source.type=char", "tokenizer.target.type=char", "batch.size=16", "steps=8",
        "model.features.combination=separate", "optimizer.schedule=constant", "validation.every=8",
        "checkpoint.every=4", "validation.sentences=0",
    )  # fmt: skip
    whole = run.train(experiment, folder / "whole", Console(quiet=True))
    run.train(configs.override(experiment, "steps=4"), folder / "parts", Console(quiet=True))
    resumed = run.train(experiment, folder / "parts", Console(quiet=True))
    for before, after in zip(jax.tree.leaves(whole.params), jax.tree.leaves(resumed.params), strict=True):
        np.testing.assert_array_equal(before, after)
    return folder / "parts"


def test_a_run_translates_scores_and_evaluates_lines_with_features(tagged, s2s, tmp_path):
    validation = tagged.parent / "validation.tsv"
    rows = [line.split("\t") for line in validation.read_text(encoding="utf-8").splitlines()][:3]
    inputs = tmp_path / "in.tsv"
    inputs.write_text("".join(f"{lemma}\t{tags}\n" for lemma, tags, _ in rows) + "\n", encoding="utf-8")
    code, found, errors = s2s("translate", str(tagged), "--input", str(inputs), "--json")
    assert code == 0, errors
    texts = [json.loads(line) for line in found.splitlines()]
    assert len(texts) == 4
    assert texts[3]["translation"] == ""
    code, scored, errors = s2s("score", str(tagged), "--input", str(validation))
    assert code == 0, errors
    from s2s_jax import run

    loaded = run.load(tagged)
    (pair, *_) = loaded.score([(rows[0][0], rows[0][2], rows[0][1])])
    assert scored.splitlines()[0] == f"{pair.log_probability:.4f}\t{rows[0][0]}\t{rows[0][2]}"
    assert [each.text for each in loaded.translate([(lemma, tags) for lemma, tags, _ in rows])] == [
        text["translation"] for text in texts[:3]
    ]
    metrics = loaded.evaluate("validation")
    assert metrics["sources"] == 20
    assert {"feature1_tokenizer", "source_tokenizer"} <= loaded.facts.keys()
    assert loaded.tokenizers["feature1"].size == 4 + 1 + 2 + 7 + 5  # N, numbers, cases, possessives


def test_lines_without_features_are_refused(tagged, s2s, tmp_path):
    inputs = tmp_path / "in.tsv"
    inputs.write_text("ev\tN;SG;DAT\nev\n", encoding="utf-8")
    code, _, errors = s2s("translate", str(tagged), "--input", str(inputs))
    assert code == 2
    assert errors.splitlines()[-1] == (
        f"s2s: {inputs}:2: 1 tab-separated column, 2 are wanted: the source and its features, in the order of "
        "data.features=2."
    )
    code, _, errors = s2s("export", str(tagged), str(tmp_path / "out"))
    assert code == 2
    assert errors.startswith("s2s: data.features=2 cannot be exported")
    from s2s_jax import run

    with pytest.raises(ValueError, match="1 features are wanted"):
        run.load(tagged).translate(["ev"])


def test_a_sweep_notices_changed_features_and_alignments(tmp_path):
    """Finished trials are those of the same features, and of the same alignments of each split."""
    table, links = tmp_path / "pairs.tsv", tmp_path / "links"
    table.write_text("a b\tb a\tV;PST\n")
    links.write_text("0-0\n")
    pairs = {"train": str(table), "validation": str(table), "test": str(table), "features": ("3",)}
    data, known = DataConfig(**pairs, validation_alignment=str(links)), {}
    seen = {_data_fingerprint(data, known)}
    table.write_text("a b\tb a\tN;PL;SG\n")
    seen.add(_data_fingerprint(data, known))
    links.write_text("0-0 1-1\n")
    seen.add(_data_fingerprint(data, known))
    assert len(seen) == 3
