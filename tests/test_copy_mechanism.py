"""Is copying the formula of its papers, and does it work through training, search and output?"""

import dataclasses
import functools
import io
import json
import random
import string

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from s2s_jax import run
from s2s_jax.config import override
from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.beam.engine import beam
from s2s_jax.decode.forced_decoding import forced_decoding
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.compatibility import weights_sum_to_one
from s2s_jax.model.copy_mechanism import copynet, identity_copy_table, pointer
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import LogitsReader, scan_of_step, unroll_targets
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import BOS, EOS, PAD, UNK, Batch
from s2s_jax.text.copy_vocabulary import NO_COPY, PairTokenizer
from s2s_jax.text.tokenizers import Subwords, Words
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.objectives import token_losses

V, SLOTS = 7, 3
WIDTH = V + SLOTS
# A word twice, one without an id, two in slots; no slots; no ids at all; only padding
TARGET_IDS = np.array([[4, 7, WIDTH, 4, 8], [5, 6, 5, EOS, WIDTH], [WIDTH] * 5, [WIDTH] * 5])
REAL = np.array([5, 4, 5, 0])
QUIET = Console(file=io.StringIO())


# --- the formulas -----------------------------------------------------------------------------------------------------


def softmax(x):
    exp = np.exp(x - x.max())
    return exp / exp.sum()


def pointer_by_hand(logits, gate, weights, target_ids):
    """See et al. 2017, eq. 9; the weight of tokens without an id goes to the vocabulary."""
    p = 1 / (1 + np.exp(-gate))
    copied, silent = np.zeros(WIDTH), 0.0
    for weight, word in zip(weights, target_ids, strict=True):
        if word < WIDTH:
            copied[word] += weight
        else:
            silent += weight
    if not copied.any():
        silent = 1.0
    return (p + (1 - p) * silent) * np.append(softmax(logits), np.zeros(SLOTS)) + (1 - p) * copied


def copynet_by_hand(logits, scores, target_ids):
    """Gu et al. 2016, eq. 5-6: one Z over the vocabulary and the tokens of the source."""
    mass = np.append(np.exp(logits), np.zeros(SLOTS))
    for energy, word in zip(scores, target_ids, strict=True):
        if word < WIDTH:
            mass[word] += np.exp(energy)
    return mass / mass.sum()


def drawn_weights():
    """Alignments that sum to 1 on real tokens, and are 0 on padding."""
    weights = np.random.default_rng(2).random(TARGET_IDS.shape) * (np.arange(TARGET_IDS.shape[1]) < REAL[:, None])
    return (weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)).astype(np.float32)


def drawn_inputs(kind):
    logits, gate, scores = oracles.drawn([np.zeros((4, V)), np.zeros(4), np.zeros(TARGET_IDS.shape)], seed=1)
    if kind == "pointer":
        return functools.partial(pointer, slots=SLOTS), pointer_by_hand, [logits, gate, jnp.asarray(drawn_weights())]
    return functools.partial(copynet, slots=SLOTS), copynet_by_hand, [logits, scores]


