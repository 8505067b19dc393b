"""The settings of the server, which are options of `s2s serve`."""

import dataclasses
import ipaddress

from s2s_jax.decode.batching import rounded_length
from s2s_jax.validation import at_least, check_fields

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where a server listens, how it batches, and what it refuses."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on; 0 for one that is free."""
    token: str = ""
    """What clients must send as `Authorization: Bearer TOKEN`; empty for nothing, which only loopback addresses may."""
    rows: int = 8
    """Lines of a batch. Another number may round differently: it is part of what a result depends on."""
    max_tokens: int = 64
    """Most tokens of a line, or of either side of a pair, the end token included."""
    constraints: bool = False
    """Whether prefixes and phrases are served, whose programs make the start about four times as long."""
    wait: float = 4.0
    """Most milliseconds that a line waits for others to share its batch while the device is idle."""
    queue: int = 1024
    """Most lines that wait; a request beyond it is answered with 429."""
    max_lines: int = 256
    """Most lines or pairs of a request that is not streamed."""
    max_bytes: int = 1_000_000
    """Most bytes of a request's body."""
    deadline: float = 30.0
    """Most seconds that a request may take; of a stream, each of its lines."""

    def __post_init__(self):
        check_fields(self, "")
        for name in ("rows", "max_tokens", "queue", "max_lines", "max_bytes"):
            at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        at_least("--wait", self.wait, 0)
        if not self.deadline > 0:
            raise ValueError(f"--deadline must be more than 0 seconds, got {self.deadline:g}")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port must be between 0 and 65535, got {self.port}")
        if self.max_lines > self.queue:
            raise ValueError(
                f"--max-lines must be at most --queue={self.queue}, got {self.max_lines}; raise --queue, since a "
                "request that never fits would be answered with 429 for ever."
            )
        if not self.is_local and not self.token:
            raise ValueError(
                f"--host {self.host} is reached from other machines, and anybody there could use it; add --token with "
                "a secret of your own, or leave --host out."
            )
        if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
            raise ValueError("--token must be printable ASCII without spaces, since it is sent in a header")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def lengths(self) -> list[int]:
        """The padded lengths of lines of up to `max_tokens`."""
        return sorted({rounded_length(tokens) for tokens in range(1, self.max_tokens + 1)})
