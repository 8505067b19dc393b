"""What a new run starts from instead of random parameters: those of another run, and word vectors from files."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.config import Experiment
from s2s_jax.model.interface import Params
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.run_dir import SIDES
from s2s_jax.shapes import SPECIAL
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.embedding_file import embedding_files, read_vectors
from s2s_jax.text.tokenizers import Tokenizer, TokenizerConfig, TokenizersConfig, tokenizer_fingerprint
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.parameter_groups import dotted, dotted_paths
from s2s_jax.training.warm_start import Shape, SharedTokens, TakenLeaf, VocabularyAxis, fit, source_of


class Start(NamedTuple):
    """What a new run takes from elsewhere; after its first checkpoint, none of it is read again."""

    leaves: tuple[Mapping[str, TakenLeaf], ...]  # by dotted path; later ones are put over earlier ones
    facts: dict[str, str]  # a digest of each
    record: dict[str, Any]  # of the warm start; empty without one

    def put_into(self, params: Params) -> Params:
        """Parameters of which those that are taken have their values."""

        def started(path: tuple, leaf: Any) -> Any:
            values = np.asarray(leaf)
            for each in self.leaves:
                if taken := each.get(dotted(path)):
                    values = taken.put_into(values)
            return leaf if values is leaf else jnp.asarray(values, leaf.dtype)

        return jax.tree_util.tree_map_with_path(started, params)


def read_source(experiment: Experiment, print_line: Callable[[str], None]) -> Run | None:
    """The run that a warm start takes parameters from; None without a warm start.

    Raises:
        FileNotFoundError, ValueError: there is no such run or checkpoint.
    """
    if not experiment.warm_start.run:
        return None
    source = source_of(experiment.warm_start.run)
    try:
        run = load(source.directory, step=source.step, average=source.average)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"warm_start.run={experiment.warm_start.run}: {error}") from None
    for line in run.refused:
        print_line(f"refused: {line}")
    return run


def with_tokenizers_of(experiment: Experiment, source: Run | None) -> Experiment:
    """The experiment with the settings of the tokenizers that it takes from another run."""
    if source is None or not experiment.warm_start.tokenizers:
        return experiment
    taken = taken_settings(experiment.tokenizer, source.experiment.tokenizer)
    if not source.experiment.data.features:  # its settings of them were never used
        taken = dataclasses.replace(taken, features=experiment.tokenizer.features)
    return dataclasses.replace(experiment, tokenizer=taken)


def taken_settings(own: TokenizersConfig, theirs: TokenizersConfig) -> TokenizersConfig:
    """The settings of tokenizers that come with a run: what they learn is theirs, what holds in training is own."""
    sides = {side: _taken_side(getattr(own, side), getattr(theirs, side)) for side in (*SIDES, "features")}
    return dataclasses.replace(theirs, **sides)


def _taken_side(own: TokenizerConfig, theirs: TokenizerConfig) -> TokenizerConfig:
    learning = dataclasses.asdict(own.learning())
    of_training = {name: value for name, value in dataclasses.asdict(own).items() if value != learning[name]}
    return dataclasses.replace(theirs.learning(), file="", vocabulary="", **of_training)


def starting_point(
    experiment: Experiment, tokenizers: PairTokenizer, source: Run | None, print_line: Callable[[str], None]
) -> Start | None:
    """What a new run starts from, printed leaf by leaf; None where all of it is random.

    Raises:
        FileNotFoundError, ValueError: nothing fits, or a file of word vectors cannot be read.
    """
    if source is None and not experiment.data.embeddings:
        return None
    shapes, axes = vocabulary_axes(experiment.model, tokenizers)
    vectors = _vectors(experiment, tokenizers, shapes, axes, print_line)
    facts = {"embeddings": _digest(vectors)} if vectors else {}
    if source is None:
        return Start((vectors,), facts, {})
    old = {path: np.asarray(leaf) for path, leaf in dotted_paths(source.params).items()}
    found = fit(shapes, old, axes, _shared(tokenizers, source.pair))
    if not found.taken:
        raise ValueError(
            f"warm_start.run={experiment.warm_start.run}: none of its {len(old)} parameters fits one of the "
            f"{len(shapes)} here by path and shape ({'; '.join(map(str.strip, found.lines()))}). Train with its model "
            f"settings: s2s train {source.directory} --from {source.directory}, or leave --from out."
        )
    facts["warm_start"] = _digest(found.taken)
    steps = list(source.averaged) or [source.step]
    at = f"{'the mean of steps' if source.averaged else 'step'} {', '.join(f'{step:,}' for step in steps)}"
    print_line(f"warm start from {source.directory}, {at}: {len(found.taken)} of {len(shapes)} parameters taken")
    for line in found.lines():
        print_line(line)
    about = {"run": experiment.warm_start.run, "steps": steps, "tokenizers": experiment.warm_start.tokenizers}
    return Start((vectors, found.taken), facts, {**about, "digest": facts["warm_start"], **found.record()})


def vocabulary_axes(
    config: ModelConfig, tokenizers: PairTokenizer
) -> tuple[dict[str, Shape], dict[str, VocabularyAxis]]:
    """The shape of each parameter of a model, and the axes that have an entry per token: they grow with it."""

    def shapes(source: int, target: int, *features: int) -> dict[str, Shape]:
        table = None if config.decoder.copy == "none" else np.full(source + tokenizers.slots, -1, np.int32)
        sizes = {"source_vocabulary": source, "target_vocabulary": target, "feature_vocabularies": features}
        model = build(config, **sizes, copy_table=table)
        params = jax.eval_shape(model.init, jax.random.key(0))
        return {path: leaf.shape for path, leaf in dotted_paths(params).items()}

    sizes = {side: tokenizer.size for side, tokenizer in tokenizers.sides.items()}
    here, axes = shapes(*sizes.values()), {}
    for grown in sizes:
        try:
            larger = shapes(*(size + (side == grown) for side, size in sizes.items()))
        except ValueError:  # one vocabulary for several sides
            larger = shapes(*(size + 1 for size in sizes.values()))
        for path, shape in here.items():
            changed = [axis for axis, size in enumerate(shape) if larger[path][axis] != size]
            if len(changed) == 1:
                axes.setdefault(path, VocabularyAxis(changed[0], grown))
    return here, axes


def _shared(here: PairTokenizer, there: PairTokenizer) -> dict[str, SharedTokens]:
    """What the vocabularies share, for the sides whose tokenizers differ; one that is only here shares nothing."""
    nothing = SharedTokens(np.array([], np.int64), np.array([], np.int64))
    return {
        side: shared_tokens(tokenizer, there.sides[side]) if side in there.sides else nothing
        for side, tokenizer in here.sides.items()
        if side not in there.sides or tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(there.sides[side])
    }


def shared_tokens(here: Tokenizer, there: Tokenizer) -> SharedTokens:
    """The ids of the tokens of equal text, after the special tokens, which are equal by their place."""
    known = _ids(there)
    pairs = [(number, number) for number in range(len(SPECIAL))]
    pairs += [(number, known[symbol]) for symbol, number in _ids(here).items() if symbol in known]
    return SharedTokens(*np.array(sorted(pairs)).T)


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The id of each token but the special ones, by its text."""
    numbers = range(len(SPECIAL), tokenizer.size)
    return dict(zip(tokenizer.symbols(numbers), numbers, strict=True))


