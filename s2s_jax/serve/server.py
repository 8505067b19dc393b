"""The process: listens, serves until a signal, and drains."""

import os
import socket
from collections.abc import Callable

import uvicorn

from s2s_jax.serve.app import create_app
from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.explore import page_routes
from s2s_jax.serve.service import Service

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30  # that an idle connection stays open
GRACE_SECONDS = 5  # beyond the deadline, for what is under way at the end


def serve(service: Service, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Then no connection is accepted any more, and those with a request get its answer.

    The signal is raised once more at the end, so that the process ends as the signal has it.

    Args:
        announce: is given the address when the server listens.

    Raises:
        OSError: the address is not free.
    """
    config = service.config
    listening = listen(config)
    host, port = listening.getsockname()[:2]
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    settings = uvicorn.Config(
        create_app(service, page_routes()),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(config.deadline) + GRACE_SECONDS,
    )
    uvicorn.Server(settings).run(sockets=[listening])


def listen(config: ServeConfig) -> socket.socket:
    """A socket that listens at the address.

    Raises:
        OSError: naming the address.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        number = 0 if isinstance(error, socket.gaierror) else error.errno or 0
        reason = os.strerror(number) if number else error.strerror  # whose own text may have the address in it again
        raise OSError(error.errno, reason, f"{config.host}:{config.port}") from None
