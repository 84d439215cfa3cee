"""What is no regular file."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from adamerge_core import checkpoints
from adamerge_core.task_vectors import TaskVectors
from tests.attacks.cases import Case, refused
from tests.attacks.checkpoints.files import STATE, load


def cases() -> Iterator[Case]:
    def fifo(path: Path) -> None:
        os.mkfifo(path)

    def a_socket(path: Path) -> None:
        socket.socket(socket.AF_UNIX).bind(path.name)

    makers: dict[str, tuple[Callable[[Path], Any], str]] = {
        "a named pipe": (fifo, "a named pipe"),
        "a folder": (Path.mkdir, "a folder"),
        "a socket": (a_socket, "a socket"),
        "a link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "a device"),
        "a link to /dev/random": (lambda path: path.symlink_to("/dev/random"), "a device"),
        "a link to /dev/stdin": (_linked_pipe, "a named pipe"),
        "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
        "a link to nothing": (lambda path: path.symlink_to("gone"), "a link to nothing"),
        "nothing": (lambda path: None, "no such file"),
    }
    readers: dict[str, Callable[[Path], Any]] = {
        "load": load,
        "read_metadata": checkpoints.read_metadata,
        "TaskVectors.open": lambda path: TaskVectors.open(STATE, {"a": path}),
        "TaskVectors.from_checkpoint_files": lambda path: TaskVectors.from_checkpoint_files(
            STATE, {"a": path}, {"a": path.with_suffix(".out")}
        ),
    }
    for suffix in (".safetensors", ".pt"):
        for name, (make, told) in makers.items():
            for reader, read in readers.items():

                def run(folder: Path, make=make, told=told, read=read, suffix=suffix) -> None:  # type: ignore[no-untyped-def]
                    path = folder / f"model{suffix}"
                    make(path)
                    refused(lambda: read(path), told, str(path))

                yield Case(f"special: {name} as {suffix} by {reader}", run, "high", seconds=10)


def _linked_pipe(path: Path) -> None:
    os.mkfifo("pipe")
    path.symlink_to("pipe")