@pytest.mark.parametrize("kind", ["pointer", "copynet"])
def test_probabilities_are_the_papers_in_value_and_gradient_and_sum_to_one(kind):
    function, by_hand, inputs = drawn_inputs(kind)
    coefficients = np.asarray(oracles.drawn(np.zeros((4, WIDTH)), seed=3))

    def expected(inputs):
        return np.array([by_hand(*row, target_ids) for *row, target_ids in zip(*inputs, TARGET_IDS, strict=True)])

    def actual(inputs):
        return jnp.exp(function(*inputs, jnp.asarray(TARGET_IDS)))

    both = oracles.compiled(
        lambda inputs: (actual(inputs), jax.grad(lambda x: (actual(x) * coefficients).sum())(inputs))
    )
    probabilities, gradient = both(inputs)
    exact = [np.asarray(one, np.float64) for one in inputs]
    np.testing.assert_allclose(probabilities, expected(exact), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    slopes = oracles.gradient(lambda inputs: (expected(inputs) * coefficients).sum(), exact)
    if kind == "pointer":  # the weights of padding are 0 for good
        padding = np.arange(TARGET_IDS.shape[1]) >= REAL[:, None]
        slopes[2], gradient[2] = (np.where(padding, 0, slope) for slope in (slopes[2], gradient[2]))
    oracles.same(gradient, slopes, tolerance=2e-5)


@pytest.mark.parametrize("kind", ["pointer", "copynet"])
def test_unused_slots_are_impossible_and_finite(kind):
    function, _, inputs = drawn_inputs(kind)
    outputs = np.asarray(function(*inputs, jnp.asarray(TARGET_IDS)))
    unused = np.array([[word not in row for word in range(V, WIDTH)] for row in TARGET_IDS])
    assert unused.sum() == 10
    assert (outputs[:, V:][unused] <= IMPOSSIBLE / 2).all()
    assert (outputs[:, V:][~unused] > -20).all()
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("size", [100.0, 1e4])
@pytest.mark.parametrize("kind", ["pointer", "copynet"])
def test_huge_numbers_and_exact_zeros_leave_loss_and_gradient_finite(kind, size):
    """A reference word with attention exactly 0 costs some tens of nats, not infinity."""
    function, _, inputs = drawn_inputs(kind)
    inputs = [size * jnp.sign(one) for one in inputs]
    if kind == "pointer":
        inputs[2] = jnp.asarray(np.eye(5, dtype=np.float32)[[0, 0, 0, 0]])  # all on the first token
    gold = jnp.array([8, 5, 4, 4])

    def loss(inputs):
        return token_losses(function(*inputs, jnp.asarray(TARGET_IDS)), gold, label_smoothing=0.1).smoothed.sum()

    value, gradient = oracles.compiled(jax.value_and_grad(loss))(inputs)
    assert np.isfinite(value)
    assert value < 12 * size + 1000
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_labels_are_smoothed_over_possible_ids():
    logits = np.log(np.array([[0.5, 0.3, 0.2, 1.0]], np.float32))
    logits[0, 3] = IMPOSSIBLE
    losses = token_losses(jnp.asarray(logits), jnp.array([1]), label_smoothing=0.3)
    expected = -0.7 * np.log(0.3) - 0.3 * np.log([0.5, 0.3, 0.2]).mean()
    np.testing.assert_allclose(losses.smoothed, [expected], rtol=1e-5)


# --- the model --------------------------------------------------------------------------------------------------------

SOURCE = np.array([[4, V, 5, V + 1, V, EOS], [6, EOS, PAD, PAD, PAD, PAD], [PAD] * 6])
TARGET = np.array([[V, 4, V, V + 1, EOS], [6, 5, EOS, PAD, PAD], [PAD] * 5])
BATCH = Batch(jnp.asarray(SOURCE), jnp.asarray(TARGET))


def config(copy, *, order="luong", input_feeding=True, score="general", layers=1):
    return ModelConfig(
        embedding=3,
        encoder=EncoderConfig(cell="gru", size=2),
        attention=AttentionConfig(score=score, size=4),
        decoder=DecoderConfig(
            cell="gru",
            size=4,
            architecture=order,
            layers=layers,
            input_feeding=input_feeding,
            copy=copy,
            copy_slots=SLOTS,
        ),
    )


ORDERS = {
    "fed": {},
    "unfed": {"input_feeding": False},
    "bahdanau": {"order": "bahdanau", "score": "additive", "layers": 2},
}
NARROW = [("pointer", order) for order in ORDERS] + [("copynet", "fed")]
WIDE = [pytest.param(("copynet", order), marks=pytest.mark.wide) for order in ORDERS if order != "fed"]


@functools.cache
def model_and_params(copy, order, vocabulary=V):
    model = build(config(copy, **ORDERS[order]), source_vocabulary=vocabulary, target_vocabulary=vocabulary)
    return model, oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=4)


