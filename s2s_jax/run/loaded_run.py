"""What can be asked of a trained run? To translate, to score, to be measured."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.decode.forced_decoding import PairScorer, ScoredPair
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.search import CompiledSearch, SearchConfig, compiled_search
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.evaluate.evaluation import error_of_alignments, evaluate_split, group_by_source, token_links
from s2s_jax.evaluate.metrics import link_counts
from s2s_jax.model.ensemble import ensemble
from s2s_jax.model.fusion import fused
from s2s_jax.model.interface import Model, Params
from s2s_jax.run.build import abstract_state, count, longest_answer, model_of
from s2s_jax.run.prepare import slots_of
from s2s_jax.run.run_dir import SIDES, read_experiment, read_json
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split
from s2s_jax.text.tokenizers import Tokenizer, load_tokenizer, tokenizer_fingerprint
from s2s_jax.train.checkpoint.average import newest_average
from s2s_jax.train.checkpoint.checkpoints import Checkpoints
from s2s_jax.train.optimizer import make_optimizer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run as its users see it. What was compiled for one question is kept for the next.

    Every method that searches takes settings of the search, such as `beam=5` or `rules={"min_length": 3}`, for this
    question alone; those left out are the run's.
    """

    directory: Path
    experiment: Experiment
    model: Model
    params: Params
    step: int
    tokenizers: dict[str, Tokenizer]
    facts: dict[str, Any]
    refused: list[str]  # checkpoints that were damaged and passed over
    averaged: tuple[int, ...] = ()  # the steps whose parameters these are the mean of; () where they are one step's
    translators: dict[SearchConfig, Translator] = dataclasses.field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<Run {self.directory}: step {self.step:,}, {count(self.params):,} parameters>"

    def translate(self, lines: Iterable[str | ConstrainedLine], **search: Any) -> list[Translation]:
        """A translation for each line, in order; `Wanted` says of a line what its translation must keep to.

        Raises:
            ValueError: there is no such setting of the search, or it cannot have this value.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be several, got one text; put it in a list: [text].")
        return list(self.stream(lines, **search))

    def stream(
        self, lines: Iterable[str | ConstrainedLine], *, window: int = 0, **search: Any
    ) -> Iterator[Translation]:
        """The same, as they come: neither lines nor translations are held longer than they must.

        Args:
            window: lines that are read before the first of them is answered; 0 for as many as pay.
        """
        return self.translator(**search).translate(self.params, lines, window=window)

    def score(self, pairs: Iterable[tuple[str, str] | Example]) -> Iterator[ScoredPair]:
        """Log-probability and alignment of (source, target) pairs, in order, as they come."""
        examples = (pair if isinstance(pair, Example) else Example(*pair) for pair in pairs)
        return self._scorer.score(self.params, examples)

    def evaluate(self, split: str = "test", **search: Any) -> dict[str, Any]:
        """All numbers of a split of the run's data."""
        examples, _ = read_split(self.experiment.data, split)
        items = group_by_source(examples)
        translations = self.translate(items.sources, **search)
        scored = list(self.score(examples))
        judged, gold = self._gold_links(scored)
        links = link_counts([pair.alignment for pair in judged], gold) if judged else None
        return evaluate_split(translations, items, scored, unit=self.experiment.evaluation.unit, links=links)

    def alignment_error(self, pairs: Sequence[ScoredPair]) -> float | None:
        """AER of forced alignments where gold ones are known and the model attends at all."""
        judged, gold = self._gold_links(pairs)
        return error_of_alignments([pair.alignment for pair in judged], gold) if judged else None

    def _gold_links(self, pairs: Sequence[ScoredPair]) -> tuple[list[ScoredPair], list[set[tuple[int, int]]]]:
        """The pairs with a gold alignment, and its links; none where the model does not attend."""
        judged = [pair for pair in pairs if pair.example.links is not None]
        if self.experiment.model.attention.score == "none":
            judged = []
        return judged, [token_links(pair.example, **self.tokenizers) for pair in judged]

    @property
    def max_length(self) -> int:
        """The bound on a translation's length, where search.max_length sets none."""
        return longest_answer(self.facts)

    @functools.cached_property
    def pair(self) -> PairTokenizer:
        """Both tokenizers, and between them a sentence's own words."""
        return PairTokenizer(**self.tokenizers, slots=slots_of(self.experiment))

    @functools.cached_property
    def _scorer(self) -> PairScorer:
        return PairScorer(self.model, self.pair, self.experiment.search)

    def translator(self, **search: Any) -> Translator:
        """The search that the settings ask for, compiled at most once."""
        asked = self.search(**search)
        if asked not in self.translators:
            self.translators[asked] = Translator(self._find(asked), self.pair, asked)
        return self.translators[asked]

    def _find(self, search: SearchConfig) -> CompiledSearch:
        longest = search.max_length or self.max_length
        if not search.language_model:
            return compiled_search(self.model, search, longest)
        language = self._language(search.language_model)
        find = compiled_search(fused(self.model, language.model, weight=search.language_weight), search, longest)
        return lambda params, *given, **wanted: find((params, language.params), *given, **wanted)

    def _language(self, directory: str) -> "Run":
        """A language model that says the same tokens."""
        if slots_of(self.experiment):
            raise ValueError(
                f"search.language_model={directory} knows no word that a model copies "
                f"(model.decoder.copy={self.experiment.model.decoder.copy}); leave it out."
            )
        language = load(directory)
        _check_same_tokenizer(self, language, "target", of=f"search.language_model={directory}")
        return language

    def search(self, **search: Any) -> SearchConfig:
        """The run's settings of the search, with these changed."""
        asked = configs.with_settings(self.experiment, dict(_named(search, "search."))).search
        if asked.replace_unknown and self.experiment.model.attention.score == "none":
            raise ValueError(
                "search.replace_unknown needs to know where the model looks, and this one has no attention "
                "(model.attention.score=none); leave it out."
            )
        return asked


