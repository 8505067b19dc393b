"""What must a model offer so that every driver (training, search, scoring) can use it?

Three functions. Whoever brings his own model writes them and gets training, search and evaluation; nothing outside
`s2s_jax.model` knows what stands behind them.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from s2s_jax.shapes import BOS, Batch

Token = Int[Array, " B"] | Float[Array, "B V"]  # what a step is fed: a token, or weights over the vocabulary
Tokens = Int[Array, "B T"] | Float[Array, "B T V"]  # the same of all steps
Params = PyTree  # a nested dict for our own models, whatever its author likes for others
Noise = Key[Array, ""] | None  # a key means noise, no key means none


class Memory(NamedTuple):
    """What stays fixed while one sentence is decoded; every leaf leads with the batch axis."""

    keys: PyTree  # the memory as the score wants it, prepared once
    values: Float[Array, "B S M"]
    mask: Bool[Array, "B S"]
    noise: PyTree = ()  # dropout masks, drawn once a sentence (variational dropout); () without a key
    copyable: PyTree = ()  # what of the source can be copied into the target; () where nothing is


class State(NamedTuple):
    """What the decoder carries from step to step; every leaf leads with the batch axis, so a beam can gather it."""

    carry: PyTree  # the cells' states, one entry a layer
    feedback: PyTree  # what the last step feeds to the next one beside the token; () when nothing
    attention: PyTree  # what the attention remembers; () when nothing
    copying: PyTree = ()  # what copying remembers; () when nothing
    self_attention: PyTree = ()  # the decoder's own last states; () where it does not look back at them


class StepOutput(NamedTuple):
    """What one decoder step says; an unroll returns the same with a time axis after the batch axis."""

    logits: Float[Array, "*B V"]  # of an unroll with a `Reading`: what it made of them
    alignment: Float[Array, "*B S"]
    context: Float[Array, "*B M"]
    heads: PyTree = ()  # the alignment of each head, [*B, N, S], of which `alignment` is the mean; () for one head
    given_log_normalizer: PyTree = ()  # [*B], what to take off the logits of what counts for a token; () for their own logsumexp

    @property
    def log_normalizer(self) -> Float[Array, "*B"]:
        """What to take off each logit: what is left is a log-probability, unless the model wants it otherwise."""
        return (
            jax.nn.logsumexp(self.logits, axis=-1)
            if isinstance(self.given_log_normalizer, tuple)
            else self.given_log_normalizer
        )


class LogitsReader(NamedTuple):
    """What to make of logits that are too many to keep: read a few tokens' at a time, and read again going back."""

    read: Callable[[Float[Array, "N V"], PyTree], PyTree]  # (logits, wanted) -> leaves [N]
    wanted: PyTree  # what is read beside the logits, leaves [B, T]
    tokens: int  # most tokens whose logits are held at once


class TokenSampler(NamedTuple):
    """How the tokens fed after the first are found, each once the step before has spoken; no gradient passes there."""

    choose: Callable[[Float[Array, "B V"], PyTree, Key[Array, ""]], Int[Array, " B"]]  # (logits, given, key) -> tokens
    given: PyTree  # what is known beforehand of each step that is fed, leaves [B, T]
    key: Key[Array, ""]

    def next(self, logits: Float[Array, "B V"], given: PyTree, time: Int[Array, ""]) -> Int[Array, " B"]:
        """What is fed after the step at a time, that said these logits; `given` is of the step that is fed."""
        return self.choose(jax.lax.stop_gradient(logits), given, jax.random.fold_in(self.key, time))

    def shifted_inputs(self) -> PyTree:
        """What is given of the step after each one, time first; nobody reads the last."""
        return jax.tree.map(lambda leaf: jnp.roll(time_first(leaf), -1, axis=0), self.given)


class DecoderInputs(NamedTuple):
    """What the steps of an unroll are fed: these tokens, or, with a sampler, the first and then what it picks."""

    tokens: Tokens
    sampler: TokenSampler | None = None