def model_by_hand(params, copy, order, source, target):
    """Probabilities [T, W] of one sentence without padding, the true token fed."""
    settings, params = config(copy, **ORDERS[order]), oracles.precise(params)
    decoder, known = params["decoder"], lambda token: token if token < V else UNK
    memory, ends = oracles.encode(
        params["encoder"], settings.encoder, params["embedding"][[known(token) for token in source]]
    )
    carries, fed, *_ = oracles.decoder_start(decoder, settings.decoder, memory, ends)
    target_ids, scores, outputs = (
        [WIDTH if token in (BOS, UNK) else token for token in source],
        np.zeros(len(source)),
        [],
    )
    for token in [BOS, *target[:-1]]:
        embedded = decoder["embedding"][known(token)]
        read = np.zeros(0)
        if copy == "copynet":  # eq. 9: the memory where the source has the last token, by how likely each was copied
            coefficients = np.array(
                [np.exp(energy) * (word == token) for energy, word in zip(scores, target_ids, strict=True)]
            )
            read = coefficients @ memory / (coefficients.sum() or 1.0)
        attend = functools.partial(oracles.attend, decoder["attention"]["score"], settings.attention.score)
        if order == "bahdanau":
            state = carries[-1][0]
            context, alignment = attend(state, memory)
            extra = np.concatenate([context, read])
            carries, _ = oracles.stack(decoder["cells"], settings.decoder, carries, embedded, extra, None)
        else:
            extra = np.concatenate([fed, read])
            carries, state = oracles.stack(decoder["cells"], settings.decoder, carries, embedded, extra, None)
            context, alignment = attend(state, memory)
        vector = oracles.readout_vector(decoder["readout"], settings.decoder, context, state, embedded)
        fed = vector if order == "fed" else fed
        logits = decoder["output"] @ vector + decoder["output_bias"]
        if copy == "pointer":
            gate = np.concatenate([context, state, embedded]) @ decoder["copying"]["weight"][:, 0]
            outputs.append(pointer_by_hand(logits, gate + decoder["copying"]["bias"], alignment, target_ids))
        else:
            scores = np.array([np.tanh(token @ decoder["copying"]["weight"]) @ state for token in memory])
            outputs.append(copynet_by_hand(logits, scores, target_ids))
    return np.array(outputs)


@pytest.fixture(scope="module", params=[*NARROW, *WIDE], ids="-".join)
def results(request):
    """A model, its parameters, and all results that are compared, from one compilation."""
    model, params = model_and_params(*request.param)
    wide = Batch(jnp.pad(BATCH.source, ((0, 0), (0, 3))), BATCH.target)
    stepped = dataclasses.replace(model, unroll=scan_of_step(model.step))
    chunks = LogitsReader(lambda logits, gold: token_losses(logits, gold).nats, BATCH.target, 4)

    def nats(losses):
        return jnp.where(BATCH.target != PAD, losses, 0).sum()

    def whole(params, model=model):
        steps = unroll_targets(model, params, BATCH)
        return nats(token_losses(steps.logits, BATCH.target).nats), steps

    def chunked(params):
        return nats(unroll_targets(model, params, BATCH, reader=chunks).logits)

    def tell(params):
        (loss, steps), gradient = jax.value_and_grad(whole, has_aux=True)(params)
        (_, slow), slow_gradient = jax.value_and_grad(functools.partial(whole, model=stepped), has_aux=True)(params)
        return {
            "steps": [steps, slow],
            "gradients": [gradient, slow_gradient],
            "wide": unroll_targets(model, params, wide).logits,
            "chunked": jax.value_and_grad(chunked)(params),
            "whole": (loss, gradient),
        }

    return request.param, params, jax.tree.map(np.asarray, oracles.compiled(tell)(params))


def test_the_model_is_the_papers_from_token_to_probability(results):
    point, params, outputs = results
    for row, (source, target) in enumerate(zip(SOURCE[:2], TARGET[:2], strict=True)):
        source, target = (list(ids[ids != PAD]) for ids in (source, target))
        expected = model_by_hand(params, *point, source, target)
        np.testing.assert_allclose(np.exp(outputs["steps"][0].logits[row, : len(target)]), expected, atol=1e-5)


