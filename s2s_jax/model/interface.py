"""The interface between models and drivers: the functions that a model offers and the data that they exchange.

A model is the three functions `init`, `encode` and `step`. Training, search, scoring and evaluation call them and know
nothing else of a model, so that whoever writes the three for a network of his own gets all of that.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from s2s_jax.shapes import BOS, Batch, Sources

Token = Int[Array, " B"] | Float[Array, "B V"]  # the input of a step: token ids, or weights over the vocabulary
Tokens = Int[Array, "B T"] | Float[Array, "B T V"]  # the inputs of all steps
Source = Int[Array, "B S"] | Sources  # what is encoded: ids, or ids and those of features
Params = PyTree  # a nested dict in our own models, any pytree in others
Noise = Key[Array, ""] | None  # a key turns dropout and other noise on, None turns it off


class Memory(NamedTuple):
    """What stays fixed while one sentence is decoded; every leaf leads with the batch axis."""

    keys: PyTree  # the encoder's outputs as the attention score needs them, prepared once per sentence
    values: Float[Array, "B S M"]
    mask: Bool[Array, "B S"]
    noise: PyTree = ()  # dropout masks, drawn once per sentence (variational dropout); () without a key
    copyable: PyTree = ()  # what can be copied from the source; () in a model that does not copy


class State(NamedTuple):
    """What the decoder carries from step to step; every leaf leads with the batch axis, so a beam can gather it."""

    carry: PyTree  # the states of the recurrent cells, one entry per layer
    feedback: PyTree  # the part of the last output that is fed to the next step (input feeding); () without
    attention: PyTree  # the state of the attention, such as its coverage; () in an attention without state
    copying: PyTree = ()  # the last copy scores, where they are read at the next step; () elsewhere
    self_attention: PyTree = ()  # the decoder's last states, where it attends to them; () elsewhere
    output: PyTree = ()  # of the layer that queries next, where a residual makes it differ from its state; () elsewhere
    time: PyTree = ()  # Int[B], steps so far, where noise is drawn anew at every step; () elsewhere


class StepOutput(NamedTuple):
    """The outputs of one decoder step; those of an unroll have a time axis after the batch axis."""

    logits: Float[Array, "*B V"]  # of an unroll with a `LogitsReader`: what it computed of them
    alignment: Float[Array, "*B S"]
    context: Float[Array, "*B M"]
    heads: PyTree = ()  # the alignment of each head, [*B, N, S], of which `alignment` is the mean; () with one head
    given_log_normalizer: PyTree = ()  # [*B], subtracted from the logits of possible tokens; () for their logsumexp
    scores: PyTree = ()  # [*B, V], which `Model.output` turns into probabilities, if that is not softmax; else ()

    @property
    def log_normalizer(self) -> Float[Array, "*B"]:
        """What to subtract from each logit: the logsumexp, unless the model gives another number."""
        return (
            jax.nn.logsumexp(self.logits, axis=-1)
            if isinstance(self.given_log_normalizer, tuple)
            else self.given_log_normalizer
        )


class LogitsReader(NamedTuple):
    """A function of the logits that replaces them in an unroll, since the logits of all steps can be too large to keep.

    They are computed for a few tokens at a time, and again in the backward pass.
    """

    read: Callable[[Float[Array, "N V"], PyTree], PyTree]  # (logits, wanted) -> leaves [N]
    wanted: PyTree  # the second argument of `read`, such as the targets, leaves [B, T]
    tokens: int  # how many tokens' logits are held at once, at most
    reads_scores: bool = False  # `read` gets `StepOutput.scores` in the place of logits, where there are scores

    def read_output(self, output: StepOutput, wanted: PyTree) -> StepOutput:
        """The output of a step with what is read in the place of its logits."""
        read = output.logits if isinstance(output.scores, tuple) or not self.reads_scores else output.scores
        return output._replace(logits=self.read(read, wanted), scores=())


class TokenSampler(NamedTuple):
    """Chooses the input of each step after the first from the logits of the step before; without a gradient.

    `inputs` are what else the choice depends on at each step, such as the true token, leaves [B, T].
    """

    choose: Callable[[Float[Array, "B V"], PyTree, Key[Array, ""]], Int[Array, " B"]]  # (logits, inputs, key) -> tokens
    inputs: PyTree
    key: Key[Array, ""]

    def next_token(self, logits: Float[Array, "B V"], inputs: PyTree, time: Int[Array, ""]) -> Int[Array, " B"]:
        """The input of the step after `time`, whose logits these are; `inputs` belong to the step that reads it."""
        return self.choose(jax.lax.stop_gradient(logits), inputs, jax.random.fold_in(self.key, time))

    def shifted_inputs(self) -> PyTree:
        """For each step the `inputs` of the step after it, time first; the last one is not used."""
        return jax.tree.map(lambda leaf: jnp.roll(time_first(leaf), -1, axis=0), self.inputs)


class DecoderInputs(NamedTuple):
    """The inputs of an unroll: these tokens or, with a sampler, the first of them and then what the sampler chooses."""

    tokens: Tokens
    sampler: TokenSampler | None = None


@runtime_checkable
class InitFn(Protocol):
    """`init(key) -> params`."""

    def __call__(self, key: Key[Array, ""], /) -> Params:
        """Draw the initial parameters."""
        ...


@runtime_checkable
class EncodeFn(Protocol):
    """`encode(params, source, key=None) -> memory, state`."""

    def __call__(self, params: Params, source: Source, key: Noise = None, /) -> tuple[Memory, State]:
        """Read the source once: what the decoder attends to, and its state before the first step.

        With a key, all noise of the sentence is drawn here, and kept in the memory if the steps need it.
        """
        ...


@runtime_checkable
class StepFn(Protocol):
    """`step(params, memory, state, token) -> state, output`."""

    def __call__(self, params: Params, memory: Memory, state: State, token: Token, /) -> tuple[State, StepOutput]:
        """Decode one token: the next state, and the logits of the token after `token`."""
        ...


@runtime_checkable
class UnrollFn(Protocol):
    """`unroll(params, memory, state, tokens, *, reader=None, sampler=None) -> state, outputs`."""

    def __call__(
        self,
        params: Params,
        memory: Memory,
        state: State,
        tokens: Tokens,
        /,
        *,
        reader: LogitsReader | None = None,
        sampler: TokenSampler | None = None,
    ) -> tuple[State, StepOutput]:
        """Decode all tokens: what `scan_of_step(step)` computes, perhaps faster."""
        ...


@runtime_checkable
class EmbedFn(Protocol):
    """`embed(params, source) -> [B, S, E]`."""

    def __call__(self, params: Params, source: Source, /) -> Float[Array, "B S E"]:
        """The source embeddings, which `encode` reads."""
        ...


@runtime_checkable
class EncodeEmbeddedFn(Protocol):
    """`encode_embedded(params, source, embedded, key=None) -> memory, state`."""

    def __call__(
        self, params: Params, source: Source, embedded: Float[Array, "B S E"], key: Noise = None, /
    ) -> tuple[Memory, State]:
        """What `encode` computes, with these embeddings in place of those of the source."""
        ...


@runtime_checkable
class PosteriorFn(Protocol):
    """`posterior(params, batch) -> [B, T, S]`."""

    def __call__(self, params: Params, batch: Batch, /) -> Float[Array, "B T S"]:
        """The alignment of each target token given the whole target; 0 on padding."""
        ...


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as its users see it: `init`, `encode`, `step`, and a faster `unroll` if it has one.

    `unroll` is *defined* as the scan of `step`; left out, it is that scan. A model that is trained with soft
    predictions (`scheduled_sampling.prediction`) gets weights over the vocabulary in place of token ids.

    `output` names the distribution over the vocabulary, as `model.decoder.output` does, by which the loss is chosen.

    `embed` and `encode_embedded` are needed only for gradients with respect to the source (`evaluate.gradients`).
    `posterior` is the alignment of given targets where it is another than that of `unroll`, which knows no later token.
    """

    init: InitFn
    encode: EncodeFn
    step: StepFn
    unroll: UnrollFn = cast(UnrollFn, None)  # replaced below, so that callers never see None
    embed: EmbedFn | None = None
    encode_embedded: EncodeEmbeddedFn | None = None
    posterior: PosteriorFn | None = None
    output: str = "softmax"

    def __post_init__(self):
        if self.unroll is None:
            object.__setattr__(self, "unroll", scan_of_step(self.step))