def _named(values: Mapping[str, Any], group: str) -> Iterator[tuple[str, Any]]:
    """Each setting by its dotted name; a mapping, or a config, stands for settings of a group."""
    for name, value in values.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if isinstance(value, Mapping):
            yield from _named(value, f"{group}{name}.")
        else:
            yield group + name, value


def load(
    directory: str | Path,
    *,
    changes: Sequence[str] = (),
    average: int = 0,
    ensemble: Sequence[str | Path] = (),
    ensemble_average: str = "log-linear",
) -> Run:
    """A trained run: its best checkpoint, or its newest where none was validated.

    Args:
        changes: overrides of settings that do not change the model, such as `search.beam=5`.
        average: take the mean of the parameters of so many of the newest checkpoints instead.
        beside: other runs that speak together with this one, an ensemble; settings and data are the first one's.
        mixing: how they do: log-linear, by the geometric mean of their probabilities, or linear.

    Raises:
        FileNotFoundError, ValueError: there is no run, or it does not fit together.
        CheckpointError: no checkpoint of it is whole, or one that is to be averaged is not.
    """
    if ensemble:
        first = load(directory, changes=changes, average=average)
        return _combine(first, [(str(one), load(one, average=average)) for one in ensemble], ensemble_average)
    directory = Path(directory)
    experiment = read_experiment(directory)
    changed = configs.override(experiment, *changes)
    facts = read_json(directory / "facts.json")
    tokenizers = {side: load_tokenizer(directory / f"{side}.tokenizer.json") for side in SIDES}
    for side in SIDES:
        _check_fingerprint(directory, side, tokenizer_fingerprint(tokenizers[side]), facts[f"{side}_tokenizer"])
    model = model_of(experiment, tokenizers)
    example = abstract_state(experiment, model, make_optimizer(experiment.optimizer, experiment.steps))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        if average:
            params, averaged = newest_average(checkpoints, example, average)
            step = averaged[-1]
        else:
            restored = checkpoints.restore(example, best=True)
            params, averaged, step = restored.tree.evaluation_params, (), restored.step
        refused = list(checkpoints.refused)
    return Run(
        directory=directory,
        experiment=changed,
        model=model,
        params=params,
        step=step,
        tokenizers=tokenizers,
        facts=facts,
        refused=refused,
        averaged=averaged,
    )


def _combine(first: Run, others: Sequence[tuple[str, Run]], mixing: str) -> Run:
    """Several runs as one.

    Raises:
        ValueError: their tokens are not the same; the run is named.
    """
    for name, other in others:
        for side in SIDES:
            _check_same_tokenizer(first, other, side, of=name)
        here, there = (slots_of(run.experiment) for run in (first, other))
        if here != there:
            raise ValueError(
                f"{name} copies words by {there} slots (model.decoder.copy_slots), {here} are wanted; runs that speak "
                "together must copy alike."
            )
    runs = [first, *(other for _, other in others)]
    return dataclasses.replace(
        first,
        model=ensemble([run.model for run in runs], mixing=mixing),
        params=[run.params for run in runs],
        facts={**first.facts, "longest_target": max(run.facts["longest_target"] for run in runs)},
        refused=[line for run in runs for line in run.refused],
    )


def _check_same_tokenizer(run: Run, other: Run, side: str, *, of: str) -> None:
    here, there = (tokenizer_fingerprint(one.tokenizers[side])[:12] for one in (run, other))
    if here != there:
        raise ValueError(
            f"{of} has another {side} tokenizer (sha256 {there}, {here} is wanted); train it with tokenizer.{side}.file, "
            f"the {side}.tokenizer.json of the first run."
        )


def _check_fingerprint(directory: Path, side: str, now: str, then: str) -> None:
    if now != then:
        raise ValueError(
            f"{directory}/{side}.tokenizer.json is not the one the run was trained with (sha256 {now[:12]}, the run "
            f"has {then[:12]}); restore it from a copy."
        )
