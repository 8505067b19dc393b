"""A trained run that is loaded: it translates, scores and is evaluated."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.decode.batching import Ready
from s2s_jax.decode.forced_decoding import PairScorer, ScoredPair
from s2s_jax.decode.lexical_constraints import ConstrainedLine, InputLine
from s2s_jax.decode.search import CompiledSearch, SearchConfig, compiled_search
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.evaluate.alignment import GoldLinks
from s2s_jax.evaluate.config import evaluation_notes
from s2s_jax.evaluate.evaluation import aer_links, error_of_alignments, evaluate_split, gold_links, group_by_source
from s2s_jax.evaluate.metrics import link_counts
from s2s_jax.evaluate.states import EncoderStates, PairStates, StateReader
from s2s_jax.model.ensemble import ensemble as ensemble_of
from s2s_jax.model.fusion import fuse
from s2s_jax.model.interface import Model, Params
from s2s_jax.run.batches import default_max_length
from s2s_jax.run.identity import check_one_run
from s2s_jax.run.model import count_parameters, make_model, tokenizer_options
from s2s_jax.run.run_dir import CHECKPOINTS, SIDES, read_experiment, read_facts
from s2s_jax.run.state import abstract_state
from s2s_jax.run.tokenizers import load_tokenizers
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.pairs import example_of
from s2s_jax.text.sources import read_split
from s2s_jax.text.tokenizers import Tokenizer, tokenizer_fingerprint
from s2s_jax.training import devices
from s2s_jax.training.checkpoint.average import newest_average
from s2s_jax.training.checkpoint.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A trained run. Compiled programs are kept from one call to the next.

    Every method that searches takes settings of the search, such as `beam=5` or `rules={"min_length": 3}`, for this
    call alone; those left out are the run's.
    """

    directory: Path
    experiment: Experiment
    model: Model
    params: Params
    step: int
    pair: PairTokenizer  # the tokenizers of both sides
    facts: dict[str, Any]
    refused: list[str]  # one line per damaged checkpoint that was skipped
    averaged: tuple[int, ...] = ()  # the steps whose parameters were averaged; () where they are those of one step
    translators: dict[SearchConfig, Translator] = dataclasses.field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<Run {self.directory}: step {self.step:,}, {count_parameters(self.params):,} parameters>"

    def translate(self, lines: Iterable[InputLine], **search: Any) -> list[Translation]:
        """One translation per line, in order; a line with features (data.features) is a tuple of source and features.

        A `ConstrainedLine` has a prefix or phrases that must occur, and may have features.

        Raises:
            ValueError: there is no such setting of the search, or its value is not allowed.
            TypeError: one text instead of several lines.
        """
        return list(self.stream(_check_several(lines), **search))

    def stream(
        self,
        lines: Iterable[InputLine],
        *,
        window: int = 0,
        ready: Ready | None = None,
        **search: Any,
    ) -> Iterator[Translation]:
        """As `translate`, one after another: memory does not grow with the number of lines.

        Args:
            window: most lines that are read before the first translation is returned; 0 for 16 full batches.
            ready: whether another line comes at once; where none does, those that were read are translated.
        """
        return self.translator(**search).translate(self.params, lines, window=window, ready=ready)

    def score(
        self, pairs: Iterable[tuple[str, ...] | Example], *, window: int = 0, ready: Ready | None = None
    ) -> Iterator[ScoredPair]:
        """Log-probability, alignment and search score of (source, target, features...), in order, one after another.

        Every setting counts that changes the search score of a given target: length normalization, coverage,
        repetition penalty and language model. The others decide which targets a search finds.

        Args:
            window, ready: as in `stream`.
        """
        examples = (pair if isinstance(pair, Example) else example_of(pair) for pair in pairs)
        return self.scorer.score(self.params, examples, window=window, ready=ready)

    def encode(self, lines: Iterable[InputLine]) -> list[EncoderStates]:
        """What the encoder makes of each line: the outputs of its layers, and the decoder's first state.

        A line with features is a tuple, as in `translate`.

        Raises:
            TypeError: one text instead of several lines.
        """
        _check_several(lines)
        inputs = map(ConstrainedLine.of, lines)
        examples = (Example(one.line, "", features=one.features) for one in inputs)
        read = self._state_reader.score(self.params, examples)
        return [
            EncoderStates(one.example.source, one.source_tokens, one.encoder, one.start, one.unread) for one in read
        ]

    def states(self, lines: Iterable[InputLine | Example], **search: Any) -> list[PairStates]:
        """The states of encoder and decoder, gates, attention and contexts, in order, as arrays without padding.

        For a (source, target, features...) tuple they are those while the model is made to write the target; for a line
        alone (with features: a `ConstrainedLine`), while it writes its own best translation.

        Raises:
            ValueError, TypeError: as `translate`.
        """
        given = list(_check_several(lines))
        alone = (str, ConstrainedLine)
        own = iter(self.translate([line for line in given if isinstance(line, alone)], **search))

        def example(one: InputLine | Example) -> Example:
            if isinstance(one, alone):
                line = ConstrainedLine.of(one)
                return Example(line.line, next(own).text, features=line.features)
            return one if isinstance(one, Example) else example_of(one)

        return list(self._state_reader.score(self.params, map(example, given)))

    def evaluate(self, split: str = "test", **search: Any) -> dict[str, Any]:
        """All numbers of a split of the run's data, and as `split` which one was read (`DataConfig.split_used`).

        `notes` is there where something about the numbers needs to be known.
        """
        examples, _ = read_split(self.experiment.data, split)
        evaluation = self.experiment.evaluation
        evaluation.check_installed()
        grouped = group_by_source(examples, merge=evaluation.merge_sources)
        translations = self.translate(grouped.inputs, **search)
        scored = list(self._scorer.score(self.params, examples))
        aligned, gold = self._gold_links(scored)
        links = link_counts([pair.alignment for pair in aligned], gold) if aligned else None
        attends = self.experiment.model.attention.attends
        metrics = evaluate_split(translations, grouped, scored, evaluation=evaluation, attends=attends, links=links)
        if aligned:
            metrics["aer_links"] = aer_links([pair.example for pair in aligned])
        used = self.experiment.data.split_used(split)
        notes = evaluation_notes(examples, len(grouped.inputs), evaluation)
        if used != split:
            notes = [f"no {split} data is named (data.{split}), so the {used} data is evaluated", *notes]
        return {"split": used, **metrics, **({"notes": notes} if notes else {})}

    def alignment_error(self, pairs: Sequence[ScoredPair]) -> float | None:
        """AER of forced alignments; None without gold alignments or without attention."""
        aligned, gold = self._gold_links(pairs)
        return error_of_alignments([pair.alignment for pair in aligned], gold) if aligned else None

    def _gold_links(self, pairs: Sequence[ScoredPair]) -> tuple[list[ScoredPair], list[GoldLinks]]:
        """The pairs with a gold alignment, and its links; none for a model without attention."""
        aligned = [pair for pair in pairs if pair.example.links is not None]
        if not self.experiment.model.attention.attends:
            aligned = []
        return aligned, [gold_links(pair.example, self.pair.source, self.pair.target) for pair in aligned]

    @property
    def max_length(self) -> int:
        """The bound on a translation's length where search.max_length is 0."""
        return default_max_length(self.facts)

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """The tokenizers by side: source, target, and feature1, ... where there are features."""
        return self.pair.sides

    @functools.cached_property
    def _scorer(self) -> PairScorer:
        return PairScorer(self.model, self.pair, self.experiment.search)

    @functools.cached_property
    def _state_reader(self) -> StateReader:
        return StateReader(self.model, self.pair, self.experiment.search)

    @functools.cached_property
    def scorer(self) -> PairScorer:
        """The scorer whose scores are those of the search, with its language model."""
        search = self.search()
        if not search.language_model:
            return self._scorer
        language = self._language_model(search.language_model)
        return PairScorer(self.model, self.pair, search, (language.model, language.params))

    def translator(self, **search: Any) -> Translator:
        """The translator for settings of the search, compiled at most once."""
        config = self.search(**search)
        if config not in self.translators:
            self.translators[config] = Translator(self._find(config), self.pair, config)
        return self.translators[config]

    def _find(self, search: SearchConfig) -> CompiledSearch:
        longest, options = search.max_length or self.max_length, devices.compiler_options(self.experiment.device)
        if not search.language_model:
            return compiled_search(self.model, search, longest, compiler_options=options)
        language = self._language_model(search.language_model)
        fused = fuse(self.model, language.model, weight=search.language_weight)
        find = compiled_search(fused, search, longest, compiler_options=options)
        return lambda params, *inputs, **limits: find((params, language.params), *inputs, **limits)

    def _language_model(self, directory: str) -> "Run":
        """A language model with the same target tokens."""
        if self.pair.slots:
            raise ValueError(
                f"search.language_model={directory} has no probabilities for words that a model copies "
                f"(model.decoder.copy={self.experiment.model.decoder.copy}); leave it out."
            )
        language = load(directory)
        _check_same_tokenizer(self, language, "target", of=f"search.language_model={directory}")
        return language

    def search(self, **search: Any) -> SearchConfig:
        """The run's settings of the search, with these changed."""
        config = configs.with_settings(self.experiment, dict(_named(search, "search."))).search
        attention = self.experiment.model.attention
        if config.replace_unknown and not attention.attends:
            raise ValueError(
                f"search.replace_unknown needs attention weights, and model.attention.score={attention.score} has "
                "none; leave it out."
            )
        return config


