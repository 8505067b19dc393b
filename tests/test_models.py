"""Can a whole model of one's own be built from the settings, like the one of the project?"""

import typing

import fake
import jax
import pytest

from s2s_jax.config import Experiment, override
from s2s_jax.model.compatibility import effective, without_effect
from s2s_jax.model.ops.matmul import PRECISIONS
from s2s_jax.model.seq2seq import MODELS, BuilderName, ModelConfig, PrecisionName, build
from s2s_jax.run.model import make_model
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.symbol_tokenizers import Characters

SIZES = {"source_vocabulary": fake.WORDS, "target_vocabulary": fake.WORDS}


@pytest.fixture
def own_builder(monkeypatch):
    """A builder registered as `mine`, which returns the fake model, and the arguments of its calls."""
    calls = []

    def builder(config, *, source_vocabulary, target_vocabulary, copy_table=None):
        calls.append((config, source_vocabulary, target_vocabulary, config.read_options(heads=4, rate=0.1, tied=False)))
        return fake.MODEL

    monkeypatch.setitem(MODELS, "mine", builder)
    return calls


def test_a_registered_builder_makes_the_model(own_builder):
    config = override(Experiment(), "model.builder=mine", "model.options=heads=8,tied=true").model
    assert build(config, **SIZES) is fake.MODEL
    assert own_builder == [(config, fake.WORDS, fake.WORDS, {"heads": 8, "rate": 0.1, "tied": True})]


def test_rules_of_our_own_model_do_not_bind_another(own_builder):
    illegal = "model.attention.score=location-aware"
    with pytest.raises(ValueError, match="model.attention"):
        override(Experiment(), illegal)
    other = override(Experiment(), "model.builder=mine", illegal, "model.attention.window=3").model
    assert without_effect(other) == []
    assert effective(other) == other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("head=8", "model.options of model.builder=mine are heads, rate, tied; did you mean 'heads'?"),
        ("heads=many", "model.options heads must be of type int, got 'many'"),
        ("tied=2", "model.options tied must be of type bool, got '2'"),
    ],
)
def test_an_option_that_the_builder_does_not_know_is_refused(own_builder, options, message):
    with pytest.raises(ValueError) as refusal:
        build(ModelConfig(builder="mine", options=options), **SIZES)
    assert str(refusal.value) == message


def test_our_own_model_refuses_options_and_unknown_builders():
    with pytest.raises(ValueError, match="model.options=heads=8 is for a builder of your own"):
        ModelConfig(options="heads=8")
    with pytest.raises(ValueError, match="must be one of seq2seq, got 'seq2sec'; did you mean 'seq2seq'?"):
        ModelConfig(builder="seq2sec")


def test_the_names_of_builders_and_precisions_are_those_of_the_tables():
    assert set(typing.get_args(BuilderName)) == set(MODELS)
    assert set(typing.get_args(PrecisionName)) == set(PRECISIONS)


def test_a_model_without_an_unroll_has_the_scan_of_its_steps():
    memory, state = fake.MODEL.encode(fake.table(), jax.numpy.array([[4, 2]]))
    _, outputs = fake.MODEL.unroll(fake.table(), memory, state, jax.numpy.array([[1, 4, 3]]))
    assert outputs.logits.shape == (1, 3, fake.WORDS)


def test_one_embedding_for_both_sides_needs_one_tokenizer():
    """Equal sizes are not enough: the same id would be two words."""
    here, there = (Characters.train([letters], size=9, unicode="none") for letters in ("abc", "abd"))
    config = ModelConfig(shared_embeddings=True)
    assert "embedding" not in jax.eval_shape(make_model(config, PairTokenizer(here, here)).init, jax.random.key(0))
    with pytest.raises(ValueError, match="needs one vocabulary on both sides, .* set tokenizer.shared=true"):
        make_model(config, PairTokenizer(here, there))
    make_model(ModelConfig(), PairTokenizer(here, there))
