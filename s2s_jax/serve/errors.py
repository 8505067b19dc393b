"""What a client is told when a request cannot be answered: a status, a code for programs, and a line for people."""

from typing import Any

# every code that a response may have, with its status and when it comes; the documentation of the interface has it too
CODES = {
    "bad_json": (400, "the body is not one object of JSON in UTF-8"),
    "bad_request": (400, "a field is unknown, missing, or of another type"),
    "unauthorized": (401, "the token is missing or wrong"),
    "not_found": (404, "there is no such address"),
    "no_such_model": (404, "no model of that name is served"),
    "method_not_allowed": (405, "the address takes another HTTP method"),
    "timeout": (408, "the body did not arrive in time"),
    "too_large": (413, "the body has too many bytes"),
    "too_many_lines": (413, "the request has too many lines"),
    "line_too_long": (413, "a line has too many tokens"),
    "content_type": (415, "the body is not declared as application/json"),
    "bad_host": (421, "the Host header names another server"),
    "not_served": (422, "the model cannot do that, or was not started for it"),
    "bad_line": (422, "a line cannot be translated as it is wanted"),
    "queue_full": (429, "too many lines wait; Retry-After says for how long to wait"),
    "internal_error": (500, "a fault of the server, which its log describes"),
    "not_ready": (503, "programs are being compiled; Retry-After says for how long to wait"),
    "deadline": (504, "the answer was not there in time"),
}


class RequestError(Exception):
    """A request that is not answered as it was meant."""

    def __init__(self, code: str, message: str, *, retry_after: int = 0):
        """`retry_after`: seconds after which it may be sent again; 0 where that would not help."""
        super().__init__(message)
        self.code, self.status, self.message, self.retry_after = code, CODES[code][0], message, retry_after

    @property
    def record(self) -> dict[str, Any]:
        """The error as the body of a response."""
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response that belong to the error."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
