"""Where does the decoder look? Five independent choices behind one interface.

`prepare` and `values` once a sentence, `start` once, `attend` at every step; what `start` returns is carried through
every scan and every beam, so an attention may remember whatever it likes. The choices: how a state fits a token
(`scores`), how scores become weights (`normalizers`), what is remembered of earlier weights (`history`), where
attention may look at all (`constraints`), and how many attentions stand side by side (`Heads`).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from s2s_jax.model.attention.compatibility import first_violation
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.constraints import CONSTRAINTS, ConstraintStep
from s2s_jax.model.attention.history import HISTORIES, HistoryFeatures
from s2s_jax.model.attention.normalizers import NORMALIZERS, Normalizer
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.cells import Weights
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul
from s2s_jax.validation import one_of


def axes() -> dict[str, tuple[str, ...]]:
    """The names of each axis, those included that the user has added to its table."""
    return {
        "score": ("none", *SCORES),
        "normalizer": tuple(NORMALIZERS),
        "history": tuple(HISTORIES),
        "constraint": tuple(CONSTRAINTS),
    }


def check(config: AttentionConfig) -> None:
    """Refuse names that stand in no table, and choices that cannot go together.

    Raises:
        ValueError: naming the setting, the reason and what to choose instead.
    """
    for axis, names in axes().items():
        one_of(f"model.attention.{axis}", getattr(config, axis), names)
    reason = first_violation(config)
    if reason:
        raise ValueError(reason)


class PreparedKeys(NamedTuple):
    """What is prepared of the memory, once a sentence."""

    score: Float[Array, "B S K"]
    history: PyTree
    constraint: PyTree


class AttentionState(NamedTuple):
    """What is carried from step to step."""

    time: Any  # Int[B]: steps so far; () in an attention that remembers nothing
    score: PyTree
    history: PyTree
    constraint: PyTree


class AttentionOutput(NamedTuple):
    """What one step of attention found."""

    context: Float[Array, "B M"]
    alignment: Float[Array, "B S"]
    state: PyTree
    heads: PyTree = ()  # the alignment of each head [B, N, S], where there are several


class Attention(nnx.Module):
    """One head: score, normalizer, history and constraint, freely combined."""

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        check(config)
        self.config, self.dtype = config, dtype
        read = self._check_split(memory)
        self.width = {"same": memory, "projected": config.size, "split": memory - read}[config.values]
        if config.values == "projected":
            self.value_kernel = nnx.Param(glorot(rngs.params(), memory, self.width))
        self.score = SCORES[config.score](query, read, config, dtype=dtype, rngs=rngs)
        self.normalizer = Normalizer(config)
        self.history = HISTORIES[config.history](
            query, read, config, at_first=config.score == "dynamic-convolution", dtype=dtype, rngs=rngs
        )
        self.constraint = CONSTRAINTS[config.constraint](query, read, config, values=self.width, dtype=dtype, rngs=rngs)
        key = jax.eval_shape(self.score.prepare, jax.ShapeDtypeStruct((1, 1, read), jnp.float32)).shape[-1]
        if self.history.width and key:
            kernel = config.kernel or 31 * (config.score == "location-aware")
            self.history_features = HistoryFeatures(self.history.width, key, config, kernel=kernel, rngs=rngs)
        self.read, self.has_features = read, bool(self.history.width and key)
        self.noisy = self.constraint.monotonic or config.normalizer == "gumbel-softmax"
        parts = (self.score, self.history, self.constraint)
        self.stateful = self.noisy or self.constraint.needs_time or any(part.stateful for part in parts)

    def _check_split(self, memory: int) -> int:
        """How much of an encoder state the keys are made of."""
        if self.config.values != "split":
            return memory
        if memory % 2:
            raise ValueError(
                f"model.attention.values=split needs encoder states of an even width, got {memory}; "
                "make model.encoder.size even, or take model.attention.values=projected."
            )
        return memory // 2

    def prepare(self, memory: Float[Array, "B S M"]) -> PreparedKeys:
        """What score, history and constraint need of the memory, computed once a sentence."""
        read = memory[..., : self.read]
        return PreparedKeys(self.score.prepare(read), self.history.prepare(read), self.constraint.prepare(read))

    def values(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S V"]:
        """What is averaged."""
        if self.config.values == "projected":
            return matmul(memory, self.value_kernel[...], self.dtype)
        return memory[..., self.read :] if self.config.values == "split" else memory

    def start(self, keys: PyTree, mask: Bool[Array, "B S"]) -> PyTree:
        """What is remembered before the first step: () where nothing is, so that all steps can be attended together."""
        if not self.stateful:
            return ()
        time = jnp.zeros(mask.shape[0], jnp.int32)
        return AttentionState(
            time, self.score.start(mask.shape[0]), self.history.start(mask), self.constraint.start(mask)
        )

    def step_weights(self) -> Weights:
        """The weight of each step: all matrices that meet the query, side by side."""
        matrices = [matrix for matrix in self._query_projections() if matrix is not None]
        return (jnp.concatenate(matrices, axis=-1),) if matrices else ()

    def _query_projections(self) -> list[Any]:
        return [part.query_projection() for part in (self.score, self.history, self.constraint)]

    def _project_query(self, inside: Weights, query: Float[Array, "B Q"]) -> list[Float[Array, "B A"]]:
        """For each part its product of the query, or the query itself."""
        if not inside:
            return [query, query, query]
        widths = [0 if matrix is None else matrix.shape[-1] for matrix in self._query_projections()]
        cuts = [widths[0], widths[0] + widths[1]]
        shares = jnp.split(matmul(query, inside[0], self.dtype), cuts, axis=-1)
        return [share if width else query for share, width in zip(shares, widths, strict=True)]

    def attend(
        self,
        inside: Weights,
        state: PyTree,
        query: Float[Array, "B Q"],
        keys: PreparedKeys,
        values: Float[Array, "B S M"],
        mask: Bool[Array, "B S"],
        noise: UInt32[Array, "B 2"] | None = None,
    ) -> AttentionOutput:
        """The context, the alignment that made it, and what is remembered. Padding weighs exactly 0.

        Args:
            noise: a raw key a row, in training.
        """
        before = state if self.stateful else AttentionState((), (), (), ())
        for_score, for_history, for_constraint = self._project_query(inside, query)
        past = self.history.features(keys.history, before.history, mask)
        marked = self.history_features(keys.score, past) if self.has_features else keys.score
        scores, of_score = self.score.step(for_score, marked, past, before.score)
        changed = self.history.adjust_scores(before.history, scores)
        normal, gumbel = self._noise(noise, before.time, mask)
        bound = self.history.remaining(keys.history, before.history)
        alignment, of_constraint = self.constraint.weights(
            for_constraint,
            keys.constraint,
            changed,
            mask,
            by=functools.partial(self.normalizer, bound=bound, noise=gumbel),
            state=before.constraint,
            now=ConstraintStep(before.time, normal),
        )
        factors = alignment.astype(self.dtype), values.astype(self.dtype)
        context = jnp.einsum("bs,bsm->bm", *factors, preferred_element_type=jnp.float32)
        if not self.stateful:
            return AttentionOutput(context, alignment, state)
        of_history = self.history.update(keys.history, before.history, scores, alignment, for_history, mask)
        of_constraint = self.constraint.update(of_constraint, query, context)
        return AttentionOutput(context, alignment, AttentionState(before.time + 1, of_score, of_history, of_constraint))

    def _noise(self, keys, time, mask):
        """Normal noise for monotonic choices, Gumbel noise for gumbel-softmax; a row's own, whatever its neighbors."""
        if keys is None or not self.noisy:
            return None, None

        def drawn(key, time):
            key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), time)
            return draw(key, mask.shape[1:])

        draw = jax.random.normal if self.constraint.monotonic else jax.random.gumbel
        noise = jax.vmap(drawn)(keys, time)
        return (noise, None) if self.constraint.monotonic else (None, noise)


