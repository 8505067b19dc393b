"""The settings of a search, the table of searches, and the compiled search that a translator calls."""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Int, Key

from s2s_jax.decode.autoregressive import greedy
from s2s_jax.decode.batching import Shape, invariant_shape
from s2s_jax.decode.beam.constrained import constrained
from s2s_jax.decode.beam.engine import StoppingName, beam
from s2s_jax.decode.beam.phrases import PhraseTokens
from s2s_jax.decode.beam.stochastic import stochastic
from s2s_jax.decode.length_normalization import HypothesisScore, LengthNormalizationName
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.mbr import MBR_METRICS, MbrMetricName
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.sampling import Sampling, row_keys, sample
from s2s_jax.model.interface import Model, Params, Source
from s2s_jax.validation import at_least, check_fields, one_of

SearchName = Literal["beam", "sample", "stochastic"]
# settings that only some of the searches in the package read; a search of the user's may read any of them
METHOD_SETTINGS = {
    "samples": ("sample",),
    "sampling": ("sample",),
    "beam": ("beam", "stochastic"),
    "stopping": ("beam",),
    "n_best": ("beam",),
    "groups": ("beam",),
    "sibling_penalty": ("beam",),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How a translation is searched for."""

    method: SearchName = "beam"
    """beam (greedy search where search.beam is 1); sample; or stochastic, a beam that samples without replacement."""
    beam: int = 1
    """Hypotheses kept per line; 1 is greedy search."""
    length_normalization: LengthNormalizationName = "gnmt"
    """Score of a hypothesis of log-probability p: gnmt p / ((5 + length) / 6)^a, average p / length^a, reward
    p + a length.
    """
    length_penalty: float = 0.6
    """The a of search.length_normalization; 0 for the log-probability alone."""
    coverage_penalty: float = 0.0
    """Times sum of log min(attention, 1) over the source, in the score. Wu et al. 2016, arXiv:1609.08144, eq. 14."""
    stopping: StoppingName = "full"
    """When a beam stops: full, when search.beam hypotheses have ended; bounded, when no open one can become better;
    never, when none is open.
    """
    n_best: int = 0
    """Best hypotheses per group that stopping=bounded must be sure of and that are returned; 0 for all."""
    groups: int = 1
    """Parts of a beam that choose one after another, to differ. Vijayakumar et al. 2018, arXiv:1610.02424."""
    group_penalty: float = 0.0
    """Cost of a token per slot of the preceding groups that chose it in the same step, nats."""
    sibling_penalty: float = 0.0
    """Cost per better continuation of the same hypothesis, nats. Li et al. 2016, arXiv:1611.08562."""
    samples: int = 1
    """Method sample: samples per line."""
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    """Method sample: which tokens are drawn from."""
    seed: int = 0
    """Methods sample and stochastic: the random seed; the number of a line is folded into it."""
    mbr_metric: MbrMetricName = "none"
    """Which hypothesis of a line comes first: none, the one with the best score; exact, chrf or bleu, the one with the
    highest expected value of that metric against all of them (minimum Bayes risk).
    """
    rules: LogitsRules = dataclasses.field(default_factory=LogitsRules)
    """Which tokens are allowed at each step."""
    language_model: str = ""
    """Directory of a run trained on targets without sources (data.train=lines:FILE), for shallow fusion."""
    language_weight: float = 0.0
    """Weight of its log-probability, added to each token's. Gulcehre et al. 2015, arXiv:1503.03535, 4.1."""
    max_length: int = 0
    """Most tokens of a translation, the end token included; 0 for 1.2 x the longest training target + 10."""
    max_source: int = 4096
    """Most tokens of a line that are read, the end token included; a longer line is cut off; 0 for no bound."""
    batch_size: int = 64
    """Most source lines decoded together."""
    batch_tokens: int = 16_384
    """Most source positions decoded together, padding included; a longer line is decoded alone."""
    batch_invariant: bool = False
    """Every batch has search.batch_size rows and one padded length, so that no bit of a line's result depends on which
    lines are beside it; slower for few lines. `s2s serve` translates so.
    """
    replace_unknown: bool = False
    """Each unknown token of a translation is replaced by the source word with the largest attention weight."""

    def __post_init__(self):
        check_fields(self, "search")
        one_of("search.method", self.method, SEARCHES)
        one_of("search.stopping", self.stopping, typing.get_args(StoppingName))
        one_of("search.mbr_metric", self.mbr_metric, ("none", *MBR_METRICS))
        for name in ("beam", "groups", "samples", "batch_size", "batch_tokens"):
            at_least(f"search.{name}", getattr(self, name), 1)
        for name in ("n_best", "group_penalty", "sibling_penalty", "language_weight"):
            at_least(f"search.{name}", getattr(self, name), 0)
        for name in ("seed", "max_length", "max_source"):
            at_least(f"search.{name}", getattr(self, name), 0)
        self.scoring()  # checks its own settings
        self._check_beam()
        self._check_lengths()
        self._check_method()

    @property
    def hypotheses(self) -> int:
        """Hypotheses returned per line."""
        if self.method == "sample":
            return self.samples
        return self.n_best * self.groups or self.beam

    @property
    def batching(self) -> dict[str, Any]:
        """The arguments of `plan_batches`."""
        return {"size": self.batch_size, "tokens": self.batch_tokens, "invariant": self.batch_invariant}

    def batch_shape(self, lengths: tuple[int, ...]) -> Shape | None:
        """The shape of the batch of a line, or pair, of these lengths; None where its neighbors have a say in it."""
        if not self.batch_invariant:
            return None
        return invariant_shape(lengths, size=self.batch_size, tokens=self.batch_tokens)

    def scoring(self) -> HypothesisScore:
        """The score that ranks hypotheses."""
        return HypothesisScore(
            name=self.length_normalization, strength=self.length_penalty, coverage=self.coverage_penalty
        )

    def _check_beam(self) -> None:
        if self.beam % self.groups:
            divisors = ", ".join(str(count) for count in range(1, self.beam + 1) if self.beam % count == 0)
            raise ValueError(
                f"search.groups must divide search.beam={self.beam}, got {self.groups}; take one of {divisors}."
            )
        if self.n_best > self.beam // self.groups:
            raise ValueError(
                f"search.n_best must be at most the {self.beam // self.groups} hypotheses of a beam (search.beam over "
                f"search.groups), got {self.n_best}; raise search.beam."
            )
        if self.group_penalty and self.groups == 1:
            raise ValueError(
                f"search.group_penalty={self.group_penalty} needs groups to differ, got search.groups=1; set "
                "search.groups to 2 or more."
            )

    def _check_lengths(self) -> None:
        least, most = self.rules.min_ratio, self.rules.max_ratio
        if most and least > most:
            raise ValueError(f"search.rules.min_ratio must be at most search.rules.max_ratio={most}, got {least}")
        if self.max_length and self.rules.min_length > self.max_length:
            raise ValueError(
                f"search.rules.min_length must be at most search.max_length={self.max_length}, got "
                f"{self.rules.min_length}"
            )

    def _check_method(self) -> None:
        if bool(self.language_model) != bool(self.language_weight):
            raise ValueError(
                f"search.language_model={self.language_model!r} and search.language_weight={self.language_weight} "
                "need each other; set both, such as a run's folder and 0.3, or neither."
            )
        for name, methods in METHOD_SETTINGS.items() if self.method in BUILT_IN else ():
            if self.method not in methods and getattr(self, name) != default_of(name):
                raise ValueError(
                    f"search.{name} is for search.method={' or '.join(methods)}, got search.method={self.method}; "
                    f"leave search.{name} out, or change the method."
                )
        if self.beam == 1 and self.method == "stochastic":
            raise ValueError(
                "search.method=stochastic needs more than one hypothesis, got search.beam=1; for one take "
                "search.method=sample."
            )


def default_of(name: str) -> Any:
    """The default of a field of SearchConfig."""
    field = SearchConfig.__dataclass_fields__[name]
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@runtime_checkable
class Search(Protocol):
    """A search: a function that jax traces, and an entry of `SEARCHES`."""

    def __call__(
        self,
        model: Model,
        params: Params,
        source: Source,
        *,
        config: SearchConfig,
        max_length: int,
        keys: Array,
        prefix: Array | None = None,
        compactions: int = 0,
    ) -> SearchResult:
        """The hypotheses of each sentence.

        Args:
            source: token ids [B, S], with those of features in a model that has some; a row of PAD is no sentence.
            config: the settings; those that a search does not read have no effect on it.
            max_length: most tokens of a hypothesis, the end token included.
            keys: a random key per sentence [B], from `search.seed` and the number of the line.
            prefix: the tokens that each hypothesis must begin with [B, P], PAD behind them; None for none.
            compactions: how often the batch may be reduced to its unfinished half; a search may ignore it.

        A search that also takes `phrases` (`PhraseTokens`) can hold given phrases.
        """
        ...


def beam_search(
    model: Model,
    params: Params,
    source: Source,
    *,
    config: SearchConfig,
    max_length: int,
    keys: Key[Array, " B"],
    prefix: Int[Array, "B P"] | None = None,
    phrases: PhraseTokens | None = None,
    compactions: int = 0,
) -> SearchResult:
    """Beam search; greedy search where the beam is 1; lexically constrained where there are phrases."""
    shared: dict[str, Any] = {"max_length": max_length, "scoring": config.scoring(), "rules": config.rules}
    shared |= {"prefix": prefix, "compactions": compactions}
    stops = {"width": config.beam, "stopping": config.stopping, "n_best": config.n_best or None}
    if phrases is not None:
        return constrained(model, params, source, phrases, **stops, **shared)
    if config.beam == 1 and config.stopping == "full":
        return greedy(model, params, source, **shared)
    diversity = {name: getattr(config, name) for name in ("groups", "group_penalty", "sibling_penalty")}
    return beam(model, params, source, **stops, **diversity, **shared)


def sample_search(
    model: Model,
    params: Params,
    source: Source,
    *,
    config: SearchConfig,
    max_length: int,
    keys: Key[Array, " B"],
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """`search.samples` independent samples per sentence."""
    return sample(
        model,
        params,
        source,
        keys,
        samples=config.samples,
        sampling=config.sampling,
        max_length=max_length,
        scoring=config.scoring(),
        rules=config.rules,
        prefix=prefix,
        compactions=compactions,
    )


def stochastic_search(
    model: Model,
    params: Params,
    source: Source,
    *,
    config: SearchConfig,
    max_length: int,
    keys: Key[Array, " B"],
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """`search.beam` different samples per sentence."""
    return stochastic(
        model,
        params,
        source,
        keys,
        width=config.beam,
        max_length=max_length,
        scoring=config.scoring(),
        rules=config.rules,
        prefix=prefix,
        compactions=compactions,
    )


SEARCHES: dict[str, Search] = {"beam": beam_search, "sample": sample_search, "stochastic": stochastic_search}
BUILT_IN = frozenset(SEARCHES)


@runtime_checkable
class CompiledSearch(Protocol):
    """A search of one model as one compiled program per shape of its arguments."""

    def __call__(
        self,
        params: Params,
        source: Any,
        numbers: Any,
        *,
        prefix: Any = None,
        phrases: Any = None,
        compactions: int = 0,
    ) -> SearchResult:
        """The hypotheses of each sentence; `numbers` [B] are the numbers of the lines, for the random keys."""
        ...


def compiled_search(
    model: Model, config: SearchConfig, max_length: int, *, compiler_options: Mapping[str, Any] | None = None
) -> CompiledSearch:
    """The search that the settings name, compiled once for each source shape, and each shape of prefix and phrases.

    Args:
        compiler_options: of XLA, for this program alone.
    """
    search = SEARCHES[config.method]

    def run(
        params: Params,
        source: Source,
        numbers: Int[Array, " B"],
        *,
        prefix: Int[Array, "B P"] | None = None,
        phrases: PhraseTokens | None = None,
        compactions: int = 0,
    ) -> SearchResult:
        given = {} if phrases is None else {"phrases": phrases}
        if given:
            check_holds_phrases(config)
        keys = row_keys(config.seed, numbers)
        return search(
            model,
            params,
            source,
            config=config,
            max_length=max_length,
            keys=keys,
            prefix=prefix,
            compactions=compactions,
            **given,
        )

    return jax.jit(
        run, static_argnames="compactions", compiler_options=dict(compiler_options) if compiler_options else None
    )


def check_holds_phrases(config: SearchConfig) -> None:
    """Refuse a search that cannot make sure that a translation holds given phrases.

    Raises:
        ValueError: naming the setting and what to do.
    """
    if "phrases" not in inspect.signature(SEARCHES[config.method]).parameters:
        raise ValueError(
            f"phrases that a translation must hold need search.method=beam, got {config.method}; leave it out, or the "
            "phrases."
        )
    for name in ("groups", "sibling_penalty"):
        if getattr(config, name) != default_of(name):
            raise ValueError(
                f"phrases that a translation must hold need search.{name}={default_of(name)}, got "
                f"{getattr(config, name)}; leave it out, or the phrases."
            )
