"""The addresses of the server: what each takes and returns."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from s2s_jax.serve.errors import RequestError
from s2s_jax.serve.explore import (
    AttendRequest,
    Exploration,
    ForcedRequest,
    InfluenceRequest,
    NeighborsRequest,
    TraceRequest,
)
from s2s_jax.serve.openapi import openapi
from s2s_jax.serve.requests import AlignRequest, ScoreRequest, TranslateRequest, parse_json, parse_request
from s2s_jax.serve.service import Service

BODY_SECONDS = 10.0  # in which a body must have arrived
RETRY_READY_SECONDS = 5
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_Result = TypeVar("_Result")


class Operation(NamedTuple):
    """An address with what it does."""

    method: str
    path: str
    summary: str
    answer: Callable[[Service, Request], Awaitable[Response]]
    body: type | None = None  # the dataclass of the request
    errors: tuple[str, ...] = ()
    secret: bool = True  # whether a token is wanted, where there is one


async def translate(service: Service, request: Request) -> Response:
    """Translations, in one object or as a stream."""
    wanted = parse_request(TranslateRequest, await ready_body(service, request))
    if wanted.stream:
        return StreamingResponse(_events(service.stream(wanted)), media_type="text/event-stream")
    translations = await unless_left(request, service.translate(wanted))
    return json_response({"model": service.model(wanted.model).name, "translations": translations})


async def score(service: Service, request: Request) -> Response:
    """Log-probabilities of pairs."""
    wanted = parse_request(ScoreRequest, await ready_body(service, request))
    scores = await unless_left(request, service.score(wanted))
    return json_response({"model": service.model(wanted.model).name, "scores": scores})


async def align(service: Service, request: Request) -> Response:
    """Alignments of pairs, or of lines with their translations."""
    wanted = parse_request(AlignRequest, await ready_body(service, request))
    alignments = await unless_left(request, service.align(wanted))
    return json_response({"model": service.model(wanted.model).name, "alignments": alignments})


async def opennmt(service: Service, request: Request) -> Response:
    """Translations as the REST server of OpenNMT-py gives them: a list per line, of its best hypothesis."""
    body = parse_json(await ready_body(service, request))
    if not isinstance(body, list) or not all(
        isinstance(each, dict) and isinstance(each.get("src"), str) for each in body
    ):
        raise RequestError("bad_request", 'the body must be a list of objects such as {"src": "a line"}')
    wanted = parse_request(TranslateRequest, json.dumps({"lines": [each["src"] for each in body]}).encode())
    found = await unless_left(request, service.translate(wanted))
    answers = [
        {"src": each["source"], "tgt": each["translation"], "n_best": 1, "pred_score": _score(each)} for each in found
    ]
    return json_response([[answer] for answer in answers])


async def trace(service: Service, request: Request) -> Response:
    """The translations of a line, token by token, and the beam that found them as a tree."""
    return await _explored("trace", TraceRequest, service, request)


async def forced(service: Service, request: Request) -> Response:
    """The losses of a target under teacher forcing and under the model's own predictions."""
    return await _explored("forced", ForcedRequest, service, request)


async def attend(service: Service, request: Request) -> Response:
    """The steps of a target with other attention weights at one of them."""
    return await _explored("attend", AttendRequest, service, request)


async def influence(service: Service, request: Request) -> Response:
    """How much each target token depends on each source token."""
    return await _explored("influence", InfluenceRequest, service, request)


async def neighbors(service: Service, request: Request) -> Response:
    """The training sentences with the nearest decoder states."""
    return await _explored("neighbors", NeighborsRequest, service, request)


async def _explored(method: str, kind: type[Exploration], service: Service, request: Request) -> Response:
    wanted = parse_request(kind, await ready_body(service, request))
    found = await unless_left(request, service.explore(method, wanted))
    return json_response({"model": service.model(wanted.model).name, **found})


async def models(service: Service, request: Request) -> Response:
    """The models and their searches."""
    described = [
        {
            "name": model.name,
            **model.about,
            "max_tokens": model.max_tokens,
            "features": model.features,
            "scores": model.scoring is not None,
            "explores": model.explorer is not None,
            "searches": [
                {
                    "method": search.config.method,
                    "beam": search.config.beam,
                    "hypotheses": search.config.hypotheses,
                    "constraints": len(search.sizes) > 1,
                }
                for search in model.searches
            ],
        }
        for model in service.models.values()
    ]
    return json_response({"models": described})


async def health(service: Service, request: Request) -> Response:
    """Whether the process works."""
    if service.failed:
        raise RequestError("internal_error", "the programs could not be compiled; the server's log says why")
    return json_response({"status": "ok"})


