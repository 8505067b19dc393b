"""A run, ready to be looked into: each method takes a sentence and returns plain values of JSON.

Target tokens are in the order in which the model writes them. Numbers are rounded to six digits; one that is not finite
is None.
"""

import functools
import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from s2s_jax.decode.batching import pad_rows, pad_sources, read_source, rounded_length
from s2s_jax.evaluate.gradients import gradient_norms, occlusion, saliency
from s2s_jax.evaluate.states import states_of
from s2s_jax.explore.beam_tree import beam_tree, search_with_record
from s2s_jax.explore.neighbors import NeighborIndex, build_index
from s2s_jax.explore.sentence import Sentence, possible_hypotheses, rounded
from s2s_jax.explore.steps import GivenWeights, attention_shapes, free_run, steps_of
from s2s_jax.run import Run
from s2s_jax.shapes import BOS, EOS, PAD, Batch
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.files import is_blank
from s2s_jax.text.sources import stream_split
from s2s_jax.text.tokenizers import append_eos
from s2s_jax.validation import one_of

ALTERNATIVES = 10
MOST_BEAM = 32
INFLUENCES = {"saliency": saliency, "gradient": gradient_norms, "occlusion": occlusion}


class Explorer:
    """A run with the compiled programs that look into it; each is compiled at first use, per length of the source."""

    def __init__(self, run: Run):
        """Raise ValueError for a run whose search has a language model, which the views would leave out."""
        if run.experiment.search.language_model:
            raise ValueError("the explorer shows one model; leave search.language_model and search.language_weight out")
        self.run, self.max_length = run, run.experiment.search.max_length or run.max_length
        self._inspect = jax.jit(functools.partial(steps_of, run.model, alternatives=ALTERNATIVES))
        self._free_run = jax.jit(functools.partial(free_run, run.model))
        self._states = jax.jit(functools.partial(states_of, run.model))
        self._influence = {name: jax.jit(functools.partial(each, run.model)) for name, each in INFLUENCES.items()}
        self._searches: dict[int, Any] = {}
        self._index: NeighborIndex | None = None
        self._indexing = threading.Lock()

    def trace(
        self, line: str, *, prefix: Sequence[int] = (), beam: int = 0, features: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The translations of a line, each token by token, and the beam that found them as a tree.

        Args:
            prefix: ids of target tokens that the translation begins with, as of a node of the tree or of an
                alternative; the search goes on from there.
            beam: its width; 0 for the run's.

        Raises:
            ValueError: the line is blank, or an argument is out of its range.
        """
        sentence, width = self.read(line, features), beam or self.run.experiment.search.beam
        if not 1 <= width <= MOST_BEAM:
            raise ValueError(f"beam must be between 1 and {MOST_BEAM}, got {width}")
        self.check_ids(sentence, prefix, name="prefix")
        result, record, taken = self._search(width)(
            self.run.params, pad_sources([sentence.ids]), self._target(prefix)[None]
        )
        nodes = beam_tree(jax.device_get(record), 0, width=width, steps=int(taken[0]))
        found = possible_hypotheses(jax.device_get(result))
        records = self._step_records(sentence, [ids for ids, _, _ in found], rows=width)
        hypotheses = [
            {"score": rounded(score), "truncated": truncated, **record}
            for (_, score, truncated), record in zip(found, records, strict=True)
        ]
        return {**sentence.about(), "prefix": list(prefix), "beam": width, "hypotheses": hypotheses} | {
            "tree": sentence.tree(nodes)
        }

    def forced(self, line: str, target: str, *, features: Sequence[str] = ()) -> dict[str, Any]:
        """A given pair: the loss of each target token under teacher forcing and under the model's own predictions.

        `first_wrong` is the first token that was not the likeliest, None for none; `free` has the tokens that the model
        writes when each step is fed the likeliest token of the one before, and the losses of the target there.
        """
        sentence = self.read(line, features)
        ids = append_eos(self.run.pair.encode_target(target, line))
        ids = self.run.pair.drop_absent_slots(sentence.ids[0], ids)
        self._check_length(ids)
        (record,) = self._step_records(sentence, [ids], rows=1)
        free = jax.device_get(self._free_run(self.run.params, self._batch(sentence, [ids], 1)))
        tokens = free.tokens[0].tolist()
        tokens = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
        wrong = (place for place, rank in enumerate(record["rank"]) if rank)
        return {
            **sentence.about(),
            **record,
            "target": target,
            "first_wrong": next(wrong, None),
            "free": {
                "text": sentence.text(tokens),
                "ids": tokens,
                "tokens": sentence.symbols(tokens),
                "log_probs": rounded(free.log_probs[0, : len(ids)]),
            },
        }

    def attend(
        self, line: str, ids: Sequence[int], *, step: int, weights: Sequence[float], features: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A target's steps with other attention weights at one of them, which count in what the model does from there.

        Args:
            ids: the target's tokens, each fed at its step.
            step: whose weights are given.
            weights: of each source token, the end token included; they are used as they are.

        Raises:
            ValueError: the model has no weights that could be replaced, or an argument is out of its range.
        """
        sentence = self.read(line, features)
        self.check_ids(sentence, ids, name="ids", least=1)
        self.check_step(step, ids)
        length = len(sentence.ids[0])
        if len(weights) != length or not all(0 <= weight < np.inf for weight in weights):
            raise ValueError(f"weights must be {length} numbers of 0 or more, one per source token, got {len(weights)}")
        self._check_replaceable()
        batch = self._batch(sentence, [np.asarray(ids, np.int32)], 1)
        given = self._no_weights(batch)
        given.weights[0, step, :length] = weights
        given.replaced[0, step] = True
        steps = jax.device_get(self._inspect(self.run.params, batch, given))
        return {**sentence.about(), **sentence.step_record(steps, 0, list(ids), attends=True), "step": step}

    def influence(
        self, line: str, ids: Sequence[int], *, method: str = "saliency", features: Sequence[str] = ()
    ) -> dict[str, Any]:
        """How much each target token depends on each source token, [T, S]; see `evaluate.gradients`.

        Args:
            method: saliency, gradient times input; gradient, its norm; occlusion, the fall of the log-probability when
                the source token is unknown.
        """
        sentence = self.read(line, features)
        self.check_ids(sentence, ids, name="ids", least=1)
        one_of("method", method, INFLUENCES)
        batch = self._batch(sentence, [np.asarray(ids, np.int32)], 1)
        found = np.asarray(self._influence[method](self.run.params, batch))
        about = {"ids": list(ids), "tokens": sentence.symbols(ids), "method": method}
        return {**sentence.about(), **about, "influence": rounded(found[0, : len(ids), : len(sentence.ids[0])])}

    def neighbors(
        self, line: str, ids: Sequence[int], *, step: int, count: int = 10, features: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The training sentences in which the decoder was in the states nearest to the one after a step.

        The index of training states is made at the first call.
        """
        sentence = self.read(line, features)
        self.check_ids(sentence, ids, name="ids", least=1)
        self.check_step(step, ids)
        if not 1 <= count <= 100:
            raise ValueError(f"count must be between 1 and 100, got {count}")
        index = self.index()
        states = self._states(self.run.params, self._batch(sentence, [np.asarray(ids, np.int32)], 1))
        found = index.nearest(np.asarray(states.decoder[-1][0][0, step]), count)
        neighbors = [each._asdict() | {"distance": rounded(each.distance)} for each in found]
        return {**sentence.about(), "step": step, "states": len(index.states), "neighbors": neighbors}

    def index(self) -> NeighborIndex:
        """The states of the training pairs, read once."""
        with self._indexing:
            if self._index is None:
                pairs = stream_split(self.run.experiment.data, "train", DataReport())
                self._index = build_index(self.run, pairs)
            return self._index

    def read(self, line: str, features: Sequence[str] = ()) -> Sentence:
        """A source as the model reads it.

        Raises:
            ValueError: it is blank, or has other features than the model reads.
        """
        if is_blank(line):
            raise ValueError("the line is blank, and no model reads a blank line; write a sentence")
        pair = self.run.pair
        tokens = pair.encode_source(line)
        ids = read_source(tokens, self.run.experiment.search.max_source)
        return Sentence(pair, line, (ids, *pair.features.with_eos(tuple(features))), len(tokens) + 1 - len(ids))

    def check_ids(self, sentence: Sentence, ids: Sequence[int], *, name: str, least: int = 0) -> None:
        """Refuse ids that are no target tokens.

        Raises:
            ValueError: naming the id.
        """
        self._check_length(ids)
        if len(ids) < least:
            raise ValueError(f"{name} must have at least {least} token(s), got none")
        most = self.run.pair.target.size + len(self.run.pair.slot_words(sentence.line))
        for place, number in enumerate(ids):
            if not 0 <= number < most or number in (PAD, BOS):
                raise ValueError(
                    f"{name} must be ids of target tokens below {most:,}, and not {PAD} or {BOS}, got {number}"
                )
            if number == EOS and place + 1 < len(ids):
                raise ValueError(f"{name} must hold the end token {EOS} at the end alone, got it at place {place}")

    def check_step(self, step: int, ids: Sequence[int]) -> None:
        """Refuse a step that the target does not have.

        Raises:
            ValueError: naming both numbers.
        """
        if not 0 <= step < len(ids):
            raise ValueError(f"step must be between 0 and {len(ids) - 1}, got {step}")

    def _check_length(self, ids: Sequence[int] | np.ndarray) -> None:
        if len(ids) > self.max_length:
            raise ValueError(
                f"a target may have {self.max_length} tokens (search.max_length), its end included, got {len(ids)}"
            )

    @functools.cached_property
    def _replaceable(self) -> bool:
        """Whether a step reads attention weights of the source tokens alone."""
        empty = np.full((1, 8), EOS, np.int32)
        features = (empty,) * len(self.run.pair.features.tokenizers)
        shapes = attention_shapes(self.run.model, self.run.params, Batch(empty, empty, features=features))
        return bool(shapes) and all(shape[-1] == empty.shape[1] for shape in shapes)

    def _check_replaceable(self) -> None:
        if not self._replaceable:
            score = self.run.experiment.model.attention.score
            raise ValueError(
                f"this model (model.attention.score={score}, model.decoder.architecture="
                f"{self.run.experiment.model.decoder.architecture}) has no attention weights of the source alone that "
                "a step reads, so there are none to replace"
            )

    def _search(self, width: int) -> Any:
        if width not in self._searches:
            settings = {"config": self.run.experiment.search, "width": width, "max_length": self.max_length}
            self._searches[width] = jax.jit(functools.partial(search_with_record, self.run.model, **settings))
        return self._searches[width]

    def _target(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Target ids with as much padding as every target has here, so that little is compiled."""
        row = np.full(rounded_length(self.max_length), PAD, np.int32)
        row[: len(ids)] = ids
        return row

    def _batch(self, sentence: Sentence, targets: Sequence[Any], rows: int) -> Batch:
        """The sentence beside each target; rows of PAD fill it up."""
        source, *features = (np.repeat(pad_rows([side]), rows, axis=0) for side in sentence.ids)
        target = np.stack([self._target(targets[row] if row < len(targets) else ()) for row in range(rows)])
        return Batch(source, target, features=tuple(features))

    def _no_weights(self, batch: Batch) -> GivenWeights:
        """What replaces no attention weights."""
        shape = batch.target.shape
        return GivenWeights(np.zeros((*shape, batch.source.shape[1]), np.float32), np.zeros(shape, bool))

    def _step_records(self, sentence: Sentence, targets: Sequence[Any], *, rows: int) -> list[dict[str, Any]]:
        if not targets:
            return []
        batch = self._batch(sentence, targets, rows)
        # of one target by the program that `attend` has too
        given = self._no_weights(batch) if rows == 1 and self._replaceable else None
        steps = jax.device_get(self._inspect(self.run.params, batch, given))
        attends = self.run.experiment.model.attention.attends
        return [
            sentence.step_record(steps, row, list(map(int, ids)), attends=attends) for row, ids in enumerate(targets)
        ]