def test_all_probabilities_sum_to_one_and_nothing_is_nan(results):
    _, _, outputs = results
    np.testing.assert_allclose(np.exp(outputs["steps"][0].logits).sum(-1), 1, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))


def test_unroll_is_the_scan_of_step_in_value_and_gradient(results):
    _, _, outputs = results
    oracles.same(outputs["steps"][0], outputs["steps"][1], tolerance=1e-5)
    oracles.same(*outputs["gradients"], tolerance=1e-5)


def test_in_chunks_the_loss_and_its_gradient_are_the_same(results):
    _, _, outputs = results
    oracles.same(outputs["chunked"], outputs["whole"], tolerance=1e-5)


def test_padding_is_never_copied(results):
    """A known error elsewhere is copy attention without a mask, which copies PAD and depends on the padding."""
    _, _, outputs = results
    oracles.same(np.exp(outputs["wide"]), np.exp(outputs["steps"][0].logits), tolerance=1e-6)


@pytest.mark.parametrize("copy", ["pointer", "copynet"])
def test_a_table_with_an_id_for_padding_changes_nothing(copy):
    """The mask decides what is padding, whatever the table has for it."""
    model, params = model_and_params(copy, "unfed")
    table = identity_copy_table(V, V, SLOTS)
    table[PAD] = PAD
    other = build(config(copy, **ORDERS["unfed"]), source_vocabulary=V, target_vocabulary=V, copy_table=table)
    actual = [
        oracles.compiled(lambda params, one=one: unroll_targets(one, params, BATCH).logits)(params)
        for one in (model, other)
    ]
    oracles.same(*actual, tolerance=0)


def test_a_word_twice_in_the_source_is_copied_from_both_places():
    model, params = model_and_params("pointer", "unfed")
    steps = oracles.compiled(lambda params: unroll_targets(model, params, BATCH))(params)
    first, second = np.exp(steps.logits[0, :, [V, V + 1]])
    weights = np.asarray(steps.alignment[0])
    np.testing.assert_allclose(first / second, (weights[:, 1] + weights[:, 4]) / weights[:, 3], rtol=1e-4)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("copy", ["pointer", "copynet"])
def test_search_copies_words_outside_the_vocabulary(copy, width):
    """With a vocabulary of low probability, the sentence's own words remain."""
    model, params = model_and_params(copy, "fed")
    params = {**params, "decoder": {**params["decoder"], "output_bias": jnp.full(V, -50.0).at[EOS].set(-3.0)}}
    if copy == "pointer":
        copying = {**params["decoder"]["copying"], "bias": jnp.float32(-20)}
        params["decoder"]["copying"] = copying
    search = greedy if width == 1 else functools.partial(beam, width=width)
    found = jax.jit(lambda params: search(model, params, BATCH.source, max_length=4))(params)
    own, tokens = {4, 5, V, V + 1, EOS, PAD}, np.asarray(found.tokens)
    assert set(tokens[0].ravel()) <= own
    assert (tokens[0] >= V).any()
    assert set(tokens[1, 0]) <= {6, EOS, PAD}  # the other row has no words in slots
    best = Batch(BATCH.source[:1], found.tokens[:1, 0])
    scored = oracles.compiled(lambda params: forced_decoding(model, params, best).log_probs)(params)
    np.testing.assert_allclose(scored, found.log_probs[:1, 0], atol=1e-4)


WITHOUT_UNIT_SUM = [
    {"normalizer": "sigmoid"},
    {"score": "gaussian-mixture", "normalizer": "exponential"},
    {"constraint": "local-p"},
    {"constraint": "monotonic", "normalizer": "sigmoid"},
    {"constraint": "stepwise", "normalizer": "sigmoid"},
    {"constraint": "mocha", "normalizer": "sigmoid"},
    {"normalizer": "constrained-softmax", "history": "coverage"},
]


def with_attention(copy, **attention):
    one = config(copy)
    return dataclasses.replace(one, attention=AttentionConfig(**{"score": "general", "size": 4, **attention}))