async def ready(service: Service, request: Request) -> Response:
    """Whether every program is compiled."""
    check_ready(service)
    return json_response({"status": "ready"})


async def metrics(service: Service, request: Request) -> Response:
    """What the server counts."""
    return Response(service.batcher.metrics.text(), headers={"Content-Type": PROMETHEUS})


async def description(service: Service, request: Request) -> Response:
    """This interface, as OpenAPI."""
    return json_response(openapi(OPERATIONS))


_OF_BODY = ("bad_json", "bad_request", "timeout", "too_large", "content_type")
_OF_LINES = ("no_such_model", "too_many_lines", "line_too_long", "not_served", "bad_line")
_OF_LOAD = ("queue_full", "not_ready", "deadline", "internal_error")
_OF_WORK = (*_OF_BODY, *_OF_LINES, *_OF_LOAD)
_OF_EXPLORING = tuple(code for code in _OF_WORK if code != "too_many_lines")
OPERATIONS = (
    Operation("POST", "/v1/translate", "Translate lines", translate, TranslateRequest, _OF_WORK),
    Operation("POST", "/v1/score", "Score given pairs", score, ScoreRequest, _OF_WORK),
    Operation("POST", "/v1/align", "Align pairs, or lines with their translations", align, AlignRequest, _OF_WORK),
    Operation("GET", "/v1/models", "List models and searches", models),
    Operation("POST", "/v1/explore/trace", "Look into a search", trace, TraceRequest, _OF_EXPLORING),
    Operation("POST", "/v1/explore/forced", "Look into a given pair", forced, ForcedRequest, _OF_EXPLORING),
    Operation("POST", "/v1/explore/attend", "Replace attention weights", attend, AttendRequest, _OF_EXPLORING),
    Operation("POST", "/v1/explore/influence", "Source saliency", influence, InfluenceRequest, _OF_EXPLORING),
    Operation("POST", "/v1/explore/neighbors", "Similar training states", neighbors, NeighborsRequest, _OF_EXPLORING),
    Operation("POST", "/translator/translate", "Translate as OpenNMT-py's REST server does", opennmt, None, _OF_WORK),
    Operation("GET", "/health", "Is the process alive?", health, errors=("internal_error",), secret=False),
    Operation("GET", "/ready", "Are all programs compiled?", ready, errors=("not_ready",), secret=False),
    Operation("GET", "/metrics", "Counters in the text format of Prometheus", metrics),
    Operation("GET", "/openapi.json", "This description", description),
)


def check_ready(service: Service) -> None:
    """Refuse while programs are compiled.

    Raises:
        RequestError: it says when to try again.
    """
    if not service.batcher.metrics.ready:
        raise RequestError("not_ready", "programs are being compiled", retry_after=RETRY_READY_SECONDS)


async def ready_body(service: Service, request: Request) -> bytes:
    """The body of a request for work.

    Raises:
        RequestError: the server is not ready, or the body is not JSON by its header, too large, or too slow.
    """
    check_ready(service)
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise RequestError("content_type", "the Content-Type must be application/json, in UTF-8")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("content_type", "the body must not be compressed; leave Content-Encoding out")
    most = service.config.max_bytes
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    try:
        return await asyncio.wait_for(_read(request, most), BODY_SECONDS)
    except TimeoutError:
        raise RequestError("timeout", f"the body did not arrive within {BODY_SECONDS:g} seconds") from None


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> RequestError:
    return RequestError("too_large", f"the body has more than {most:,} bytes; send several requests")


async def unless_left(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of work, which is given up when the client leaves, so that its places in the queue are free.

    Raises:
        ClientDisconnect: it has left.
    """
    task, left = asyncio.create_task(work), asyncio.create_task(_until_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(records: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Server-sent events: one per record, and `done` or `error` at the end."""
    count = 0
    try:
        async for record in records:
            yield _event(record, identifier=record["line"])
            count += 1
        yield _event({"lines": count}, name="done")
    except RequestError as error:
        yield _event(error.record, name="error")


def _event(record: dict[str, Any], *, name: str = "", identifier: int | None = None) -> bytes:
    head = (f"event: {name}\n" if name else "") + ("" if identifier is None else f"id: {identifier}\n")
    return f"{head}data: {json.dumps(record, ensure_ascii=False)}\n\n".encode()


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON; numbers keep all their digits."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _score(record: dict[str, Any]) -> float:
    return record["hypotheses"][0]["score"] if record["hypotheses"] else 0.0
