"""The environment, the clock, the umask."""

import os
import shutil
from collections.abc import Iterator, Mapping
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
from tests.attacks.surroundings.works import case, works


def cases() -> Iterator[Case]:
    def given(env: Mapping[str, str | None], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        for name, value in env.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        works(project)
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)

    nowhere = "/nowhere/at/all"
    settings: dict[str, dict[str, str | None]] = {
        "HOME unset": {"HOME": None},
        "HOME empty, TMPDIR a file": {"HOME": "", "TMPDIR": "/etc/passwd"},
        "HOME and TMPDIR are not there": {"HOME": nowhere, "TMPDIR": nowhere},
        "HOME and XDG folders that cannot be written": {
            "HOME": "/proc",
            "XDG_CONFIG_HOME": "/proc",
            "XDG_CACHE_HOME": "/proc",
            "XDG_DATA_HOME": "/proc",
        },
        "PYTHONIOENCODING=ascii, PYTHONUTF8=0 in C": {
            "PYTHONIOENCODING": "ascii",
            "PYTHONUTF8": "0",
            "LANG": "C",
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
        },
        "LC_ALL of no language": {"LC_ALL": "xx_YY.nothing"},
        "TERM, USER and LOGNAME unset, TZ of no place": {
            "TERM": None,
            "USER": None,
            "LOGNAME": None,
            "TZ": "Mars/Olympus",
        },
        "TERM=dumb, COLUMNS=1, PYTHONHASHSEED": {
            "TERM": "dumb",
            "COLUMNS": "1",
            "PYTHONHASHSEED": "7",
        },
        "a proxy": {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
        "MLflow's server, its artifacts and DVC's root elsewhere": {
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MLFLOW_ARTIFACTS_DESTINATION": "/nowhere",
            "DVC_ROOT": "/nowhere",
        },
    }
    for name, env in settings.items():
        yield case(f"the environment: {name}", partial(given, env))

    def home_is_file(folder: Path) -> None:
        """DVC reads the user's own configuration, which may hold what a remote needs."""
        project = projects.copy(folder / "toy")
        (folder / "home").write_text("x")
        done = call(project, "status", env={"HOME": str(folder / "home")})
        said(done.stdout + done.stderr, [str(folder / "home"), "a file stands where a folder"])
        expect(done.returncode == 1, f"code {done.returncode}")

    yield case("the environment: HOME is a file", home_is_file, "low")

    def git_elsewhere(folder: Path) -> None:
        project = projects.copy(folder / "toy")
        done = call(project, "status", env={"GIT_DIR": "/nowhere"})
        said(done.stdout + done.stderr, [])

    yield case("the environment: git's folder elsewhere", git_elsewhere, "low")

    def clock(seconds: float, folder: Path) -> None:
        import time

        project = projects.copy(folder / "toy")
        now = time.time
        time.time = lambda: now() + seconds
        for path in Path().rglob("*"):
            if path.is_file() and ".git/" not in str(path):
                os.utime(path, (now() - seconds, now() - seconds))
        code, text = command("status")
        said(text, ["8 of 8"])
        expect(code == 0, text)
        bring_up("grow@a")
        is_undisturbed(project)

    for years in (-40, 40):
        yield case(f"a clock that is {years} years off", partial(clock, years * 3.15e7))

    def mask(umask: int, folder: Path) -> None:
        os.umask(umask)
        project = projects.copy(folder / "toy")
        shutil.rmtree(".adamerge")
        code, text = command("status")
        said(text, ["8 of 8"])
        expect(code == 0, text)
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)
        expect(not Path(".adamerge/dvc").stat().st_mode & 0o077, ".adamerge/dvc is open to others")

    for umask in (0, 0o077):
        yield case(f"umask {umask:03o}", partial(mask, umask), "critical")