def _check_several(lines: Any) -> Any:
    if isinstance(lines, str):
        raise TypeError("lines must be several, got one text; put it in a list: [text].")
    return lines


def _named(values: Mapping[str, Any], group: str) -> Iterator[tuple[str, Any]]:
    """Each setting by its dotted name; a mapping or a config is a group of settings."""
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
    step: int | Literal["best", "latest"] = "best",
    average: int = 0,
    ensemble: Sequence[str | Path] = (),
    ensemble_average: str = "log-linear",
) -> Run:
    """A trained run: its best checkpoint, or its newest where none was validated.

    Nothing is executed that the run names, and no setting of the process is changed.

    Args:
        changes: overrides of settings that do not change the model, such as `search.beam=5`.
        step: the checkpoint of this step, the best or the latest one.
        average: take the mean of the parameters of this many of the newest checkpoints instead.
        ensemble: other runs that translate together with this one; settings and data are those of the first.
        ensemble_average: log-linear, the geometric mean of their probabilities, or linear, the arithmetic one.

    Raises:
        FileNotFoundError, ValueError: there is no run, it names code that has not been imported, or its parts do not
            belong together.
        CheckpointError: no checkpoint of it is whole, or one that is to be averaged is not.
    """
    if ensemble:
        first = load(directory, changes=changes, step=step, average=average)
        others = [(str(other), load(other, average=average)) for other in ensemble]
        return _combine(first, others, ensemble_average)
    directory = Path(directory)
    experiment = read_experiment(directory)
    changed = configs.override(experiment, *changes)
    facts = read_facts(directory)
    pair = load_tokenizers(
        directory,
        experiment.tokenizer,
        facts,
        features=len(experiment.data.features),
        **tokenizer_options(experiment.model),
    )
    model = make_model(experiment.model, pair)
    example = abstract_state(model, experiment.optimizer, steps=experiment.steps)
    with Checkpoints(directory / CHECKPOINTS) as checkpoints:
        check_one_run(checkpoints, experiment, facts, directory)
        if average:
            params, averaged = newest_average(checkpoints, example, average)
            found = averaged[-1]
        else:
            restored = checkpoints.restore(example, step=step if isinstance(step, int) else None, best=step == "best")
            params, averaged, found = restored.tree.evaluation_params, (), restored.step
        refused = list(checkpoints.refused)
    return Run(
        directory=directory,
        experiment=changed,
        model=model,
        params=params,
        step=found,
        pair=pair,
        facts=facts,
        refused=refused,
        averaged=averaged,
    )


