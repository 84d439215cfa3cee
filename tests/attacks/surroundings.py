"""Surroundings: where a project stands, who works in it, and what the machine gives and refuses."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import Any

from tests.attacks import projects
from tests.attacks.cases import Case, Severity, said
from tests.attacks.projects import (
    GROWN,
    REPORT,
    bring_up,
    call,
    command,
    expect,
    is_undisturbed,
)

_ROOT = os.geteuid() == 0  # some cases need its rights: another user, a mount

_NAMES = {
    "blanks": "a b  c",
    "single quotes": "it's 'here'",
    "double quotes": 'a "b"',
    "#": "a#b",
    "&": "a&b=c",
    "letters beyond ASCII": "Zürich–模型",
    "an emoji": "🙂",
    "$": "$HOME ${x}",
    "a semicolon": "a;b",
    "a colon": "a:b",
    "brackets": "[x]{y}(z)",
    "a backslash": "a\\b",
    "a dash in front": "-rf",
    "a dot in front": ".hidden",
    "an @": "a@b",
    "a plus": "a+b",
    "a comma": "a,b",
    "a star": "a*b",
    "a tilde": "~root",
}


def cases() -> Iterator[Case]:
    """Give all cases of the room."""
    projects.hashes()
    for make in (_names, _moved, _variables, _pipes, _limits, _users, _together, _state):
        yield from make()


def _case(
    name: str, run: Callable[[Path], Any], severity: Severity = "medium", seconds: float = 150.0
) -> Case:
    def within(folder: Path) -> None:
        run(folder)

    return Case(name, within, severity, seconds, memory=None)


def _works(project: projects.Project, **more: Any) -> None:
    """Raise FaultError unless the status is told, and a stage restored, in a process of its own."""
    done = call(project, "status", **more)
    said(done.stdout + done.stderr, ["8 of 8 stages have nothing to do", "last pipeline run"])
    expect(done.returncode == 0, done.stderr)


def _says_all_is_well() -> None:
    """Raise FaultError unless the status is told, in this process."""
    code, text = command("status")
    said(text, ["8 of 8 stages have nothing to do", "last pipeline run"])
    expect(code == 0, text)


def _tree(root: Path) -> str:
    """Hash the names and the contents of all files of a folder."""
    total = md5()
    for path in sorted(root.rglob("*")):
        total.update(str(path.relative_to(root)).encode())
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


# --- where a project stands ---------------------------------------------------------------------


def _names() -> Iterator[Case]:
    def named(name: str, folder: Path) -> None:
        project = projects.copy(folder / name / "toy")
        _says_all_is_well()
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)
        _artifacts_open(project)

    for what, name in _NAMES.items():
        yield _case(f"a path with {what}", partial(named, name))

    def refused(name: str, folder: Path) -> None:
        projects.copy(folder / name / "toy")
        code, text = command("status")
        said(text, [name, "must not hold ? or %", "rename the folder"])
        expect(code == 2, f"code {code}")
        expect([path.name for path in folder.iterdir()] == [name], "wrote beside the project")

    for name in ("what?", "100%", "%41"):
        yield _case(f"a path with {name}", partial(refused, name))

    def long(folder: Path) -> None:
        named("/".join(["x" * 200] * 8), folder)

    yield _case("a path of 1,600 characters", long)

    def linked(folder: Path) -> None:
        projects.copy(folder / "real")
        (folder / "link").symlink_to(folder / "real")
        project = projects.enter(folder / "link")
        _works(project, env={"PWD": str(folder / "link")})
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)
        _artifacts_open(project)

    yield _case("a project reached through a link", linked)


def _artifacts_open(project: projects.Project) -> None:
    """Raise FaultError unless all artifacts of all runs lie in the project and open there."""
    from tasks.tracking.store import Store

    os.chdir(project.root)
    client = Store().client
    opened = 0
    for experiment in client.search_experiments():
        if experiment.name == "Default":
            continue
        here = Path("mlartifacts").resolve().as_uri()
        expect(experiment.artifact_location == here, f"leads to {experiment.artifact_location}")
        for run in client.search_runs([experiment.experiment_id]):
            expect(run.info.artifact_uri.startswith(here), f"leads to {run.info.artifact_uri}")
            for entry in client.list_artifacts(run.info.run_id):
                if not entry.is_dir:
                    got = Path(client.download_artifacts(run.info.run_id, entry.path))
                    expect(got.is_file(), f"{entry.path} does not open")
                    opened += 1
    expect(opened > 5, f"{opened} artifacts")


def _moved() -> Iterator[Case]:
    def write(name: str) -> None:
        outs = {REPORT: projects.hashes()[REPORT]}
        from tests.attacks.damage.journals import END, START

        start = {**START, "run": name, "pipeline": f"p-{name}"}
        content = projects.events(start, {**END, "outs": outs})
        Path(".adamerge/journal", f"{name}.jsonl").write_bytes(content)

    def copied(name: str, folder: Path) -> None:
        first = projects.copy(folder / "first")
        command("status")  # its paths are those of this folder now
        before = _tree(first.root)
        copy = folder / name / "copy"
        shutil.copytree(first.root, copy, symlinks=True)
        project = projects.enter(copy)
        write("new")
        _works(project)
        expect(_tree(first.root) == before, "the project that it was copied from has changed")
        _artifacts_open(project)
        expect(_tree(first.root) == before, "the project that it was copied from has changed")

    for name in ("second", *[_NAMES[key] for key in ("blanks", "#", "single quotes")]):
        yield _case(f"a copy in {name!r} leaves the first as it was", partial(copied, name), "high")

    def moved(folder: Path) -> None:
        projects.copy(folder / "first")
        command("status")
        os.chdir(folder)
        (folder / "first").rename(folder / "second")
        project = projects.enter(folder / "second")
        write("new")
        _works(project)
        _artifacts_open(project)
        expect(not (folder / "first").exists(), "the old folder is made anew")

    yield _case("a moved project", moved, "high")

    def back(folder: Path) -> None:
        project = projects.copy(folder / "first")
        for name in ("second", "first", "third"):
            os.chdir(folder)
            project.root.rename(folder / name)
            project = projects.enter(folder / name)
            write(f"run-{name}")
            _says_all_is_well()
        _artifacts_open(project)

    yield _case("a project moved there and back", back, "high")

    def others_stay(folder: Path) -> None:
        """An experiment that a user put elsewhere stays there."""
        from tasks.tracking.store import Store

        projects.copy(folder / "first")
        elsewhere = (folder / "elsewhere").as_uri()
        Store().client.create_experiment("own", elsewhere)
        command("status")
        os.chdir(folder)
        (folder / "first").rename(folder / "second")
        projects.enter(folder / "second")
        own = Store().client.get_experiment_by_name("own")
        expect(own is not None and own.artifact_location == elsewhere, "was changed")

    yield _case("an experiment of the user's own is not moved", others_stay)

    def alike(folder: Path) -> None:
        """Only whole folders are replaced: /a/mlartifacts is no part of /a/mlartifacts-old."""
        from tasks.tracking import database

        projects.copy(folder / "first")
        command("status")
        odd = "file:///first/mlartifacts-old/x"
        with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
            connection.execute("UPDATE runs SET artifact_uri = ? WHERE rowid = 1", (odd,))
            connection.commit()
        os.chdir(folder)
        (folder / "first").rename(folder / "second")
        projects.enter(folder / "second")
        database.relocate()
        with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
            (found,) = connection.execute(
                "SELECT artifact_uri FROM runs WHERE rowid = 1"
            ).fetchone()
        expect(found == odd, found)

    yield _case("a location that only begins alike is kept", alike)

    def server_of_the_first(folder: Path) -> None:
        """A copy does not use the server that runs in the project that it was copied from."""
        import json

        from flows import servers
        from tasks.running import processes

        projects.copy(folder / "first")
        about = {"port": 4200, "root": str(folder / "first"), **processes.process_facts()}
        servers._answers = lambda url: True
        servers._RECORD.write_text(json.dumps(about))
        expect(servers._recorded() is not None, "its own server is not found")
        shutil.copytree(folder / "first", folder / "second")
        projects.enter(folder / "second")
        expect(servers._recorded() is None, "the copy uses the first one's server")

    yield _case("a copy has no server of the first", server_of_the_first, "high")


# --- the environment ----------------------------------------------------------------------------


def _variables() -> Iterator[Case]:
    def given(env: Mapping[str, str | None], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        for name, value in env.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _works(project)
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)

    settings: dict[str, dict[str, str | None]] = {
        "HOME unset": {"HOME": None},
        "HOME empty": {"HOME": ""},
        "HOME is not there": {"HOME": "/nowhere/at/all"},
        "HOME cannot be written": {"HOME": "/proc"},
        "TMPDIR is not there": {"TMPDIR": "/nowhere/at/all"},
        "TMPDIR is a file": {"TMPDIR": "/etc/passwd"},
        "LANG=C": {"LANG": "C", "LC_ALL": "C"},
        "LC_ALL of no language": {"LC_ALL": "xx_YY.nothing"},
        "PYTHONIOENCODING=ascii": {"PYTHONIOENCODING": "ascii"},
        "PYTHONUTF8=0 in C": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        "TERM unset": {"TERM": None},
        "TERM=dumb, COLUMNS=1": {"TERM": "dumb", "COLUMNS": "1"},
        "USER and LOGNAME unset": {"USER": None, "LOGNAME": None},
        "TZ of no place": {"TZ": "Mars/Olympus"},
        "XDG folders that cannot be written": {
            "XDG_CONFIG_HOME": "/proc",
            "XDG_CACHE_HOME": "/proc",
            "XDG_DATA_HOME": "/proc",
        },
        "PYTHONHASHSEED": {"PYTHONHASHSEED": "7"},
        "a proxy": {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
        "MLflow's server named elsewhere": {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        "MLflow's artifacts elsewhere": {"MLFLOW_ARTIFACTS_DESTINATION": "/nowhere"},
        "DVC's root elsewhere": {"DVC_ROOT": "/nowhere"},
    }
    for name, env in settings.items():
        yield _case(f"the environment: {name}", partial(given, env))

    def home_is_file(folder: Path) -> None:
        """DVC reads the user's own configuration, which may hold what a remote needs."""
        project = projects.copy(folder / "toy")
        (folder / "home").write_text("x")
        done = call(project, "status", env={"HOME": str(folder / "home")})
        said(done.stdout + done.stderr, [str(folder / "home"), "a file stands where a folder"])
        expect(done.returncode == 1, f"code {done.returncode}")

    yield _case("the environment: HOME is a file", home_is_file, "low")

    def git_elsewhere(folder: Path) -> None:
        project = projects.copy(folder / "toy")
        done = call(project, "status", env={"GIT_DIR": "/nowhere"})
        said(done.stdout + done.stderr, [])

    yield _case("the environment: git's folder elsewhere", git_elsewhere, "low")

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
        yield _case(f"a clock that is {years} years off", partial(clock, years * 3.15e7))

    def mask(umask: int, folder: Path) -> None:
        os.umask(umask)
        project = projects.copy(folder / "toy")
        shutil.rmtree(".adamerge")
        _works_but_runs(project)
        Path(GROWN).unlink()
        bring_up("grow@a")
        is_undisturbed(project)
        expect(not Path(".adamerge/dvc").stat().st_mode & 0o077, ".adamerge/dvc is open to others")

    for umask in (0, 0o022, 0o077, 0o027):
        yield _case(f"umask {umask:03o}", partial(mask, umask), "critical")


