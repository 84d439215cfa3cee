"""What a shell gives the command: closed and broken pipes, limits; several at once; signals."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.projects import (
    GROWN,
    expect,
    is_undisturbed,
)
from tests.attacks.surroundings.works import case, says_all_is_well


def _pipes() -> Iterator[Case]:
    def shell(line: str, codes: tuple[int, ...], told: list[str], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        Path("adamerge.py").write_text(projects.COMMAND)
        words = re.sub(r"(?<![./])adamerge ", f"{sys.executable} adamerge.py ", line)
        done = subprocess.run(
            ["bash", "-c", words], cwd=project.root, capture_output=True, text=True, timeout=100
        )
        text = done.stdout + done.stderr
        said(text, told)
        expect(done.returncode in codes, f"code {done.returncode}: {text}")
        expect("Exception ignored" not in text, text)

    lines: dict[str, tuple[str, tuple[int, ...], list[str]]] = {
        "stdout closed": ("adamerge status >&-", (0, 1, 2), []),
        "stdin and stderr closed": ("adamerge status <&- 2>&-", (0,), ["8 of 8"]),
        "all closed": ("adamerge status <&- >&- 2>&-", (0, 1, 2), []),
        "a pipe that breaks": ("adamerge status | true; exit ${PIPESTATUS[0]}", (0, 1, 141), []),
        "a pipe that breaks after a line": ("adamerge methods | head -1", (0,), []),
        "a full device": ("adamerge methods > /dev/full", (1,), ["full"]),
        "a full device, status": ("adamerge status > /dev/full", (1,), ["full"]),
        "lineage of a closed pipe": (f"adamerge lineage {GROWN} | head -1", (0,), [GROWN]),
        "in the background of a session of its own, nohup, nice": (
            "(setsid -w nice -n 19 nohup adamerge status < /dev/null & wait $!)",
            (0,),
            ["8 of 8"],
        ),
        "64 open files": ("ulimit -n 64; adamerge status", (0, 1), []),
        "20 open files": ("ulimit -n 20; adamerge status", (0, 1), []),
        "no core, small stack": ("ulimit -c 0; ulimit -s 1024; adamerge status", (0,), ["8 of 8"]),
    }
    for name, (line, codes, told) in lines.items():
        yield case(f"a shell: {name}", partial(shell, line, codes, told), "low")


def _together() -> Iterator[Case]:
    def two(words: tuple[str, ...], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        started = [
            subprocess.Popen(
                [sys.executable, "-c", projects.COMMAND, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(3)
        ]
        for process in started:
            text, _ = process.communicate(timeout=100)
            said(text, [])
            held = "another DVC process is at work" in text
            expect(process.returncode == 0 or held, f"code {process.returncode}: {text}")
        is_undisturbed(project)

    yield case("status three times at once", partial(two, ("status",)))

    def stopped(sign: signal.Signals, folder: Path) -> None:
        project = projects.copy(folder / "toy")
        process = subprocess.Popen(
            [sys.executable, "-c", projects.COMMAND, "status"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(sign)
        process.communicate(timeout=60)
        says_all_is_well()
        is_undisturbed(project)

    for sign in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        yield case(f"status, ended by {sign.name}", partial(stopped, sign))


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _pipes()
    yield from _together()