@pytest.mark.parametrize("attention", WITHOUT_UNIT_SUM, ids=lambda one: "-".join(one.values()))
def test_a_pointer_refuses_weights_that_do_not_sum_to_one(attention):
    with pytest.raises(ValueError, match="model.decoder.copy=pointer") as refusal:
        with_attention("pointer", **attention)
    assert str(refusal.value).startswith(
        "model.decoder.copy=pointer reads the attention weights as probabilities, but with "
        f"model.attention.normalizer={attention.get('normalizer', 'softmax')} and "
        f"model.attention.constraint={attention.get('constraint', 'none')} they need not sum to 1; use --"
    )
    assert "--model.decoder.copy copynet" in str(refusal.value)
    build(with_attention("copynet", **attention), source_vocabulary=V, target_vocabulary=V)


@pytest.mark.parametrize(
    "attention",
    [
        *({"normalizer": name} for name in ("softmax", "sparsemax", "entmax-1.5", "top-k", "smoothed-sigmoid")),
        {"constraint": "local-p", "renormalized": True, "window": 2},
        {"constraint": "milk", "normalizer": "sigmoid"},
        {"constraint": "forward", "normalizer": "sigmoid"},
        {"constraint": "forward", "normalizer": "sparsemax"},
        {"constraint": "forward-agent", "normalizer": "hardmax"},
        {"constraint": "window", "normalizer": "top-k", "window": 1, "top_k": 1},
        {"heads": 2},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_weights_that_a_pointer_accepts_sum_to_one(attention):
    settings = with_attention("pointer", **attention)
    assert weights_sum_to_one(settings.attention)
    model = build(settings, source_vocabulary=V, target_vocabulary=V)
    compute = oracles.compiled(lambda params: unroll_targets(model, params, BATCH))
    for scale in (0.7, 7.0):  # the larger ones make sparse weights sparse indeed
        steps = compute(oracles.drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=4, scale=scale))
        np.testing.assert_allclose(steps.alignment[:2].sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(np.exp(steps.logits).sum(-1), 1, atol=1e-5)


def test_copying_without_attention_or_between_different_vocabularies_is_refused():
    with pytest.raises(ValueError, match="model.decoder.copy=copynet copies what attention finds in the source"):
        with_attention("copynet", score="none")
    with pytest.raises(ValueError, match=r"a vocabulary of 7 tokens into one of 9 .* pass build\(..., copy_table="):
        build(config("pointer"), source_vocabulary=7, target_vocabulary=9)
    build(config("none"), source_vocabulary=7, target_vocabulary=9)
    with pytest.raises(ValueError, match="did you mean 'pointer'"):
        config("pointr")
    with pytest.raises(ValueError, match="model.decoder.copy_slots must be zero or more, got -1"):
        DecoderConfig(copy_slots=-1)


# --- the text ---------------------------------------------------------------------------------------------------------


def pair(slots=2):
    return PairTokenizer(Words(["the", "saw", "only-here"]), Words(["sah", "the", "Zoe"]), slots=slots)


def test_unknown_words_of_a_source_are_numbered_and_the_target_has_the_same_numbers():
    both = pair()
    source = "Ada saw Zoe the Ada Bob"  # the third unknown word finds no slot
    assert both.slot_words(source) == ["Ada", "Zoe"]
    assert both.encode_source(source) == [7, 5, 8, 4, 7, UNK]
    # a word that only the target knows is the source's all the same; one that the source does not have is unknown
    assert both.encode_target("Zoe sah Ada Bob Eve the", source) == [8, 4, 7, UNK, UNK, 5]
    assert both.encode_target("Zoe sah Ada", "the saw") == [6, 4, UNK]
    assert both.source_symbols([*both.encode_source(source), EOS], source) == [
        *("Ada", "saw", "Zoe", "the", "Ada", "<unk>", "</s>")
    ]


def test_each_source_id_has_the_target_id_of_its_word_or_none():
    assert pair().copy_table().tolist() == [NO_COPY, NO_COPY, EOS, NO_COPY, 5, NO_COPY, NO_COPY, 7, 8]
    same = Words(["a", "b"])
    np.testing.assert_array_equal(PairTokenizer(same, same, slots=2).copy_table(), identity_copy_table(6, 6, 2))


def test_ids_of_slots_decode_to_the_words_of_the_sentence():
    both = pair()
    ids = [8, 4, 7, UNK, EOS, PAD]
    assert both.decode(ids, "Ada saw Zoe") == "Zoe sah Ada <unk>"
    assert both.decode(ids, "Eve saw Bob") == "Bob sah Eve <unk>"
    assert both.decode(ids, "Eve saw") == "<unk> sah Eve <unk>"
    assert both.decode(ids, "Ada saw Zoe", replacements=["x", "x", "x", "Bob"]) == "Zoe sah Ada Bob"
    assert both.target_symbols(ids[:5], "Ada saw Zoe", replacements=["", "", "", ""]) == [
        *("Zoe", "sah", "Ada", "<unk>", "</s>")
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["the", "saw", "Ada", "Bob", "Eve", "Zoe"]), max_size=8), st.integers(4, 6))
def test_a_line_with_few_unknown_words_is_decoded_unchanged(words, slots):
    tokenizer = Words(["the", "saw"])
    both, line = PairTokenizer(tokenizer, tokenizer, slots=slots), " ".join(words)
    ids = both.encode_target(line, line)
    assert ids == both.encode_source(line)
    assert UNK not in ids
    assert max(ids, default=0) < tokenizer.size + slots
    assert both.decode(ids, line) == line
    assert " ".join(both.target_symbols(ids, line)) == line


