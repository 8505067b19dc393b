"""Which scores are there? To add one: write the class, here or in a file of its own, and add its line."""

from s2s_jax.model.content_scores import (
    Additive,
    AdditiveLayerNorm,
    Biaffine,
    Concat,
    Cosine,
    Dot,
    General,
    Linear,
    NormalisedAdditive,
    ScaledDot,
    ScaledGeneral,
    TanhDot,
)
from s2s_jax.model.position_scores import (
    DynamicConvolution,
    GaussianMixture,
    GaussianMixtureV2,
    Location,
    LocationAware,
)
from s2s_jax.model.score import Score, named

SCORES: dict[str, type[Score]] = {
    named(kind): kind
    for kind in (
        Dot,
        ScaledDot,
        Cosine,
        Linear,
        General,
        ScaledGeneral,
        Biaffine,
        TanhDot,
        Concat,
        Additive,
        AdditiveLayerNorm,
        NormalisedAdditive,
        Location,
        LocationAware,
        DynamicConvolution,
        GaussianMixture,
        GaussianMixtureV2,
    )
}