def _vectors(
    experiment: Experiment,
    tokenizers: PairTokenizer,
    shapes: Mapping[str, Shape],
    axes: Mapping[str, VocabularyAxis],
    print_line: Callable[[str], None],
) -> dict[str, TakenLeaf]:
    """The rows of the embeddings that `data.embeddings` has, by the path of the embedding."""
    width, leaves = experiment.model.embedding, {}
    files = embedding_files(experiment.data.embeddings)
    if experiment.model.shared_embeddings and len(files) == 2:
        if files["source"] != files["target"]:
            raise ValueError(
                f"data.embeddings={experiment.data.embeddings}: with model.shared_embeddings=true there is one "
                "embedding for both sides; give one file."
            )
        del files["target"]
    for side, name in files.items():
        tokens = _ids(getattr(tokenizers, side))
        sides, shape = SIDES if experiment.model.shared_embeddings else (side,), (len(SPECIAL) + len(tokens), width)
        places = [VocabularyAxis(0, each) for each in sides]
        paths = [path for path in shapes if axes.get(path) in places and path.endswith("embedding")]
        paths = [path for path in paths if shapes[path] == shape]
        if len(paths) != 1:
            raise ValueError(
                f"data.embeddings={experiment.data.embeddings}: the model has no {side} embedding of {shape[0]} x "
                f"{width} numbers to put the vectors into; leave the {side} side out, or data.embeddings."
            )
        found = read_vectors(Path(name), tokens, width=width)
        twice = f"; {found.again:,} lines of tokens that occurred before were not read" if found.again else ""
        print_line(f"{side} embeddings: {len(found.ids):,} of {len(tokens):,} tokens found in {name}{twice}")
        if not len(found.ids):
            raise ValueError(
                f"data.embeddings: {name} has none of the {len(tokens):,} {side} tokens, such as "
                f"{', '.join(map(repr, list(tokens)[:3]))}; tokens are compared as they are written."
            )
        leaves[paths[0]] = TakenLeaf(found.rows, 0, found.ids)
    return leaves


def _digest(leaves: Mapping[str, TakenLeaf]) -> str:
    """A digest of values and places."""
    return digest(
        {path: {"values": leaf.values, "ids": () if leaf.ids is None else leaf.ids} for path, leaf in leaves.items()}
    )
