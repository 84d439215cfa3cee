"""The room of the servers, its ends: Prefect's server dies or hangs in the middle of a run."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from tests.attacks.cases import Case, FaultError, said
from tests.attacks.servers.served import environment, until
from tests.toy import make_project

# the flow as `adamerge run` starts it; the toy project is no suite, which that would refuse
_RUN = """
from flows import cli, commands
class Toy:
    name = "toy"
commands.check = Toy
raise SystemExit(cli.main(["run"]))
"""

_SERVE = "from flows.nightly import serve; raise SystemExit(serve({port}, now=True))"

_ENDS = {
    "is killed": (signal.SIGKILL, []),
    "ends by itself": (signal.SIGTERM, []),
    "hangs": (signal.SIGSTOP, []),
    "is killed, then Ctrl-C": (signal.SIGKILL, [signal.SIGINT]),
    "is killed, then Ctrl-C twice": (signal.SIGKILL, [signal.SIGINT, signal.SIGINT]),
    "is killed, then SIGTERM": (signal.SIGKILL, [signal.SIGTERM]),
    "hangs, then Ctrl-C": (signal.SIGSTOP, [signal.SIGINT]),
    "hangs, then SIGTERM twice": (signal.SIGSTOP, [signal.SIGTERM, signal.SIGTERM]),
}


def cases() -> Iterator[Case]:
    """A run and `adamerge schedule`, each with a server that ends."""
    for name, (sign, then) in _ENDS.items():
        run = partial(_run_without_server, sign, then)
        yield Case(f"a run whose server {name}", run, "high", seconds=600, memory=None)
    for sign in (signal.SIGKILL, signal.SIGSTOP):
        run = partial(_schedule_without_server, sign)
        name = f"schedule whose server gets {sign.name}"
        yield Case(name, run, "high", seconds=600, memory=None)


def _run_without_server(sign: signal.Signals, then: list[signal.Signals], folder: Path) -> None:
    process, log = _start(folder, _RUN)
    _server(process).send_signal(sign)
    for each in then:
        time.sleep(0.5)
        process.send_signal(each)
    limit = 40 if then or sign is not signal.SIGSTOP else 110
    until(lambda: process.poll() is not None, limit, f"the end of the run; {log.read_text()}")
    text = log.read_text()
    if not process.returncode:
        raise FaultError(f"ended with 0:\n{text}")
    said(text, ["the same command goes on from here"])
    # a server that hangs is noticed after a minute: until then all may be done
    if "interrupted: " not in text and not (sign is signal.SIGSTOP and "8 stages in" in text):
        raise FaultError(f"does not say how far it came:\n{text}")
    until(lambda: not _left(folder), 10, f"the end of {_left(folder)}")
    again, log = _start(folder, _RUN, wait=False)
    if again.wait(200) or "8 stages in" not in log.read_text():
        raise FaultError(f"the next run: {log.read_text()}")


def _schedule_without_server(sign: signal.Signals, folder: Path) -> None:
    from tests.attacks.servers.served import ports

    process, log = _start(folder, _SERVE.replace("{port}", str(ports(1)[0])))
    _server(process).send_signal(sign)
    until(lambda: process.poll() is not None, 110, f"the end of schedule; {log.read_text()}")
    if not process.returncode or "Prefect's server ended" not in log.read_text():
        raise FaultError(f"ended with {process.returncode}:\n{log.read_text()}")
    until(lambda: not _left(folder), 10, f"the end of {_left(folder)}")


def _start(folder: Path, code: str, *, wait: bool = True) -> tuple["subprocess.Popen[str]", Path]:
    """Start the toy's flow; wait until a stage is in the middle of its work."""
    root, log = folder / "toy", folder / "log"
    if not root.exists():
        project = make_project(root)
        project.replace("params.yaml", "seconds: 0.01", "seconds: 0.3")
        prefect_yaml = Path(__file__).parents[3] / "prefect.yaml"
        project.write("prefect.yaml", prefect_yaml.read_text())
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=root,
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if wait:
        until(lambda: bool(list((root / ".adamerge").glob("scratch/*/*"))), 300, "a stage at work")
    return process, log


def _server(process: "subprocess.Popen[str]") -> psutil.Process:
    children = psutil.Process(process.pid).children()
    return next(each for each in children if "flows.prefect_server" in each.cmdline())


def _left(folder: Path) -> list[list[str]]:
    """Processes at work in the project, but the one that records the end of the run."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if Path(process.cwd()).is_relative_to(folder / "toy"):
                found.append(words)
        except psutil.Error:
            continue
    return [words for words in found if words and "tasks.tracking.follower" not in words]
