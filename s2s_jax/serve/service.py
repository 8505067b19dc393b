"""What the server does with a request whose body is checked: lines and pairs in, records out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from s2s_jax.decode.json_records import pair_record, translation_record
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.translate import EncodedLine, Translation
from s2s_jax.evaluate.alignment import alignment_record
from s2s_jax.serve.batcher import Batcher
from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.errors import RequestError
from s2s_jax.serve.explore import Exploration, Explorations, exploration
from s2s_jax.serve.models import Group, Search, ServedModel
from s2s_jax.serve.requests import AlignRequest, ScoreRequest, TranslateRequest, check_per_line
from s2s_jax.text.example import Example
from s2s_jax.text.pairs import example_of

TOKEN_FIELDS = ("tokens", "log_probs")  # of a hypothesis, returned where they are wanted
Encoded = tuple[EncodedLine, Group | None]
_Result = TypeVar("_Result")


class Service:
    """Models behind one queue."""

    def __init__(self, models: Sequence[ServedModel], config: ServeConfig):
        self.models, self.config, self.batcher = {model.name: model for model in models}, config, Batcher(config)
        self.explorations = Explorations()
        self.failed = False  # programs could not be compiled

    async def compile(self) -> None:
        """Compile every program that a request may need."""
        groups = [group for model in self.models.values() for group in model.groups(self.config.lengths)]
        await self.batcher.compile(groups)

    def model(self, name: str) -> ServedModel:
        """A model by its name; the first one where that is empty.

        Raises:
            RequestError: there is none.
        """
        chosen = name or next(iter(self.models))
        if chosen not in self.models:
            known = ", ".join(self.models)
            raise RequestError("no_such_model", f"no model {ascii(name)[:200]} is served; there are {known}")
        return self.models[chosen]

    async def translate(self, request: TranslateRequest) -> list[dict[str, Any]]:
        """A record per line."""
        model, search = self._search(request)
        self._check_count(request.lines, "lines")
        seconds = self._seconds(request.timeout)
        encoded = [model.encode_line(search, line) for line in _constrained(request)]
        found = await _within(seconds, self._translations(encoded, first=0))
        return [_translation_record(each, request) for each in found]

    def stream(self, request: TranslateRequest) -> AsyncIterator[dict[str, Any]]:
        """A record per line, one after another, as they are found. What is wrong with the request is raised at once."""
        model, search = self._search(request)
        self._seconds(request.timeout)  # checked
        return self._stream(request, [model.encode_line(search, line) for line in _constrained(request)])

    async def score(self, request: ScoreRequest) -> list[dict[str, Any]]:
        """A record per pair."""
        self._check_count(request.pairs, "pairs")
        model, examples = self.model(request.model), _examples(request.pairs)
        scored = await _within(self._seconds(request.timeout), self._scored(model, examples))
        hidden = ("alignment", *(() if request.tokens else (*TOKEN_FIELDS, "source_tokens")))
        return [pair_record(pair, without=hidden) for pair in scored]

    async def align(self, request: AlignRequest) -> list[dict[str, Any]]:
        """A record per pair; one without tokens for a line that is blank or has an empty translation."""
        model = self.model(request.model)
        if bool(request.lines) == bool(request.pairs):
            raise RequestError("bad_request", "give either lines or pairs")
        if not model.attends:
            raise RequestError("not_served", f"{model.name} has no attention, so there is no alignment")
        self._check_count(request.lines or request.pairs, "lines" if request.lines else "pairs")
        return await _within(self._seconds(request.timeout), self._aligned(model, request))

    async def explore(self, method: str, request: Exploration) -> dict[str, Any]:
        """What the explorer's method of that name finds."""
        model = self.model(request.model)
        return await self.explorations.run(exploration(model.explorer, method, request, model.max_tokens))

    async def _aligned(self, model: ServedModel, request: AlignRequest) -> list[dict[str, Any]]:
        if request.pairs:
            pairs = dict(enumerate(_examples(request.pairs)))
        else:
            check_per_line(request, "features")
            features = request.features or ((),) * len(request.lines)
            lines = [ConstrainedLine(line, features=of) for line, of in zip(request.lines, features, strict=True)]
            found = await self._translations([model.encode_line(model.searches[0], line) for line in lines], first=0)
            pairs = {
                row: example_of((line.line, translation.text, *line.features))
                for row, (line, translation) in enumerate(zip(lines, found, strict=True))
                if translation.text
            }
        scored = dict(zip(pairs, await self._scored(model, list(pairs.values())), strict=True))
        empty = {"source_tokens": (), "target_tokens": (), "alignment": [], "pharaoh": ""}
        count = len(request.lines or request.pairs)
        return [alignment_record(scored[row]) if row in scored else empty for row in range(count)]

    async def _translations(self, lines: Sequence[Encoded], *, first: int) -> list[Translation]:
        """The translations of lines; `first` is the number of the first one, which samples depend on."""
        rows = [row for row, (_, group) in enumerate(lines) if group is not None]
        work = [(lines[row][1], (lines[row][0], first + row)) for row in rows]
        results = [Translation(encoded.line.line, (), ()) for encoded, _ in lines]
        for row, translation in zip(rows, await self._computed(work), strict=True):
            results[row] = translation
        return results

    async def _scored(self, model: ServedModel, examples: Sequence[Example]) -> list[Any]:
        encoded = [model.encode_pair(example) for example in examples]
        work = [(group, (example, ids)) for example, (ids, group) in zip(examples, encoded, strict=True)]
        return await self._computed(work)

    async def _computed(self, work: Sequence[tuple[Any, Any]]) -> list[Any]:
        futures = self.batcher.submit(work, seconds=self.config.deadline)
        try:
            return [await future for future in futures]
        finally:
            self.batcher.cancel([future for future in futures if not future.done()])
            for future in futures:  # one error is enough
                if future.done() and not future.cancelled():
                    future.exception()

    def _seconds(self, timeout: float) -> float:
        """The seconds that a request may take."""
        if timeout < 0:
            raise RequestError("bad_request", f"timeout must be zero or more, got {timeout:g}")
        return min(timeout or self.config.deadline, self.config.deadline)

    async def _stream(self, request: TranslateRequest, lines: Sequence[Encoded]) -> AsyncIterator[dict[str, Any]]:
        """Parts of the lines, of which two are under way at a time, so that other clients have places too."""
        size = max(1, min(self.config.queue // 4, 4 * self.config.rows))

        async def part(first: int) -> list[Translation]:
            await self.batcher.room(size)
            return await self._translations(lines[first : first + size], first=first)

        tasks: dict[int, asyncio.Task] = {}
        started: set[int] = set()
        try:
            for first in range(0, len(lines), size):
                for ahead in (first, first + size):
                    if ahead < len(lines) and ahead not in started:
                        started.add(ahead)
                        tasks[ahead] = asyncio.create_task(part(ahead))
                found = await _within(self._seconds(request.timeout), tasks.pop(first))
                for row, translation in enumerate(found, first):
                    yield {"line": row, **_translation_record(translation, request)}
        finally:
            for task in tasks.values():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RequestError):
                    await task

    def _search(self, request: TranslateRequest) -> tuple[ServedModel, Search]:
        model = self.model(request.model)
        check_per_line(request, "prefixes", "phrases", "features")
        return model, model.search(method=request.method, beam=request.beam, n_best=request.n_best)

    def _check_count(self, items: Sequence[Any], name: str) -> None:
        if len(items) > self.config.max_lines:
            most = self.config.max_lines
            raise RequestError("too_many_lines", f"{name} has {len(items):,} entries, at most {most:,} may be sent")


async def _within(seconds: float, result: Awaitable[_Result]) -> _Result:
    try:
        return await asyncio.wait_for(result, seconds)
    except TimeoutError:
        raise RequestError("deadline", "the answer was not there in time") from None


def _constrained(request: TranslateRequest) -> list[ConstrainedLine]:
    count = len(request.lines)
    columns = (request.prefixes or ("",) * count, request.phrases or ((),) * count, request.features or ((),) * count)
    return [ConstrainedLine(*fields) for fields in zip(request.lines, *columns, strict=True)]


def _examples(pairs: Sequence[tuple[str, ...]]) -> list[Example]:
    for pair in pairs:
        if len(pair) < 2:
            raise RequestError("bad_request", f"a pair must hold source and target, got {len(pair)} text(s)")
    return [example_of(pair) for pair in pairs]


def _translation_record(translation: Translation, request: TranslateRequest) -> dict[str, Any]:
    hidden = (*(() if request.tokens else TOKEN_FIELDS), *(() if request.alignment else ("alignment",)))
    record = translation_record(translation, request.n_best, without=hidden)
    if not (request.tokens or request.alignment):
        del record["source_tokens"]
    return record | ({"unread": translation.unread} if translation.unread else {})
