"""A measurement in a process of its own, which is killed before the machine's memory runs out."""

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from benchmarks.machine import memory_available
from tasks.running.resources import peak_resident

POLL_SECONDS = 0.05

Case = TypeVar("Case")
Result = TypeVar("Result")


class WorkFailed(SystemExit):
    """A measurement raised an exception; whoever goes on with others catches this."""


def in_fresh_process(
    work: Callable[[Case], Result], case: Case, what: str, leave_free: float
) -> Result | str:
    """What `work` gives for `case`, or a text that says what killed its process.

    what: the measurement's name in messages. leave_free: GiB; the process is killed when less of
    the machine's memory is available. It ends with this one, even where that ends by an exception.
    Raises WorkFailed when it ends in another way; its traceback is on stderr.
    """
    processes = get_context("forkserver")
    processes.set_forkserver_preload(["benchmarks.random_models"])  # so PyTorch is imported once
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=_child, args=(work, case, sender), daemon=True)
    process.start()
    sender.close()
    resident, starved = 0.0, False
    while process.is_alive():
        resident = max(resident, peak_resident(process.pid or 0))
        if memory_available() < leave_free and not starved:
            process.kill()
            starved = True
        process.join(POLL_SECONDS)
    if process.exitcode == 0:
        return receiver.recv()
    if not process.exitcode or process.exitcode > 0:
        raise WorkFailed(f"{what}: failed with exit code {process.exitcode}; see its traceback")
    name = signal.Signals(-process.exitcode).name
    cause = "killed for memory" if name == "SIGKILL" else "died"
    why = f", less than {leave_free:g} GiB was left" if starved else ""
    return f"{cause}: {name} at {resident:.2f} GiB resident{why}"


def _child(work: Callable[[Case], object], case: Case, sender: Connection) -> None:
    try:
        sender.send(work(case))
    except torch.OutOfMemoryError as error:
        sender.send(f"does not fit the GPU: {str(error).splitlines()[0]}")
