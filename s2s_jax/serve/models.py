"""The models of a server: trained or exported runs, with the programs that it may run."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from s2s_jax.decode.batching import Shape
from s2s_jax.decode.forced_decoding import PairIds, PairScorer
from s2s_jax.decode.lexical_constraints import (
    LEAST_PHRASE,
    LEAST_PHRASES,
    LEAST_PREFIX,
    ConstrainedLine,
    forms_per_phrase,
)
from s2s_jax.decode.search import SearchConfig, check_holds_phrases
from s2s_jax.decode.translate import EncodedLine, Translation, Translator
from s2s_jax.export.exported import Exported, load_exported
from s2s_jax.export.manifest import is_exported
from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.errors import RequestError
from s2s_jax.text.example import Example
from s2s_jax.text.files import is_blank

if TYPE_CHECKING:
    from s2s_jax.explore.explorer import Explorer

NAMED_SETTINGS = ("method", "beam")  # by which a request chooses among the searches


class Group(NamedTuple):
    """What items of one batch have in common; it decides the compiled program."""

    program: "Program"
    shape: Shape
    sizes: tuple[int, ...] = ()  # of the arrays of constraints


class Program(Protocol):
    """A search or a scorer, which computes batches of items of one group."""

    def compute(self, items: Sequence[Any]) -> list[Any]:
        """The result of each item."""
        ...

    def compile(self, shape: Shape, sizes: tuple[int, ...]) -> None:
        """Compile the program of a group."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """A search of a model."""

    translator: Translator
    params: Any
    sizes: list[tuple[int, ...]]  # of the constraints that it was compiled for

    @property
    def config(self) -> SearchConfig:
        """Its settings."""
        return self.translator.config

    def compute(self, items: Sequence[tuple[EncodedLine, int]]) -> list[Translation]:
        """The translations of lines with their numbers."""
        lines, numbers = zip(*items, strict=True)
        return self.translator.translate_encoded(self.params, lines, numbers)

    def compile(self, shape: Shape, sizes: tuple[int, ...]) -> None:
        """Compile the program of a group."""
        self.translator.compile(self.params, shape, sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class Scoring:
    """Forced decoding with a model."""

    scorer: PairScorer
    params: Any

    def compute(self, items: Sequence[tuple[Example, PairIds]]) -> list[Any]:
        """The scored pairs."""
        examples, ids = zip(*items, strict=True)
        return self.scorer.score_encoded(self.params, examples, ids)

    def compile(self, shape: Shape, sizes: tuple[int, ...]) -> None:
        """Compile the program of a group."""
        self.scorer.compile(self.params, shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with the programs that it is served with."""

    name: str
    searches: list[Search]
    scoring: Scoring | None  # None for an exported run, which has no such program
    features: int  # per line
    attends: bool
    max_tokens: int
    about: dict[str, Any]
    explorer: "Explorer | None" = None  # None for an exported run, and for one with a language model

    def search(self, *, method: str, beam: int, n_best: int) -> Search:
        """The first search with these settings, empty and 0 for any.

        Raises:
            RequestError: there is none, or it does not find so many hypotheses.
        """
        wanted = {name: value for name, value in (("method", method), ("beam", beam)) if value}
        for search in self.searches:
            if all(getattr(search.config, name) == value for name, value in wanted.items()):
                break
        else:
            named = ", ".join(f"{name}={value}" for name, value in wanted.items())
            known = "; ".join(_named(search.config) for search in self.searches)
            raise RequestError(
                "not_served", f"{self.name} is not served with {named}, but with {known}; see s2s serve --also"
            )
        if not 1 <= n_best <= search.config.hypotheses:
            raise RequestError(
                "bad_request",
                f"n_best must be between 1 and the {search.config.hypotheses} of the search, got {n_best}",
            )
        return search

    def encode_line(self, search: Search, line: ConstrainedLine) -> tuple[EncodedLine, Group | None]:
        """A line as a search reads it, with its group; None for a blank line.

        Raises:
            RequestError: it is too long, has the wrong features, or constraints that are not served or cannot be met.
        """
        try:
            search.translator.check(line)
            encoded = search.translator.encode(line)
        except ValueError as error:
            raise RequestError("bad_line", str(error)) from None
        if not encoded.ids:
            return encoded, None
        if encoded.sizes not in search.sizes:
            raise RequestError("not_served", self._why_not(search, encoded.sizes))
        return encoded, Group(search, self._shape(search.config, encoded.lengths), encoded.sizes)

    def encode_pair(self, pair: Example) -> tuple[PairIds, Group]:
        """A pair as the scorer reads it, with its group.

        Raises:
            RequestError: it is too long, has a blank source or the wrong features, or the model cannot score.
        """
        if self.scoring is None:
            raise RequestError(
                "not_served", f"{self.name} is an exported run, which only translates; serve the run itself"
            )
        if is_blank(pair.source):
            raise RequestError("bad_line", "a pair has a blank source, which no model reads; leave it out")
        try:
            ids = self.scoring.scorer.encode(pair)
        except ValueError as error:
            raise RequestError("bad_line", str(error)) from None
        return ids, Group(self.scoring, self._shape(self.scoring.scorer.search, ids.lengths))

    def groups(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Every group that there is, for these padded lengths."""
        for length in lengths:
            if length <= self.max_tokens:
                for search in self.searches:
                    for sizes in search.sizes:
                        yield Group(search, self._shape(search.config, (length,) * (1 + self.features)), sizes)
                if self.scoring is not None:
                    lengths_of = (length,) * (2 + self.features)
                    yield Group(self.scoring, self._shape(self.scoring.scorer.search, lengths_of))

    def _shape(self, config: SearchConfig, lengths: tuple[int, ...]) -> Shape:
        shape = config.batch_shape(lengths)
        if shape is None or max(lengths) > self.max_tokens:
            raise RequestError(
                "line_too_long",
                f"a line has {max(lengths):,} tokens, the end token included, and {self.max_tokens:,} are served; cut "
                "it into sentences, or start s2s serve with a larger --max-tokens.",
            )
        return shape

    def _why_not(self, search: Search, sizes: tuple[int, ...]) -> str:
        if self.scoring is None:
            return f"{self.name} is an exported run, which takes no prefix and no phrases; serve the run itself"
        if len(search.sizes) == 1:
            return "no prefix and no phrases are served by this search; start s2s serve with --constraints"
        bounds = f"{LEAST_PREFIX} tokens of a prefix, {LEAST_PHRASES} phrases, {LEAST_PHRASE} tokens of a phrase"
        return f"the constraints of a line are larger than those that are served: at most {bounds}"


def load_model(
    directory: str, name: str, config: ServeConfig, *, changes: Sequence[str] = (), also: Sequence[dict[str, Any]] = ()
) -> ServedModel:
    """A run or an exported run, to be served.

    Args:
        changes: overrides of settings, such as `search.beam=5`; an exported run has the searches that it was exported
            with.
        also: settings of further searches, likewise.

    Raises:
        ValueError: as `load`, or a search is not there.
    """
    if is_exported(Path(directory)):
        return _exported_model(load_exported(directory), name, config)
    from s2s_jax.explore.explorer import Explorer
    from s2s_jax.run import load  # only now: an exported run is served without flax

    invariant = ["search.batch_invariant=true", f"search.batch_size={config.rows}"]
    run = load(directory, changes=[*changes, *invariant])
    translators = [run.translator(), *(run.translator(**settings) for settings in also)]
    searches = [Search(each, run.params, _sizes(each, config)) for each in translators]
    model = run.experiment.model
    about = {"step": run.step, "exported": False, "attention": model.attention.score}
    return ServedModel(
        name=name,
        searches=searches,
        scoring=Scoring(run.scorer, run.params),
        features=len(run.experiment.data.features),
        attends=model.attention.attends,
        max_tokens=max(config.lengths),
        about=about,
        explorer=None if run.experiment.search.language_model else Explorer(run),
    )


def _exported_model(exported: Exported, name: str, config: ServeConfig) -> ServedModel:
    searches = []
    for _, translator in sorted(exported.translators.items(), reverse=True):
        settings = dataclasses.replace(translator.config, batch_invariant=True, batch_size=config.rows)
        searches.append(Search(Translator(translator.search, translator.pair, settings), exported.params, [()]))
    most = exported.manifest["source_tokens"]["most"] or max(config.lengths)
    score = exported.manifest["config"]["model"]["attention"]["score"]
    return ServedModel(
        name=name,
        searches=searches,
        scoring=None,
        features=0,
        attends=score != "none",
        max_tokens=max(length for length in (0, *config.lengths) if length <= most),
        about={"step": exported.manifest.get("step"), "exported": True, "attention": score},
    )


def _sizes(translator: Translator, config: ServeConfig) -> list[tuple[int, ...]]:
    """The sizes of constraints that a search is served with: none; a prefix; phrases; both."""
    if not config.constraints or translator.pair.reverses_target:
        return [()]
    phrases = (LEAST_PHRASES, forms_per_phrase(translator.pair), LEAST_PHRASE)
    try:
        check_holds_phrases(translator.config)
    except ValueError:
        return [(), (LEAST_PREFIX,)]
    return [(), *(sizes for sizes in itertools.chain([(LEAST_PREFIX,)], ((p, *phrases) for p in (0, LEAST_PREFIX))))]


def _named(config: SearchConfig) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in NAMED_SETTINGS)
