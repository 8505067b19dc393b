"""The description of the interface for programs: OpenAPI 3.1, made from the operations and their requests."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import s2s_jax
from s2s_jax.serve.errors import CODES
from s2s_jax.serve.requests import request_schema

if TYPE_CHECKING:
    from s2s_jax.serve.api import Operation

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string", "enum": list(CODES)}, "message": {"type": "string"}},
        }
    },
}
EVERYWHERE = ("bad_host", "unauthorized", "method_not_allowed")  # errors that any address may give


def openapi(operations: "Iterable[Operation]") -> dict[str, Any]:
    """The description of the operations."""
    paths: dict[str, dict[str, Any]] = {}
    bodies = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
        if operation.body is not None:
            bodies[operation.body.__name__] = request_schema(operation.body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "s2s serve", "version": s2s_jax.__version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, **bodies},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: "Operation") -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": operation.answer.__name__,
        "responses": {"200": {"description": (operation.answer.__doc__ or "").strip()}, **_errors(operation)},
        "security": [{"token": []}, {}] if operation.secret else [],
    }
    if operation.method == "POST":
        schema = {"$ref": f"#/components/schemas/{operation.body.__name__}"} if operation.body else _OPENNMT
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


_OPENNMT = {
    "type": "array",
    "items": {"type": "object", "required": ["src"], "properties": {"src": {"type": "string"}}},
}


def _errors(operation: "Operation") -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in (*EVERYWHERE, *operation.errors):
        status, meaning = CODES[code]
        by_status.setdefault(status, []).append(f"{code}: {meaning}")
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        str(status): {"description": "; ".join(lines), "content": content}
        for status, lines in sorted(by_status.items())
    }
