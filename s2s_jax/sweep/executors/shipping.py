"""The files of trials on their way between machines that share no disk."""

import os
from pathlib import Path
from typing import Any, NamedTuple

IGNORED = ("lock", "heartbeat.json")  # which belong to the process of one machine


class Files(NamedTuple):
    """The files of a folder, by their names in it."""

    names: frozenset[str]  # of all that the folder holds
    contents: dict[str, bytes]  # of those that have changed since they were packed last


class Packer:
    """Packs a folder, again and again, each time what has changed."""

    def __init__(self, folder: Path):
        self._folder, self._packed = folder, {}

    def pack(self) -> Files:
        """The files that are there, without unfinished ones; some may be deleted meanwhile."""
        names, contents = set(), {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if path.name in IGNORED or path.name.endswith(".part") or ".orbax-checkpoint-tmp" in name:
                continue
            try:
                stamp = (path.stat().st_size, path.stat().st_mtime_ns)
                if path.is_file() and self._packed.get(name) != stamp:
                    contents[name] = path.read_bytes()
            except FileNotFoundError:
                continue
            if path.is_file():
                names.add(name)
                self._packed[name] = stamp
        return Files(frozenset(names), contents)


def unpack(files: Files, folder: Path) -> None:
    """Make a folder hold the files, and no others but those of its own machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        draft.write_bytes(content)
        draft.replace(path)
    for path in sorted(folder.rglob("*"), reverse=True):  # what a directory holds before the directory
        if path.is_dir():
            if not any(path.iterdir()) and path.parent != folder:
                path.rmdir()
        elif path.name not in IGNORED and path.relative_to(folder).as_posix() not in files.names:
            path.unlink()


class Message(NamedTuple):
    """A sign of life of an attempt at a group of trials."""

    attempt: int
    place: dict[str, Any]  # host and pid of its process, and its devices
    files: tuple[Files, ...] = ()  # of each trial; none where the disk is shared


class Mailbox:
    """An actor through which attempts send messages to the launch."""

    def __init__(self):
        self._messages: list[Message] = []

    def put(self, message: Message) -> int:
        """Add a message; returns the id of this process."""
        self._messages.append(message)
        return os.getpid()

    def take(self) -> list[Message]:
        """All messages that have not been taken."""
        messages, self._messages = self._messages, []
        return messages