def test_without_slots_there_are_no_extra_ids():
    both, tokenizer = pair(slots=0), Words(["the", "saw", "only-here"])
    assert both.encode_source("Ada saw the") == tokenizer.encode("Ada saw the")
    assert both.encode_target("Ada sah", "Ada saw") == [UNK, 4]
    assert both.decode([UNK, 4], "Ada saw") == "<unk> sah"


def test_subwords_have_no_unknown_words():
    lines = ["the cat sat", "the mat sat there", "a cat"] * 5
    tokenizer = Subwords.train(lines, size=290)
    both = PairTokenizer(tokenizer, tokenizer, slots=2)
    assert both.slot_words("Zürich the") == []
    assert both.encode_source("Zürich the") == tokenizer.encode("Zürich the")
    assert both.copy_table()[4:].tolist() == list(range(4, tokenizer.size + 2))
    ids = [*tokenizer.encode("the"), UNK, *tokenizer.encode("cat"), UNK]
    assert tokenizer.decode(ids) == "the<unk>cat<unk>"
    assert tokenizer.decode(ids, ["-"]) == "the-cat<unk>"
    assert len(tokenizer.tokenize("the cat")) == len(tokenizer.encode("the cat"))


def test_different_tokenizer_types_are_refused_before_training(tmp_path):
    changes = "model.decoder.copy=pointer", "tokenizer.source.type=char"
    with pytest.raises(ValueError, match="of one type") as refusal:
        run.train(tiny.experiment(*changes), tmp_path / "run", QUIET)
    assert str(refusal.value) == (
        "model.decoder.copy needs tokenizers of one type on both sides, got tokenizer.source.type=char and "
        "tokenizer.target.type=word, whose tokens differ; take one type for both, or model.decoder.copy=none."
    )
    assert not (tmp_path / "run" / "source.tokenizer.json").exists()


def test_a_word_beyond_the_slots_is_unknown():
    both = pair()
    source = np.array([*both.encode_source("the Ada saw Zoe")[:3], EOS])
    target = np.array(both.encode_target("Ada Zoe the", "the Ada saw Zoe"))
    assert target.tolist() == [7, 8, 5]
    assert both.drop_absent_slots(source, target).tolist() == [7, UNK, 5]


# --- end to end ------------------------------------------------------------------------------------------------------

KNOWN = ("to", "from", "and", "by", "of", "in")


def made_up(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_lowercase, k=7))