def _works_but_runs(project: projects.Project) -> None:
    done = call(project, "status")
    said(done.stdout + done.stderr, ["8 of 8"])
    expect(done.returncode == 0, done.stderr)


# --- input and output ---------------------------------------------------------------------------


def _pipes() -> Iterator[Case]:
    def shell(line: str, codes: tuple[int, ...], told: list[str], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        Path("adamerge.py").write_text(projects.COMMAND)
        words = line.replace("adamerge", f"{sys.executable} adamerge.py")
        done = subprocess.run(
            ["bash", "-c", words], cwd=project.root, capture_output=True, text=True, timeout=100
        )
        text = done.stdout + done.stderr
        said(text, told)
        expect(done.returncode in codes, f"code {done.returncode}: {text}")
        expect("Exception ignored" not in text, text)

    lines: dict[str, tuple[str, tuple[int, ...], list[str]]] = {
        "stdin closed": ("adamerge status <&-", (0,), ["8 of 8"]),
        "stdout closed": ("adamerge status >&-", (0, 1, 2), []),
        "stderr closed": ("adamerge status 2>&-", (0,), ["8 of 8"]),
        "all closed": ("adamerge status <&- >&- 2>&-", (0, 1, 2), []),
        "a pipe that breaks": ("adamerge status | true; exit ${PIPESTATUS[0]}", (0, 1, 141), []),
        "a pipe that breaks after a line": ("adamerge methods | head -1", (0,), []),
        "a full device": ("adamerge methods > /dev/full", (1,), ["full"]),
        "a full device, status": ("adamerge status > /dev/full", (1,), ["full"]),
        "in the background": ("(adamerge status & wait $!)", (0,), ["8 of 8"]),
        "nohup": ("nohup " + "adamerge status < /dev/null", (0,), ["8 of 8"]),
        "setsid": ("setsid -w " + "adamerge status", (0,), ["8 of 8"]),
        "lineage of a closed pipe": (f"adamerge lineage {GROWN} | head -1", (0,), [GROWN]),
        "64 open files": ("ulimit -n 64; adamerge status", (0, 1), []),
        "20 open files": ("ulimit -n 20; adamerge status", (0, 1), []),
        "no core, small stack": ("ulimit -c 0; ulimit -s 1024; adamerge status", (0,), ["8 of 8"]),
        "nice": ("nice -n 19 adamerge status", (0,), ["8 of 8"]),
    }
    for name, (line, codes, told) in lines.items():
        yield _case(f"a shell: {name}", partial(shell, line, codes, told), "low")


# --- limits and users ---------------------------------------------------------------------------


def _limits() -> Iterator[Case]:
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
        done = call(project, "status")
        said(done.stdout + done.stderr, ["8 stages have nothing to do", "last pipeline run"])
        bring_up("grow@a")
        is_undisturbed(project)

    for limit in (0, 1, 1000, 100_000):
        yield _case(f"files may have {limit} bytes", partial(size, limit))

    if not _ROOT:
        return

    def mounted(line: str, told: list[str], folder: Path) -> None:
        project = projects.copy(folder / "toy")
        Path("adamerge.py").write_text(projects.COMMAND)
        words = line.replace("adamerge", f"{sys.executable} adamerge.py")
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", words],
            cwd=project.root,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said(done.stdout + done.stderr, told)
        expect(done.returncode in (0, 1), f"code {done.returncode}")
        _works(project)
        bring_up("grow@a")
        is_undisturbed(project)

    again = 'cd "$PWD"; adamerge status'
    only = 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD" && '
    one = "mount --bind {0} {0} && mount -o remount,ro,bind {0} && adamerge status"
    small = "mount -t tmpfs -o size=16k none {0} && adamerge status"
    lines = {
        "a project that is read-only": (only + again, ["read-only"]),
        ".adamerge is read-only": (one.format(".adamerge"), [".adamerge", "read-only"]),
        ".dvc/tmp is read-only": (one.format(".dvc/tmp"), [".dvc/tmp", "read-only"]),
        ".dvc/cache is read-only": (one.format(".dvc/cache"), [".dvc/cache", "read-only"]),
        "mlartifacts is read-only": (one.format("mlartifacts"), ["mlartifacts", "read-only"]),
        "no /dev/shm": ("mount -t tmpfs -o ro none /dev/shm; adamerge status", ["8 of 8"]),
        "/tmp is full": (
            "cp -a . /var/tmp/here$$ && cd /var/tmp/here$$ && mount -t tmpfs -o size=4k none /tmp; "
            "adamerge status; cd /; rm -rf /var/tmp/here$$",
            ["8 of 8"],
        ),
        ".adamerge is nearly full": (small.format(".adamerge"), []),
        ".dvc/tmp is nearly full": (small.format(".dvc/tmp"), []),
    }
    for name, (line, told) in lines.items():
        yield _case(f"a mount: {name}", partial(mounted, line, told))


_OTHER = 65534  # the user nobody


def _users() -> Iterator[Case]:
    if not _ROOT:
        return

    def other(own: bool, told: list[str], code: int, folder: Path) -> None:
        """Work as another user, in a project of root's, or in one's own."""
        for above in (folder, *folder.parents[:-1]):
            if above.stat().st_mode & 0o005 != 0o005 and above != Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o055)
        project = projects.copy(folder / "toy")
        if own:
            subprocess.run(["chown", "-R", str(_OTHER), str(project.root)], check=True)
        done = call(
            project,
            "status",
            env={"HOME": "/nonexistent"},
            user=_OTHER,
            group=_OTHER,
            extra_groups=[],
        )
        said(done.stdout + done.stderr, told)
        expect(done.returncode == code, f"code {done.returncode}: {done.stderr}")

    yield _case("another user's project", partial(other, False, ["chown", "cannot be written"], 1))
    yield _case("a user without a home", partial(other, True, ["8 of 8"], 0))

    def unreadable(path: str, told: list[str], folder: Path) -> None:
        folder.chmod(0o755)
        project = projects.copy(folder / "toy")
        subprocess.run(["chown", "-R", str(_OTHER), str(project.root)], check=True)
        Path(path).chmod(0)
        done = call(
            project,
            "status",
            env={"HOME": "/nonexistent"},
            user=_OTHER,
            group=_OTHER,
            extra_groups=[],
        )
        said(done.stdout + done.stderr, [path, *told])
        expect(done.returncode in (1, 2), f"code {done.returncode}")

    for path in (".adamerge", ".dvc/tmp", ".dvc/cache", "mlflow.db", "dvc.lock", "mlartifacts"):
        yield _case(f"{path} without any right", partial(unreadable, path, ["chmod"]))

    def object_without_right(folder: Path) -> None:
        folder.chmod(0o755)
        project = projects.copy(folder / "toy")
        cached = projects.object_of(GROWN)
        Path(GROWN).unlink()
        subprocess.run(["chown", "-R", str(_OTHER), str(project.root)], check=True)
        cached.chmod(0)
        os.setgroups([])
        os.setgid(_OTHER)
        os.setuid(_OTHER)
        os.environ["HOME"] = "/nonexistent"
        _, text = bring_up()
        said(text, ["cannot be read"])
        is_undisturbed(project)

    yield _case("a cache object without any right", object_without_right)


