"""Limits for the size of files, and mounts."""

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.projects import (
    GROWN,
    bring_up,
    call,
    command,
    expect,
    is_undisturbed,
)
from tests.attacks.surroundings.works import IS_ROOT, case, says_all_is_well


def cases() -> Iterator[Case]:
    def size(limit: int, folder: Path) -> None:
        """Files may have so many bytes: what is cut then is not taken for whole later."""
        project = projects.copy(folder / "toy")
        Path(GROWN).unlink()
        done = call(
            project,
            "status",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        said(done.stdout + done.stderr, [])
        code, text = command("status")
        said(text, ["8 stages have nothing to do", "last pipeline run"])
        expect(code == 0, text)
        bring_up("grow@a")
        is_undisturbed(project)

    for limit in (0, 1000, 100_000):
        yield case(f"files may have {limit} bytes", partial(size, limit))

    if not IS_ROOT:
        return

    def mounted(line: str, told: list[str], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        Path("adamerge.py").write_text(projects.COMMAND)
        words = re.sub(r"(?<![./])adamerge ", f"{sys.executable} adamerge.py ", line)
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", words],
            cwd=project.root,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said(done.stdout + done.stderr, told)
        expect(done.returncode in (0, 1), f"code {done.returncode}")
        says_all_is_well()
        bring_up("grow@a")
        is_undisturbed(project)

    again = 'cd "$PWD"; adamerge status'
    only = 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD" && '
    one = "mount --bind {0} {0} && mount -o remount,ro,bind {0} && adamerge status"
    small = "mount -t tmpfs -o size=16k none {0} && adamerge status"
    lines = {
        "a project that is read-only": (only + again, ["read-only"]),
        ".adamerge is read-only": (one.format(".adamerge"), [".adamerge", "read-only"]),
        ".dvc/cache is read-only": (one.format(".dvc/cache"), [".dvc/cache", "read-only"]),
        "mlartifacts is read-only": (one.format("mlartifacts"), ["mlartifacts", "read-only"]),
        "no /dev/shm": ("mount -t tmpfs -o ro none /dev/shm; adamerge status", ["8 of 8"]),
        "/tmp is full": (
            "unset DVC_SITE_CACHE_DIR PREFECT_HOME; "
            "cp -a . /var/tmp/here$$ && cd /var/tmp/here$$ && mount -t tmpfs -o size=4k none /tmp; "
            "adamerge status; cd /; rm -rf /var/tmp/here$$",
            ["8 of 8"],
        ),
        ".adamerge is nearly full": (small.format(".adamerge"), []),
    }
    for name, (line, told) in lines.items():
        yield case(f"a mount: {name}", partial(mounted, line, told))