class Head(Attention):
    """One of several heads: an attention in a narrower space, to which query and memory are mapped first."""

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.size
        mapped = 2 * size if config.values == "split" else size  # keys and values each as wide as the head
        super().__init__(config, size, mapped, dtype=dtype, rngs=rngs)
        self.query_kernel = nnx.Param(glorot(rngs.params(), query, size))
        self.memory_kernel = nnx.Param(glorot(rngs.params(), memory, mapped))

    def prepare(self, memory):
        """What the narrower attention prepares of the mapped memory."""
        return super().prepare(self._mapped(memory))

    def values(self, memory):
        """What the narrower attention averages."""
        return super().values(self._mapped(memory))

    def _mapped(self, memory):
        return matmul(memory, self.memory_kernel[...], self.dtype)

    def step_weights(self):
        """The map of the query first."""
        return (self.query_kernel[...], *super().step_weights())

    def attend(self, inside, state, query, keys, values, mask, noise=None):
        """The narrower attention, asked by the mapped query."""
        mapped = matmul(query, inside[0], self.dtype)
        return super().attend(inside[1:], state, mapped, keys, values, mask, noise)


class Heads(nnx.Module):
    """Several heads side by side, their contexts next to each other. Vaswani et al. 2017, arXiv:1706.03762, 3.2.2.

    Any score, normalizer, history and constraint, each head with parameters of its own; what the decoder makes of the
    context is linear in it, so there is no output map. All heads run in one program: every array has an axis N of
    heads, behind the batch axis in what a beam gathers.
    """

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.count, narrow = config.heads, head_config(config)

        def make(rngs: nnx.Rngs) -> Head:
            return Head(narrow, query, memory, dtype=dtype, rngs=rngs)

        one = nnx.eval_shape(lambda: make(nnx.Rngs(params=0)))
        self.graph = nnx.graphdef(one)
        self.stateful, self.noisy = one.stateful, one.noisy
        self.width = self.count * one.width
        keys = jax.random.split(rngs.params(), self.count)
        stacked = jax.vmap(lambda key: nnx.to_pure_dict(nnx.state(make(nnx.Rngs(params=key)))))(keys)
        self.heads = nnx.data(jax.tree.map(nnx.Param, stacked))

    def _each(self, function, *arguments, axes=0):
        """A function of each head; leaves of the other arguments and of what it gives have the heads on an axis."""
        params = jax.tree.map(lambda leaf: leaf[...], self.heads, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
        bound = lambda params, *given: function(nnx.merge(self.graph, params), *given)  # noqa: E731
        return jax.vmap(bound, in_axes=(0, *(0 for _ in arguments)), out_axes=axes)(params, *arguments)

    def prepare(self, memory):
        """What each head prepares, [B, N, ...]."""
        return self._each(lambda head: head.prepare(memory), axes=1)

    def values(self, memory):
        """What each head averages, side by side."""
        values = self._each(lambda head: head.values(memory), axes=2)
        return values.reshape(*values.shape[:2], -1)

    def start(self, keys, mask):
        """What each head remembers, [B, N, ...]."""
        return self._each(lambda head, keys: head.start(keys, mask), _heads_first(keys), axes=1)

    def step_weights(self):
        """The weights of each step, [N, ...]."""
        return self._each(lambda head: head.step_weights())

    def attend(self, inside, state, query, keys, values, mask, noise=None):
        """All contexts side by side, the mean alignment, and each head's."""
        numbers = jnp.arange(self.count)
        values = jnp.moveaxis(values.reshape(*values.shape[:2], self.count, -1), 2, 0)

        def one(head, number, inside, state, keys, values):
            own = None if noise is None else jax.vmap(_folded, in_axes=(0, None))(noise, number)
            return head.attend(inside, state, query, keys, values, mask, own)

        found = self._each(one, numbers, inside, _heads_first(state), _heads_first(keys), values, axes=1)
        context = found.context.reshape(mask.shape[0], -1)
        return AttentionOutput(context, found.alignment.mean(1), found.state, found.alignment)


class NoAttention(nnx.Module):
    """The thought-vector model's attention: a context of width 0. The decoder knows its first state and no more."""

    stateful = False
    noisy = False
    width = 0

    def prepare(self, memory):
        """Nothing to prepare."""
        return ()

    def values(self, memory):
        """Nothing to average."""
        return memory[..., :0]

    def start(self, keys, mask):
        """Nothing to remember."""
        return ()

    def step_weights(self):
        """Nothing to multiply."""
        return ()

    def attend(self, inside, state, query, keys, values, mask, noise=None):
        """An empty context and an alignment of zeros."""
        return AttentionOutput(values[:, 0], jnp.zeros(mask.shape), state)


def build_attention(config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
    """The attention that a config asks for."""
    if config.score == "none":
        return NoAttention()
    kind = Heads if config.heads > 1 else Attention
    return kind(config, query, memory, dtype=dtype, rngs=rngs)


def head_config(config: AttentionConfig) -> AttentionConfig:
    """The config of each of several heads."""
    return dataclasses.replace(config, heads=1, size=config.size // config.heads)


def _heads_first(tree: PyTree) -> PyTree:
    """The axis of the heads, behind that of the batch, brought to the front."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tree)


def _folded(key, number):
    return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), number))