def lines(seed: int, count: int) -> list[str]:
    """One to four words, every other one made up and hardly ever seen twice."""
    chance = random.Random(seed)
    return [
        " ".join(
            made_up(chance) if chance.random() < 0.5 else chance.choice(KNOWN) for _ in range(chance.randint(1, 4))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("copying")
    for name, seed, count in (("train", 1, 2000), ("test", 2, 100)):
        (directory / f"{name}.tsv").write_text("".join(f"{line}\t{line}\n" for line in lines(seed, count)))
    return directory


def experiment(files, *changes):
    own = (
        f"data.train={files / 'train.tsv'}", f"data.validation={files / 'test.tsv'}",
        "tokenizer.source.size=10", "tokenizer.target.size=10", "model.decoder.copy_slots=4", "data.lengths=[0,0]",
    )  # fmt: skip
    return tiny.experiment(*own, *changes)


@pytest.fixture(scope="session", params=["pointer", pytest.param("copynet", marks=pytest.mark.wide)])
def trained(request, files):
    run.train(experiment(files, f"model.decoder.copy={request.param}"), files / request.param, QUIET)
    return run.load(files / request.param)


def test_it_learns_to_copy_words_that_it_has_never_seen(trained):
    measured = trained.evaluate("test")
    assert measured["exact_match"] > 0.9, measured


@pytest.mark.wide
def test_without_copying_the_same_model_cannot(files):
    run.train(experiment(files), files / "none", QUIET)
    measured = run.load(files / "none").evaluate("test")
    known = sum(set(line.split()) <= set(KNOWN) for line in lines(2, 100))
    assert measured["exact_match"] <= known / 100 < 0.5
    replaced = run.load(files / "none", changes=["search.replace_unknown=true"])
    assert replaced.evaluate("test")["exact_match"] > 0.9  # it attends to the right token


@pytest.mark.parametrize("width", [1, 3])
def test_all_outputs_of_a_translation_have_the_words(trained, files, width):
    line = "from qwertyu"
    run_with_beam = run.load(files / trained.experiment.model.decoder.copy, changes=[f"search.beam={width}"])
    (answer,) = run_with_beam.translate([line])
    assert answer.text == line
    assert answer.source_tokens == (*line.split(), "</s>")
    assert answer.hypotheses[0].tokens == (*line.split(), "</s>")
    for hypothesis in answer.hypotheses:
        ended = hypothesis.tokens[: None if hypothesis.truncated else -1]
        assert hypothesis.text == " ".join(ended)
        assert len(hypothesis.log_probs) == len(hypothesis.tokens) == len(hypothesis.alignment)
    (scored,) = trained.score([(line, line)])
    assert scored.tokens == answer.hypotheses[0].tokens
    np.testing.assert_allclose(scored.log_probs, answer.hypotheses[0].log_probs, atol=1e-4)
    json.dumps(answer.source_tokens + answer.hypotheses[0].tokens)


def test_rows_of_a_batch_do_not_share_their_words(trained):
    answers = trained.translate(["aaaaaaa to", "bbbbbbb to", "in", "ccccccc to"])
    assert [answer.text for answer in answers] == ["aaaaaaa to", "bbbbbbb to", "in", "ccccccc to"]


@pytest.mark.wide
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(files):
    changes = (
        "model.decoder.copy=copynet", "scheduled_sampling.schedule=linear", "scheduled_sampling.decay=30",
        "scheduled_sampling.prediction=sample",
        "model.decoder.dropout=0.2", "loss.vocabulary_chunk=40", "loss.label_smoothing=0.1", "validation.every=20",
    )  # fmt: skip
    for steps in (7, 20):
        resumed = run.fit(
            experiment(files, *changes, f"steps={steps}", "optimizer.schedule=constant"), files / "parts", QUIET
        )
    whole = run.fit(experiment(files, *changes, "steps=20", "optimizer.schedule=constant"), files / "whole", QUIET)
    assert digest(resumed) == digest(whole)


def test_replacing_unknown_words_needs_attention(trained):
    changes = "model.attention.score=none", "model.decoder.copy=none", "search.replace_unknown=true"
    blind = override(trained.experiment, *changes)
    with pytest.raises(ValueError, match="search.replace_unknown needs attention weights"):
        dataclasses.replace(trained, experiment=blind).translator()
