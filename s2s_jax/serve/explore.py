"""The addresses of the explorer: requests, what computes them, and the page."""

import asyncio
import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s2s_jax.explore.page import PATHS, POLICY, content_type, static_file
from s2s_jax.serve.errors import RequestError

if TYPE_CHECKING:
    from s2s_jax.explore.explorer import Explorer  # not imported for exported runs, which are served without flax

MOST_WAITING = 16  # explorations; they are made one after another
MOST_SECONDS = 300  # of an exploration: at the first one of a length its program is compiled
RETRY_SECONDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exploration:
    """What every request has: a line for a model."""

    line: str
    """The source line."""
    model: str = ""
    """Name of a model, as /v1/models lists them; empty for the first one."""
    features: tuple[str, ...] = ()
    """The features of the line, for a model that reads some."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the explorer's method."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "model"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TraceRequest(Exploration):
    """A line to translate, with everything that there is to see."""

    prefix: tuple[int, ...] = ()
    """Ids of the target tokens that the translation begins with, as the tree and the alternatives have them."""
    beam: int = 0
    """Width of the beam; 0 for the run's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForcedRequest(Exploration):
    """A pair whose target is forced."""

    target: str
    """The target line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfluenceRequest(Exploration):
    """A target whose dependence on the source is wanted."""

    ids: tuple[int, ...]
    """Ids of the target's tokens."""
    method: str = "saliency"
    """saliency, gradient or occlusion."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttendRequest(Exploration):
    """A target, of which one step gets other attention weights."""

    ids: tuple[int, ...]
    """Ids of the target's tokens."""
    step: int
    """The place of the token before which the weights are replaced."""
    weights: tuple[float, ...]
    """The weight of each source token, the end token included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighborsRequest(Exploration):
    """A decoder state whose neighbors are wanted."""

    ids: tuple[int, ...]
    """Ids of the target's tokens."""
    step: int
    """The place of the token that the state predicts."""
    count: int = 10
    """Neighbors to return."""


class Explorations:
    """The thread that explores, beside the one that translates, so that no translation waits for a compilation here."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s2s-explore")
        self.waiting = 0

    async def run(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of work.

        Raises:
            RequestError: too much waits, it takes too long, or it is refused by a ValueError.
        """
        if self.waiting >= MOST_WAITING:
            raise RequestError("queue_full", f"{self.waiting} explorations wait", retry_after=RETRY_SECONDS)
        self.waiting += 1
        try:
            found = asyncio.get_running_loop().run_in_executor(self._thread, work)
            return await asyncio.wait_for(found, MOST_SECONDS)
        except TimeoutError:
            raise RequestError("deadline", "the answer was not there in time") from None
        except ValueError as error:
            raise RequestError("bad_request", str(error)) from None
        finally:
            self.waiting -= 1

    def stop(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def exploration(
    explorer: "Explorer | None", method: str, request: Exploration, most: int
) -> Callable[[], dict[str, Any]]:
    """What computes a request.

    Args:
        most: tokens that a line may have, the end token included.

    Raises:
        RequestError: the model cannot be explored, or the line is too long.
    """
    if explorer is None:
        raise RequestError("not_served", "this model is not explored: an exported run, or one with a language model")
    try:
        longest = max(map(len, explorer.read(request.line, request.features).ids))
    except ValueError as error:
        raise RequestError("bad_line", str(error)) from None
    if longest > most:
        raise RequestError(
            "line_too_long",
            f"the line has {longest:,} tokens, the end token included, and {most:,} are served; cut it into "
            "sentences, or start s2s serve with a larger --max-tokens.",
        )
    return functools.partial(getattr(explorer, method), **request.arguments)


def page_routes() -> list[Route]:
    """The page and its files."""
    return [Route(path, functools.partial(_file, name), methods=["GET"]) for path, name in PATHS.items()]


async def _file(name: str, request: Request) -> Response:
    headers = {"Content-Type": content_type(name), "Content-Security-Policy": POLICY}
    return Response(static_file(name), headers=headers)
