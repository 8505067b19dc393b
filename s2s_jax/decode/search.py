"""Which search do the settings ask for?"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Int

from s2s_jax.decode.beam.constrained import constrained
from s2s_jax.decode.beam.engine import STOPPING, beam
from s2s_jax.decode.beam.stochastic import stochastic
from s2s_jax.decode.greedy import greedy
from s2s_jax.decode.length_normalization import HypothesisScore
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.mbr import MBR_METRICS
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.sampling import Sampling, row_keys, sample
from s2s_jax.model.interface import Model, Params
from s2s_jax.validation import at_least, check_fields, one_of

METHODS = ("beam", "sample", "stochastic")
# settings that only some methods read
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
    """How a translation is looked for."""

    method: str = "beam"
    """beam (greedy search where search.beam is 1); sample; or stochastic, a beam that samples without replacement."""
    beam: int = 1
    """Hypotheses followed at once; 1 is greedy search."""
    length_normalization: str = "gnmt"
    """Score of a hypothesis of log-probability p: gnmt p / ((5 + length) / 6)^a, average p / length^a, reward
    p + a length.
    """
    length_penalty: float = 0.6
    """The a of search.length_normalization; 0 for the log-probability alone."""
    coverage_penalty: float = 0.0
    """Times sum of log min(attention, 1) over the source, in the score. Wu et al. 2016, arXiv:1609.08144, eq. 14."""
    stopping: str = "full"
    """When a beam stops: full, as many ended as search.beam; bounded, none can get better; never, none is left."""
    n_best: int = 0
    """Best hypotheses, of each group, that stopping=bounded must be sure of and that come back; 0 for all."""
    groups: int = 1
    """Parts of a beam that choose one after another, to differ. Vijayakumar et al. 2018, arXiv:1610.02424."""
    group_penalty: float = 0.0
    """What a token costs for each slot of the groups before that says it in the same step, nats."""
    sibling_penalty: float = 0.0
    """What each better continuation of the same hypothesis costs, nats. Li et al. 2016, arXiv:1611.08562."""
    samples: int = 1
    """Method sample: samples a line."""
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    """Method sample: which tokens are drawn from."""
    seed: int = 0
    """Methods sample and stochastic: with the number of a line, what chance brings for it."""
    mbr_metric: str = "none"
    """What of all hypotheses of a line is told first: none, the best score; exact, chrf or bleu, the one that agrees
    best with all by it (minimum Bayes risk).
    """
    rules: LogitsRules = dataclasses.field(default_factory=LogitsRules)
    """What a translation must keep to."""
    language_model: str = ""
    """Folder of a run that learned targets without sources (data.train=lines:FILE), to have a say in each token."""
    language_weight: float = 0.0
    """Times its log-probability, what it adds to a token's. Gulcehre et al. 2015, arXiv:1503.03535, 4.1."""
    max_length: int = 0
    """Most tokens of a translation, the end counted; 0 for 1.2 x the longest training target + 10."""
    max_source: int = 4096
    """Most tokens of a line that are read, the end counted; the rest of a longer one is left out; 0 for no bound."""
    batch_size: int = 64
    """Most source lines decoded together."""
    replace_unknown: bool = False
    """Each unknown token of a translation is written as the source word that attention weighs most at its step."""

    def __post_init__(self):
        check_fields(self, "search")
        one_of("search.method", self.method, METHODS)
        one_of("search.stopping", self.stopping, STOPPING)
        one_of("search.mbr_metric", self.mbr_metric, ("none", *MBR_METRICS))
        for name in ("beam", "groups", "samples", "batch_size"):
            at_least(f"search.{name}", getattr(self, name), 1)
        for name in ("n_best", "group_penalty", "sibling_penalty", "language_weight"):
            at_least(f"search.{name}", getattr(self, name), 0)
        for name in ("seed", "max_length", "max_source"):
            at_least(f"search.{name}", getattr(self, name), 0)
        self.scoring()
        self._check_together()

    @property
    def hypotheses(self) -> int:
        """How many come back for each line."""
        if self.method == "sample":
            return self.samples
        return self.n_best * self.groups or self.beam

    def scoring(self) -> HypothesisScore:
        """The score that hypotheses are ranked by."""
        return HypothesisScore(
            name=self.length_normalization, strength=self.length_penalty, coverage=self.coverage_penalty
        )

    def _check_together(self) -> None:
        """Refuse values that are fine alone and make no sense together."""
        if self.beam % self.groups:
            fitting = ", ".join(str(count) for count in range(1, self.beam + 1) if self.beam % count == 0)
            raise ValueError(
                f"search.groups must divide search.beam={self.beam}, got {self.groups}; take one of {fitting}."
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
        least, most = self.rules.min_ratio, self.rules.max_ratio
        if most and least > most:
            raise ValueError(f"search.rules.min_ratio must be at most search.rules.max_ratio={most}, got {least}")
        if self.max_length and self.rules.min_length > self.max_length:
            raise ValueError(
                f"search.rules.min_length must be at most search.max_length={self.max_length}, got "
                f"{self.rules.min_length}"
            )
        if bool(self.language_model) != bool(self.language_weight):
            raise ValueError(
                f"search.language_model={self.language_model!r} and search.language_weight={self.language_weight} "
                "need each other; set both, such as a run's folder and 0.3, or neither."
            )
        for name, methods in METHOD_SETTINGS.items():
            if self.method not in methods and getattr(self, name) != default(name):
                raise ValueError(
                    f"search.{name} is for search.method={' or '.join(methods)}, got search.method={self.method}; "
                    f"leave search.{name} out, or change the method."
                )
        if self.beam == 1 and self.method == "stochastic":
            raise ValueError(
                "search.method=stochastic needs more than one hypothesis, got search.beam=1; for one take "
                "search.method=sample."
            )


def default(name: str) -> Any:
    """The value of a field that nobody set."""
    field = SearchConfig.__dataclass_fields__[name]
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def check_beam(search: SearchConfig) -> None:
    """Refuse to look for given phrases in a way that cannot make sure of them.

    Raises:
        ValueError: naming the setting and what to do.
    """
    for name in ("method", "groups", "sibling_penalty"):
        if getattr(search, name) != default(name):
            raise ValueError(
                f"phrases that a translation must hold need search.{name}={default(name)}, got "
                f"{getattr(search, name)}; leave it out, or the phrases."
            )


# (params, source [B, S], the number of each line [B], tokens to begin with [B, P] or None, phrases to hold [B, N, L] or
# None, how often the rows are halved) -> what was found
SearchFn = Callable[..., SearchResult]


def compiled_search(model: Model, search: SearchConfig, max_length: int) -> SearchFn:
    """The search as one compiled program for each source shape, and for each shape of a prefix and phrases."""
    settings = {"max_length": max_length, "ranking": search.scoring(), "rules": search.rules}

    def find(
        params: Params,
        source: Int[Array, "B S"],
        numbers: Int[Array, " B"],
        prefix: Int[Array, "B P"] | None = None,
        phrases: Int[Array, "B N L"] | None = None,
        halvings: int = 0,
    ) -> SearchResult:
        shared = {**settings, "prefix": prefix, "halvings": halvings}
        if phrases is not None:
            check_beam(search)
            options = {"width": search.beam, "stopping": search.stopping, "n_best": search.n_best or None}
            return constrained(model, params, source, phrases, **options, **shared)
        ask = functools.partial(_search_function(search), model, params, source, **shared)
        return ask() if search.method == "beam" else ask(row_keys(search.seed, numbers))

    return jax.jit(find, static_argnames="halvings")


def _search_function(search: SearchConfig) -> Callable[..., SearchResult]:
    if search.method == "sample":
        return functools.partial(sample, samples=search.samples, sampling=search.sampling)
    if search.method == "stochastic":
        return functools.partial(stochastic, width=search.beam)
    if search.beam == 1 and search.stopping == "full":
        return greedy
    return functools.partial(
        beam,
        width=search.beam,
        groups=search.groups,
        group_penalty=search.group_penalty,
        sibling_penalty=search.sibling_penalty,
        stopping=search.stopping,
        n_best=search.n_best or None,
    )
