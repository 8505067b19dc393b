"""The bodies of requests: dataclasses, from which both the checks and the documentation of the interface are made."""

import dataclasses
import difflib
import json
import typing
from typing import Any, TypeVar

from s2s_jax.config import field_descriptions
from s2s_jax.serve.errors import RequestError
from s2s_jax.validation import checked_value, field_types

_Request = TypeVar("_Request")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslateRequest:
    """Lines to translate."""

    lines: tuple[str, ...]
    """The lines."""
    model: str = ""
    """Name of a model, as /v1/models lists them; empty for the first one."""
    method: str = ""
    """Search method of the wanted search, as /v1/models lists the searches; empty for any."""
    beam: int = 0
    """Beam width of the wanted search; 0 for any."""
    n_best: int = 1
    """Hypotheses to return per line, the best first."""
    prefixes: tuple[str, ...] = ()
    """For each line the beginning of its translation; empty for none."""
    phrases: tuple[tuple[str, ...], ...] = ()
    """For each line the phrases that its translation must hold; empty for none."""
    features: tuple[tuple[str, ...], ...] = ()
    """For each line its features, for a model that reads some."""
    tokens: bool = False
    """Whether tokens and their log-probabilities are returned."""
    alignment: bool = False
    """Whether the weights of the source tokens are returned per target token."""
    stream: bool = False
    """Whether results are sent one by one, in order, as server-sent events."""
    timeout: float = 0.0
    """Seconds that the request may take; 0 for the bound of the server."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Pairs to score."""

    pairs: tuple[tuple[str, ...], ...]
    """Source and target of each pair, with its features behind them for a model that reads some."""
    model: str = ""
    """Name of a model, as /v1/models lists them; empty for the first one."""
    tokens: bool = False
    """Whether tokens and their log-probabilities are returned."""
    timeout: float = 0.0
    """Seconds that the request may take; 0 for the bound of the server."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignRequest:
    """Pairs to align, or lines to translate and align."""

    lines: tuple[str, ...] = ()
    """Lines, which are aligned with their own translations; instead of pairs."""
    pairs: tuple[tuple[str, ...], ...] = ()
    """Source and target of each pair, with its features behind them; instead of lines."""
    features: tuple[tuple[str, ...], ...] = ()
    """For each line its features, for a model that reads some."""
    model: str = ""
    """Name of a model, as /v1/models lists them; empty for the first one."""
    timeout: float = 0.0
    """Seconds that the request may take; 0 for the bound of the server."""


REQUESTS = {"translate": TranslateRequest, "score": ScoreRequest, "align": AlignRequest}


def parse_json(body: bytes) -> Any:
    """The value of a body.

    Raises:
        RequestError: it is not JSON in UTF-8, or has a number that JSON has not.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(
            "bad_json", f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}"
        ) from None
    except (ValueError, RecursionError) as error:
        message = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError("bad_json", f"the body is not JSON: {message}") from None


def parse_request(kind: type[_Request], body: bytes) -> _Request:
    """The request of a body.

    Raises:
        RequestError: naming the field, its value and what was wanted.
    """
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError("bad_json", f"the body must be an object of JSON, got {_shown(value)}")
    known = field_types(typing.cast(type, kind))
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise RequestError("bad_request", f"no field {_shown(name)}; {hint}")
    for field in dataclasses.fields(typing.cast(Any, kind)):
        if field.default is dataclasses.MISSING and field.name not in value:
            raise RequestError("bad_request", f"the field {field.name!r} is missing")
    try:
        request = kind(**{name: checked_value(name, entry, known[name]) for name, entry in value.items()})
    except ValueError as error:
        raise RequestError("bad_request", _cut(str(error))) from None
    _check_texts(request)
    return request


def check_per_line(request: TranslateRequest | AlignRequest, *names: str) -> None:
    """Refuse a field that has another number of entries than there are lines.

    Raises:
        RequestError: naming both numbers.
    """
    for name in names:
        count = len(getattr(request, name))
        if count not in (0, len(request.lines)):
            raise RequestError("bad_request", f"{name} must have an entry per line ({len(request.lines)}), got {count}")


def request_schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a request."""
    docs, types = field_descriptions(kind), field_types(kind)
    properties = {}
    required = []
    for field in dataclasses.fields(kind):
        properties[field.name] = {**json_schema(types[field.name]), "description": docs[field.name]}
        if field.default is dataclasses.MISSING:
            required.append(field.name)
        else:
            properties[field.name]["default"] = field.default
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return schema | ({"required": required} if required else {})


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type of a field."""
    if typing.get_origin(kind) is tuple:
        return {"type": "array", "items": json_schema(typing.get_args(kind)[0])}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _check_texts(value: Any) -> None:
    """Refuse a line break inside a text, which is one line, and half of a character."""
    if isinstance(value, str):
        if "\n" in value:
            raise RequestError("bad_line", f"a line must not hold a line break, got {_shown(value)}; send two lines")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RequestError("bad_line", f"a line holds half of a surrogate pair, {_shown(value)}")
    elif isinstance(value, tuple):
        for item in value:
            _check_texts(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_texts(getattr(value, field.name))


def _shown(value: Any) -> str:
    return _cut(ascii(value))


def _cut(text: str) -> str:
    """A text of which long values show their beginning alone."""
    return text if len(text) <= 200 else text[:200] + "..."