def scan_of_step(step: StepFn) -> UnrollFn:
    """The unroll that every other unroll must equal: one `lax.scan` of `step` over given or sampled tokens."""

    def unroll(
        params: Params,
        memory: Memory,
        state: State,
        tokens: Tokens,
        *,
        reader: LogitsReader | None = None,
        sampler: TokenSampler | None = None,
    ) -> tuple[State, StepOutput]:
        def body(carry: tuple, inputs: tuple):
            state, sampled = carry
            token, time, wanted, sampler_inputs = inputs
            state, output = step(params, memory, state, token if sampler is None else sampled)
            if sampler is not None:
                sampled = sampler.next_token(output.logits, sampler_inputs, time)
            if reader is not None:
                output = reader.read_output(output, wanted)
            return (state, sampled), output

        times = jnp.arange(tokens.shape[1])
        one_step, wanted = body, ()
        if reader is not None:
            one_step, wanted = jax.checkpoint(body), jax.tree.map(time_first, reader.wanted)
        sampler_inputs = () if sampler is None else sampler.shifted_inputs()
        inputs = time_first(tokens), times, wanted, sampler_inputs
        (state, _), outputs = jax.lax.scan(one_step, (state, tokens[:, 0]), inputs)
        return state, jax.tree.map(time_first, outputs)

    return unroll


def time_first(leaf: Array) -> Array:
    """[B, T, ...] as [T, B, ...], and back."""
    return leaf.swapaxes(0, 1)


def shift_right(target: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The decoder's inputs under teacher forcing: BOS, then all target tokens but the last."""
    first = jnp.full((target.shape[0], 1), BOS, target.dtype)
    return jnp.concatenate([first, target[:, :-1]], axis=1)


# (memory, state, the true inputs, key) -> the decoder's inputs
InputPolicy = Callable[[Memory, State, Int[Array, "B T"], Key[Array, ""]], DecoderInputs]


def unroll_targets(
    model: Model,
    params: Params,
    batch: Batch,
    key: Noise = None,
    *,
    policy: InputPolicy | None = None,
    reader: LogitsReader | None = None,
) -> StepOutput:
    """All steps [B, T, ...] with the true token as input of each: teacher forcing, validation and scoring.

    Args:
        policy: replaces the true inputs by what it makes of them (scheduled sampling); it needs a key.
    """
    # The second of the three keys is spare: with two, the policies would draw other numbers than in earlier versions.
    for_encode, _, for_policy = (None, None, None) if key is None else jax.random.split(key, 3)
    memory, state = model.encode(params, batch.inputs, for_encode)
    tokens = shift_right(batch.target if isinstance(batch.fed, tuple) else batch.fed)
    inputs = DecoderInputs(tokens)
    if policy is not None:
        if for_policy is None:
            raise ValueError("an input policy chooses at random, so unroll_targets needs a key for it, got None.")
        inputs = policy(memory, state, tokens, for_policy)
    _, outputs = model.unroll(params, memory, state, inputs.tokens, reader=reader, sampler=inputs.sampler)
    return outputs
