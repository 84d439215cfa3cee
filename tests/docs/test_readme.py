"""The README does what it says: its commands exist, its Python runs, its links lead somewhere."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

SERVERS = {  # commands that go on until Ctrl-C, and what they print once they are there
    "adamerge ui": "http://127.0.0.1:",
    "make schedule": "http://127.0.0.1:",
}
START = ". .venv/bin/activate"
LINES = r"^(weight_averaging|task_arithmetic|AdaMerging) +([\d.]+)$"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    text = "\n".join(blocks("sh")).replace("\\\n", " ")  # a command may be on several lines
    return [line for line in text.splitlines() if line.strip()]


def test_the_two_commands_come_first() -> None:
    assert commands()[:2] == ["make run", "make test"]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_known(command: str) -> None:
    """Fast: the target, the subcommand or the file exists. The slow test below runs each."""
    program, *arguments = shlex.split(command)
    if program == "make":
        done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif program == "adamerge":
        words = [word for word in arguments if re.fullmatch(r"[a-z]+", word)]
        groups = words[:2] if words[:1] == ["suite"] else words[:1]
        line = [sys.executable, "-m", "flows.cli", *groups, "--help"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "usage: adamerge" in done.stdout
    elif program == "dvc":
        line = [sys.executable, "-m", "dvc", *arguments, "--help"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        assert program == "git" or command == START


def test_a_virtual_environment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """As on Debian without python3-venv, where a .venv without pip is left behind."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    half = "mkdir -p .venv/bin; touch .venv/bin/python; exit 1"
    python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || {{ {half}; }}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for _ in range(2):  # the second one says the same
        line = ["make", "run", f"PYTHON={python}"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        version = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        assert "python3-venv" in done.stdout
        assert version in done.stdout
        assert not (tmp_path / ".venv").exists()


def accuracies(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(LINES, text, re.MULTILINE)}


def test_the_python_runs_and_prints_what_is_shown() -> None:
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed, shown = accuracies(done.stdout), accuracies(blocks("text")[-1])
    assert list(printed) == list(shown)
    # sums differ by rounding from machine to machine, and training makes more of it
    assert all(abs(printed[name] - shown[name]) < 3 for name in shown), printed


@pytest.mark.parametrize(
    "page",
    [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("d*/*.md"))],
    ids=lambda path: path.name,
)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    local = [target for target in targets if not target.startswith(("http:", "https:"))]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_fresh_clone_does_what_the_readme_says(tmp_path: Path) -> None:
    """Every command, in order, in a clone; `make test` is what runs this, and is left out."""
    clone = tmp_path / "adamerge"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "reader", f"GIT_{who}_EMAIL": "reader@example.org"}
    for command in commands():
        if command == "make test":
            continue
        print(f"$ {command}", flush=True)
        script = f"set -e; [ ! -d .venv ] || {START}; {command}"
        line = ["bash", "-c", script]
        if command in SERVERS:
            _until_it_serves(line, SERVERS[command], clone, environment)
        else:
            subprocess.run(line, cwd=clone, env=environment, check=True)
    rows = (clone / "data/suites/mini/report/results.csv").read_text().splitlines()
    assert len(rows) == 1 + 12 * 2
    changed = subprocess.run(
        ["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert changed.stdout == ""
    shutil.rmtree(clone)


def _until_it_serves(line: list[str], sign: str, folder: Path, environment: dict[str, str]) -> None:
    """Starts a server, waits for the addresses that it prints, reads each, and presses Ctrl-C."""
    process = subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        said = ""
        deadline = time.monotonic() + 180
        while sign not in said and time.monotonic() < deadline:
            said += process.stdout.readline()
        secret = (folder / ".adamerge/secret").read_text().strip()
        login = {"Authorization": f"Basic {b64encode(f'reader:{secret}'.encode()).decode()}"}
        for address in re.findall(r"http://127\.0\.0\.1:\d+", said):
            request = urllib.request.Request(address, headers=login)
            with urllib.request.urlopen(request, timeout=30) as page:
                assert page.status == 200
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
