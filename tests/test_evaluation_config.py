"""How translations are evaluated, and what is noted about it: the tokenizer of BLEU, and pairs with equal sources."""

import sys

import numpy as np
import pytest
import tiny

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.translate import EMPTY_HYPOTHESIS, Translation
from s2s_jax.evaluate.config import EvaluationConfig, evaluation_notes
from s2s_jax.evaluate.evaluation import evaluate_split, group_by_source
from s2s_jax.evaluate.text_counts import bleu_scorer
from s2s_jax.run.check import check_experiment
from s2s_jax.sweep.predictions import score_predictions
from s2s_jax.text.example import Example

CHINESE = ["今天天气很好", "我们去公园散步吧"]


def notes(*targets: str, **settings) -> list[str]:
    examples = [Example(str(number), target) for number, target in enumerate(targets)]
    return evaluation_notes(examples, len(examples), EvaluationConfig(**settings))


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        (CHINESE[0], "zh"),
        ("今日は天気がいいですね", "ja-mecab"),
        ("오늘 날씨가 좋네요", "ko-mecab"),
        ("วันนี้อากาศดี", "char"),
        ("Сегодня хорошая погода", "intl"),
    ],
)
def test_text_that_is_not_latin_is_noted_with_the_tokenizer_that_suits_it(text, tokenizer):
    (note,) = notes(text)
    assert note == (
        "BLEU is computed with the tokenizer 13a, and 100% of the letters are not Latin; --evaluation.bleu-tokenizer "
        f"{tokenizer} suits them"
    )
    assert notes(text, bleu_tokenizer=tokenizer) == notes(text, unit="phone") == []
    EvaluationConfig(bleu_tokenizer=tokenizer)


@pytest.mark.parametrize("texts", [["Schönes Wetter, こんにちは"], ["12 + 3"], [""], ["déjà vu", "naïve"]])
def test_latin_text_and_text_without_letters_are_not_noted(texts):
    assert notes(*texts) == []


def evaluated(texts, references, **settings):
    """The metrics of `evaluate` and of sweeps, which must be the same."""
    examples = [Example(str(number), line) for number, line in enumerate(references)]
    hypotheses = [EMPTY_HYPOTHESIS._replace(text=text) for text in texts]
    translations = [Translation(one.source, (), (best,)) for one, best in zip(examples, hypotheses, strict=True)]
    evaluation, grouped = EvaluationConfig(**settings), group_by_source(examples)
    pairs = [ScoredPair(one, (), (), np.zeros(0), np.zeros((0, 1)), 0, 0.0) for one in examples]
    found = evaluate_split(translations, grouped, pairs, evaluation=evaluation, attends=False)
    stored = {"texts": texts, "references": grouped.references, "forced": np.zeros((len(texts), 4)).tolist()}
    assert score_predictions(stored, evaluation)[0]["bleu"] == pytest.approx(found["bleu"])
    return found


def test_two_chinese_lines_have_a_bleu():
    """With 13a each line is one word, and one letter makes it another one."""
    texts = [CHINESE[0], CHINESE[1].replace("吧", "了")]
    with_13a, chinese = evaluated(texts, CHINESE), evaluated(texts, CHINESE, bleu_tokenizer="zh")
    assert with_13a["bleu"] < 50 < chinese["bleu"]
    assert "tok:zh" in chinese["bleu_signature"]
    assert "tok:13a" in with_13a["bleu_signature"]


def test_equal_sources_are_noted_with_the_switch():
    pairs = [Example("a", "b"), Example("a", "c"), Example("d", "e")]
    (note,) = evaluation_notes(pairs, 2, EvaluationConfig())
    assert note == (
        "3 pairs have 2 different sources, and the pairs of each are one item with several references; "
        "--evaluation.merge-sources false evaluates every pair"
    )
    assert evaluation_notes(pairs, 3, EvaluationConfig(merge_sources=False)) == []


def test_a_tokenizer_whose_packages_are_missing_is_refused_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "MeCab", None)
    monkeypatch.setattr("s2s_jax.evaluate.config.bleu_scorer", bleu_scorer.__wrapped__)
    for module in [name for name in sys.modules if "tokenizer_ja_mecab" in name]:
        monkeypatch.delitem(sys.modules, module)
    experiment = tiny.experiment("evaluation.bleu_tokenizer=ja-mecab")
    with pytest.raises(ValueError) as refused:
        check_experiment(experiment)
    assert str(refused.value) == (
        "evaluation.bleu_tokenizer=ja-mecab needs packages that are not installed; pip install 'sacrebleu[ja]'."
    )
    with pytest.raises(ValueError, match="evaluation.bleu_tokenizer must be one of 13a, auto, char, .*, got 'ja'"):
        EvaluationConfig(bleu_tokenizer="ja")