def _combine(first: Run, others: Sequence[tuple[str, Run]], ensemble_average: str) -> Run:
    """Several runs as one.

    Raises:
        ValueError: their tokens are not the same; the run is named.
    """
    for name, other in others:
        if (count := len(other.pair.features.tokenizers)) != len(first.pair.features.tokenizers):
            raise ValueError(
                f"{name} has {count} features (data.features), the first run {len(first.pair.features.tokenizers)}; "
                "the runs of an ensemble must read the same ones."
            )
        for side in first.pair.sides:
            _check_same_tokenizer(first, other, side, of=name)
        if other.pair.slots != first.pair.slots:
            raise ValueError(
                f"{name} copies words by {other.pair.slots} slots (model.decoder.copy_slots), the first run by "
                f"{first.pair.slots}; the runs of an ensemble must have the same number."
            )
    runs = [first, *(other for _, other in others)]
    return dataclasses.replace(
        first,
        model=ensemble_of([run.model for run in runs], average=ensemble_average),
        params=[run.params for run in runs],
        facts={**first.facts, "longest_target": max(run.facts["longest_target"] for run in runs)},
        refused=[line for run in runs for line in run.refused],
    )


def _check_same_tokenizer(run: Run, other: Run, side: str, *, of: str) -> None:
    if run.pair.reverses_target != other.pair.reverses_target:
        raise ValueError(
            f"{of} writes targets in the other direction (tokenizer.reverse_target="
            f"{str(other.pair.reverses_target).lower()}); take runs of one direction."
        )
    expected, found = (tokenizer_fingerprint(each.tokenizers[side])[:12] for each in (run, other))
    if expected != found:
        group = side if side in SIDES else "features"
        raise ValueError(
            f"{of} has another {side} tokenizer (sha256 {found}, {expected} is needed); train it with "
            f"tokenizer.{group}.file, the {side}.tokenizer.json of the first run."
        )