# --- several at once ----------------------------------------------------------------------------


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

    for words in (("status",), ("lineage", GROWN)):
        yield _case(f"{words[0]} three times at once", partial(two, words))

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
        _works(project)
        is_undisturbed(project)

    for sign in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        yield _case(f"status, ended by {sign.name}", partial(stopped, sign))


# --- what other users can reach -----------------------------------------------------------------


def _state() -> Iterator[Case]:
    def planted(folder: Path) -> None:
        """Another user puts a pickle where DVC would look for the hashes that it knows."""
        import pickle

        class Planted:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(folder / "was-run"),)

        project = projects.copy(folder / "toy")
        shared = Path("/var/tmp/dvc/repo")
        before = set(shared.iterdir()) if shared.is_dir() else set()
        _works(project)
        Path(GROWN).unlink()
        bring_up("grow@a")
        after = set(shared.iterdir()) if shared.is_dir() else set()
        expect(after == before, f"{after - before} lie where every user can write")
        found = list(Path(".adamerge/dvc").rglob("cache.db"))
        expect(found, "the hashes lie nowhere")
        for path in (Path(".adamerge/dvc"),):
            expect(not path.stat().st_mode & 0o077, f"{path} is open to others")
        expect(bool(pickle.dumps(Planted())) and not (folder / "was-run").exists(), "it was run")

    yield _case("a pickle in DVC's folder for all users", planted, "critical")

    def opened(folder: Path) -> None:
        projects.copy(folder / "toy")
        command("status")
        Path(".adamerge/dvc").chmod(0o777)
        command("status")
        mode = Path(".adamerge/dvc").stat().st_mode & 0o777
        expect(mode == 0o700, f"{mode:o}")

    yield _case("a folder of hashes that was opened is closed", opened, "critical")