InitFn = Callable[[Key[Array, ""]], Params]
EncodeFn = Callable[..., tuple[Memory, State]]  # (params, source, key=None)
StepFn = Callable[..., tuple[State, StepOutput]]  # (params, memory, state, token, key=None)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as its users see it: `init`, `encode`, `step`, and a faster `unroll` where it has one.

    `unroll(params, memory, state, tokens, key=None, reader=None, sampler=None) -> State, Step` is *defined* as the
    scan of `step` over the given tokens [B, T], or over what the picking picks. A model may compute it faster; a law
    test holds it to that scan. A model that is trained with soft tails (`train.forcing`) is fed weights over the
    vocabulary in the place of tokens.

    `embed(params, source) -> [B, S, E]` is what `encode` reads of the tokens, and `encode(..., embedded=...)` reads
    that argument in their place; only who looks into a model needs the two (`evaluate.gradients`).
    """

    init: InitFn
    encode: EncodeFn
    step: StepFn
    unroll: StepFn = None  # type: ignore[assignment]  # filled in below, so that callers never see None
    embed: Callable[[Params, Int[Array, "B S"]], Float[Array, "B S E"]] | None = None

    def __post_init__(self):
        if self.unroll is None:
            object.__setattr__(self, "unroll", scan_of_step(self.step))


def scan_of_step(step: StepFn) -> StepFn:
    """The unroll that every other unroll must equal: one `lax.scan` of `step` over given tokens, or picked ones."""

    def unroll(
        params: Params,
        memory: Memory,
        state: State,
        tokens: Tokens,
        key: Noise = None,
        reader: LogitsReader | None = None,
        sampler: TokenSampler | None = None,
    ) -> tuple[State, StepOutput]:
        def body(last: tuple, now: tuple):
            state, picked = last
            token, time, wanted, given = now
            noise = None if key is None else jax.random.fold_in(key, time)
            state, said = step(params, memory, state, token if sampler is None else picked, noise)
            if sampler is not None:
                picked = sampler.next(said.logits, given, time)
            if reader is not None:
                said = said._replace(logits=reader.read(said.logits, wanted))
            return (state, picked), said

        times = jnp.arange(tokens.shape[1])
        once, wanted = body, ()
        if reader is not None:
            once, wanted = jax.checkpoint(body), jax.tree.map(time_first, reader.wanted)
        given = () if sampler is None else sampler.shifted_inputs()
        (state, _), steps = jax.lax.scan(once, (state, tokens[:, 0]), (time_first(tokens), times, wanted, given))
        return state, jax.tree.map(time_first, steps)

    return unroll


def time_first(leaf: Array) -> Array:
    """[B, T, ...] as [T, B, ...], and the other way round."""
    return leaf.swapaxes(0, 1)


def shift_right(target: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """What is fed before each target token: BOS, then the tokens but the last."""
    first = jnp.full((target.shape[0], 1), BOS, target.dtype)
    return jnp.concatenate([first, target[:, :-1]], axis=1)


# (memory, state, true tokens, noise of the unroll, key) -> what is fed
InputPolicy = Callable[[Memory, State, Int[Array, "B T"], Noise, Key[Array, ""]], DecoderInputs]


def unroll_targets(
    model: Model,
    params: Params,
    batch: Batch,
    key: Noise = None,
    *,
    policy: InputPolicy | None = None,
    reader: LogitsReader | None = None,
) -> StepOutput:
    """All steps [B, T, ...] with the true token fed at each: teacher forcing, validation and scoring.

    With `feed`, which needs a key, what it makes of the true tokens is fed instead.
    """
    for_encode, for_steps, for_feed = (None, None, None) if key is None else jax.random.split(key, 3)
    memory, state = model.encode(params, batch.source, for_encode)
    tokens = shift_right(batch.target)
    fed = DecoderInputs(tokens)
    if policy is not None:
        if for_feed is None:
            raise ValueError("feed chooses by chance, so it needs a key.")
        fed = policy(memory, state, tokens, for_steps, for_feed)
    _, steps = model.unroll(params, memory, state, fed.tokens, for_steps, reader, fed.sampler)
    return steps
