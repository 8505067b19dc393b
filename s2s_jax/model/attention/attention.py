"""One attention head: score, normalizer, history and constraint behind one interface.

`prepare` and `values` are computed once per sentence, `start` once, and `attend` at every decoder step. What `start`
returns is carried through every scan and every beam, so an attention may remember anything. Four choices make a head:
how a state is compared with a token (`scores`), how scores become weights (`normalizers`), what is remembered of
earlier alignments (`history`), and which tokens may be attended to (`constraints`). `heads` combines several.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS, ConstraintStep
from s2s_jax.model.attention.history import HISTORIES, HistoryFeatures
from s2s_jax.model.attention.normalizers import Normalizer
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.cells import Weights
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import contract, matmul
from s2s_jax.model.ops.sown import replaceable


class PreparedKeys(NamedTuple):
    """What each part prepares of the memory, once per sentence."""

    score: Float[Array, "B S K"]
    history: PyTree
    constraint: PyTree


class AttentionState(NamedTuple):
    """What is carried from step to step."""

    time: Any  # Int[B]: steps so far; () in an attention without state
    score: PyTree
    history: PyTree
    constraint: PyTree


class AttentionOutput(NamedTuple):
    """The result of one step of attention."""

    context: Float[Array, "B M"]
    alignment: Float[Array, "B S"]
    state: PyTree
    heads: PyTree = ()  # the alignment of each head [B, N, S], where there are several


class Attention(nnx.Module):
    """One head. Which choices can be combined is checked in `model.compatibility`."""

    reads_last_state = False  # see `NoAttention`

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.key_width = memory // 2 if config.values == "split" else memory  # of the encoder state, read by the keys
        self.width = {"same": memory, "projected": config.size, "split": memory - self.key_width}[config.values]
        if config.values == "projected":
            self.value_kernel = nnx.Param(glorot(rngs.params(), memory, self.width))
        widths, options = (query, self.key_width), {"dtype": dtype, "rngs": rngs}
        self.score = SCORES[config.score](*widths, config, **options)
        self.normalizer = Normalizer(config)
        first = self.score.needs_previous_alignment or CONSTRAINTS[config.constraint].reads_prefix
        self.history = HISTORIES[config.history](*widths, config, starts_on_first=first, **options)
        self.constraint = CONSTRAINTS[config.constraint](*widths, config, values=self.width, **options)
        memory_shape = jax.ShapeDtypeStruct((1, 1, self.key_width), jnp.float32)
        key = jax.eval_shape(self.score.prepare, memory_shape).shape[-1]
        self.has_features = bool(self.history.width and key)
        if self.has_features:
            kernel = config.kernel or self.score.default_kernel
            self.history_features = HistoryFeatures(self.history.width, key, config, kernel=kernel, rngs=rngs)
        self.noisy = self.constraint.monotonic or "noise" in self.normalizer.parameters
        parts = (self.score, self.history, self.constraint)
        self.stateful = self.noisy or self.constraint.needs_time or any(part.stateful for part in parts)

    def prepare(self, memory: Float[Array, "B S M"]) -> PreparedKeys:
        """What score, history and constraint need of the memory, computed once per sentence."""
        keys = memory[..., : self.key_width]
        return PreparedKeys(self.score.prepare(keys), self.history.prepare(keys), self.constraint.prepare(keys))

    def values(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S V"]:
        """The states that are averaged."""
        if self.config.values == "projected":
            return matmul(memory, self.value_kernel[...], self.dtype)
        return memory[..., self.key_width :] if self.config.values == "split" else memory

    def start(self, keys: PyTree, mask: Bool[Array, "B S"]) -> PyTree:
        """The state before the first step: () without state, so that all steps can be attended in parallel."""
        if not self.stateful:
            return ()
        time = jnp.zeros(mask.shape[0], jnp.int32)
        return AttentionState(
            time, self.score.start(mask.shape[0]), self.history.start(mask), self.constraint.start(mask)
        )

    def step_weights(self) -> Weights:
        """The weight used at every step: all matrices that multiply the query, concatenated."""
        matrices = [matrix for matrix in self._query_projections() if matrix is not None]
        return (jnp.concatenate(matrices, axis=-1),) if matrices else ()

    def _query_projections(self) -> list[Any]:
        return [part.query_projection() for part in (self.score, self.history, self.constraint)]

    def _project_query(self, weights: Weights, query: Float[Array, "B Q"]) -> list[Float[Array, "B A"]]:
        """The query of score, history and constraint: its projection, or the query itself where there is none."""
        if not weights:
            return [query, query, query]
        widths = [0 if matrix is None else matrix.shape[-1] for matrix in self._query_projections()]
        cuts = [widths[0], widths[0] + widths[1]]
        projections = jnp.split(matmul(query, weights[0], self.dtype), cuts, axis=-1)
        return [projected if width else query for projected, width in zip(projections, widths, strict=True)]

    def plain_scores(self, weights: Weights, query: Float[Array, "B Q"], keys: PreparedKeys) -> Float[Array, "B S"]:
        """The scores before any normalizer, of an attention without history and state (exact hard attention)."""
        return self.score(self._project_query(weights, query)[0], keys.score)

    def attend(
        self,
        weights: Weights,
        state: PyTree,
        query: Float[Array, "B Q"],
        keys: PreparedKeys,
        values: Float[Array, "B S M"],
        mask: Bool[Array, "B S"],
        noise: UInt32[Array, "B 2"] | None = None,
    ) -> AttentionOutput:
        """The context, the alignment behind it, and the next state. Padding weighs exactly 0.

        Args:
            weights: what `step_weights` returned.
            noise: one raw random key per sentence, in training.
        """
        before = state if self.stateful else AttentionState((), (), (), ())
        score_query, history_query, constraint_query = self._project_query(weights, query)
        features = self.history.features(keys.history, before.history, mask)
        score_keys = self.history_features(keys.score, features) if self.has_features else keys.score
        scores, score_state = self.score.step(score_query, score_keys, features, before.score)
        normal, gumbel = self._noise(noise, before.time, mask)
        bound = self.history.remaining(keys.history, before.history)
        alignment, constraint_state = self.constraint.weights(
            constraint_query,
            keys.constraint,
            self.history.adjust_scores(before.history, scores),
            mask,
            normalize=functools.partial(self.normalizer, bound=bound, noise=gumbel),
            state=before.constraint,
            step=ConstraintStep(before.time, normal),
        )
        alignment = replaceable("attention", alignment)
        context = contract("bs,bsm->bm", alignment, values, self.dtype)
        if not self.stateful:
            return AttentionOutput(context, alignment, state)
        history_state = self.history.update(keys.history, before.history, scores, alignment, history_query, mask)
        constraint_state = self.constraint.update(constraint_state, query, context)
        after = AttentionState(before.time + 1, score_state, history_state, constraint_state)
        return AttentionOutput(context, alignment, after)

    def _noise(self, keys, time, mask):
        """Normal noise for monotonic constraints or Gumbel noise for the normalizer, from each sentence's own key."""
        if keys is None or not self.noisy:
            return None, None

        def draw_row(key, time):
            key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), time)
            return draw(key, mask.shape[1:])

        draw = jax.random.normal if self.constraint.monotonic else jax.random.gumbel
        noise = jax.vmap(draw_row)(keys, time)
        return (noise, None) if self.constraint.monotonic else (None, noise)


class NoAttention(nnx.Module):
    """No attention: the context has width 0, and the decoder knows the source through its first state alone."""

    stateful = False
    noisy = False
    reads_last_state = False  # the values are the encoder's last state, one per sentence

    def __init__(self, memory: int):
        self.width = 0

    def prepare(self, memory):
        """(), since there are no keys."""
        return ()

    def values(self, memory):
        """Values of width 0."""
        return memory[..., :0]

    def start(self, keys, mask):
        """(), since there is no state."""
        return ()

    def step_weights(self):
        """(), since nothing is multiplied."""
        return ()

    def attend(self, weights, state, query, keys, values, mask, noise=None):
        """An empty context and an alignment of zeros."""
        return AttentionOutput(values[:, 0], jnp.zeros(mask.shape), state)


class LastState(NoAttention):
    """No attention: the context of every step is the last state of the encoder's top layer, of all its directions.

    Cho et al. 2014, arXiv:1406.1078, section 2.2.
    """

    reads_last_state = True

    def __init__(self, memory: int):
        self.width = memory

    def values(self, memory):
        """The memory; the decoder puts the last state in its place."""
        return memory


WITHOUT_ATTENTION: dict[str, type[NoAttention]] = {"none": NoAttention, "last-state": LastState}
