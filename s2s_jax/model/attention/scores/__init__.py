"""The table of scores. To add one, write the class in a file of your own and add it to SCORES."""

from s2s_jax.model.attention.scores.base import Score, table_name
from s2s_jax.model.attention.scores.content import (
    Additive,
    AdditiveLayerNorm,
    Biaffine,
    Concat,
    Cosine,
    Dot,
    General,
    Linear,
    NormalizedAdditive,
    ScaledDot,
    ScaledGeneral,
    TanhDot,
    Uniform,
)
from s2s_jax.model.attention.scores.location import (
    DynamicConvolution,
    GaussianMixture,
    GaussianMixtureV2,
    Location,
    LocationAware,
)

SCORES: dict[str, type[Score]] = {
    table_name(kind): kind
    for kind in (
        Uniform,
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
        NormalizedAdditive,
        Location,
        LocationAware,
        DynamicConvolution,
        GaussianMixture,
        GaussianMixtureV2,
    )
}
