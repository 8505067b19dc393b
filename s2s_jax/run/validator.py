"""Validation during training: the loss over the whole split, metrics of translations over its first lines."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from s2s_jax.config import Experiment
from s2s_jax.decode.forced_decoding import PairScorer
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.evaluate.evaluation import gold_links, group_by_source, predictions_of
from s2s_jax.evaluate.metrics import METRICS, link_counts, measure
from s2s_jax.model.interface import Model, Params
from s2s_jax.text.batches import BatchPlan, Pairs
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.training import devices
from s2s_jax.training.loop import ValidationResult
from s2s_jax.training.objectives import plain_sums
from s2s_jax.training.trackers import Pixels

OF_LOSS = ("loss", "token_accuracy")  # measured at each validation
OF_TRANSLATIONS = ("exact_match", "bleu")  # measured at each validation with translations
PICTURED = 4  # translations whose alignments trackers show


def make_validator(
    experiment: Experiment,
    model: Model,
    tokenizers: PairTokenizer,
    examples: Sequence[Example],
    pairs: Pairs,
    mesh: Mesh,
    *,
    max_length: int,
) -> Callable[[Params], ValidationResult]:
    """The function that validates parameters; it computes the metrics above and validation.metric.

    Args:
        pairs: the examples, encoded.
        max_length: most tokens of a translation.
    """
    config, evaluation = experiment.validation, experiment.evaluation
    plan = BatchPlan(pairs, experiment.batch, seed=0)
    sums_of = jax.jit(functools.partial(plain_sums, model, chunk=experiment.loss.vocabulary_chunk))
    grouped = group_by_source(examples[: config.sentences], merge=evaluation.merge_sources)
    search = validation_search(experiment)
    options = devices.compiler_options(experiment.device)
    find = compiled_search(model, search, max_length, compiler_options=options)
    translator = Translator(find, tokenizers, search)
    metrics = dict.fromkeys([*OF_LOSS, *(OF_TRANSLATIONS if grouped.inputs else ()), config.metric])
    links_of = (
        _link_counter(model, tokenizers, examples, search) if "link_counts" in METRICS[config.metric].needs else None
    )

    pictured = bool(experiment.record.trackers) and experiment.model.attention.score != "none"

    def validate(params: Params) -> ValidationResult:
        params = devices.gathered(params, mesh)
        sums = [jax.device_get(sums_of(params, devices.put(batch, mesh))) for batch in plan.in_order()]
        totals = [sum(float(getattr(part, name)) for part in sums) for name in ("nats", "tokens", "correct")]
        params = devices.local(params)  # a search of few sentences on many devices would be the same search on each
        translations = list(translator.translate(params, grouped.inputs))
        predictions = predictions_of(
            translations or None,
            grouped.references,
            np.array([totals]),
            evaluation=evaluation,
            attends=experiment.model.attention.attends,
            links=None if links_of is None else links_of(params),
        )
        values = measure(predictions, list(metrics))
        sample, cost = _sample(translations, grouped.references), _cost(config.metric, values)
        pictures = functools.partial(_pictures, translations) if pictured else None
        return ValidationResult(values, sample, cost, pictures)

    return validate


def _cost(metric: str, values: dict[str, float | None]) -> float:
    """The value of a metric, negated where higher is better; infinite where it is undefined."""
    value = values[metric]
    if value is None:
        return math.inf
    return -value if METRICS[metric].higher_is_better else value


def validation_search(experiment: Experiment) -> SearchConfig:
    """Greedy search with the settings of `search` that hold for any method; or, with validation.beam, all of them.

    Raises:
        ValueError: the search has no beam, or its other settings do not admit this one.
    """
    search, beam = experiment.search, experiment.validation.beam
    if beam == 1:
        return SearchConfig(
            batch_size=search.batch_size,
            batch_tokens=search.batch_tokens,
            rules=search.rules,
            replace_unknown=search.replace_unknown,
        )
    if search.language_model:
        raise ValueError(
            f"validation.beam={beam} has no language model, and search.language_model={search.language_model} is one; "
            "set --validation.beam 1."
        )
    try:
        return dataclasses.replace(search, beam=beam)
    except ValueError as error:
        raise ValueError(f"validation.beam={beam} takes the other settings of search: {error}") from None


def _link_counter(
    model: Model, tokenizers: PairTokenizer, examples: Sequence[Example], search: SearchConfig
) -> Callable[[Params], np.ndarray]:
    """The function that counts links of forced alignments against gold ones.

    Raises:
        ValueError: no example has a gold alignment.
    """
    aligned = [example for example in examples if example.links is not None]
    if not aligned:
        raise ValueError(
            "validation.metric=aer needs gold alignments, and the validation data has none; choose another metric, or "
            "data with alignments."
        )
    scorer = PairScorer(model, tokenizers, search)
    gold = [gold_links(example, tokenizers.source, tokenizers.target) for example in aligned]

    def count_links(params: Params) -> np.ndarray:
        counts = link_counts([pair.alignment for pair in scorer.score(params, aligned)], gold)
        return counts.sum(0, keepdims=True)  # of the whole split, as the sums of forced decoding are

    return count_links


def _sample(translations: Sequence[Translation], references: Sequence[Sequence[str]]) -> list[str]:
    """The first translation beside its source and reference."""
    if not translations:
        return []
    first = translations[0]
    return [f"source:      {first.source}", f"translation: {first.text}", f"reference:   {references[0][0]}"]


def _pictures(translations: Sequence[Translation]) -> dict[str, Pixels]:
    """The alignments of the first translations that are not empty."""
    from s2s_jax.evaluate.plots import Picture, render, tile  # matplotlib is slow to import

    drawn = [
        Picture(each.source_tokens, hypothesis.tokens, np.asarray(hypothesis.alignment, np.float64))
        for each in translations
        for hypothesis in each.hypotheses[:1]
        if hypothesis.tokens
    ][:PICTURED]
    return {"alignment": tile([render(picture, side=6.0) for picture in drawn], columns=2)} if drawn else {}
