"""A run's parameters, schedules and notifications. What runs tell: tests/flows/test_pipeline.py."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from adamerge_core.errors import InputError
from flows import cli, deployments, notify, schedules
from flows.dvc.plan import Plan
from flows.endings import falls
from flows.run_parameters import RunParameters
from tasks.graph.dvc_yaml import Stage

UPSTREAM = {"raw@a": (), "raw@b": (), "grow@a": ("raw@a",), "merge": ("grow@a", "raw@b")}
KINDS = {name: Stage(name, f"python -m tasks.{name.split('@')[0]}") for name in UPSTREAM}
NEVER_RUN = dict.fromkeys(UPSTREAM, "never run")


# --- parameters -----------------------------------------------------------------------------------


def selected(changed: dict[str, str] | None = None, **given: Any) -> Plan:
    return RunParameters.read(given).select(Plan(UPSTREAM, changed or {}), KINDS)


def test_targets_are_run_with_what_is_upstream_of_them() -> None:
    assert selected(NEVER_RUN).upstream == UPSTREAM
    plan = selected(NEVER_RUN, targets=["grow"])
    assert list(plan.upstream) == ["raw@a", "grow@a"]
    assert set(plan.changed) == {"raw@a", "grow@a"}
    assert list(selected(targets=["raw@b", "grow@a"]).upstream) == ["raw@a", "raw@b", "grow@a"]
    with pytest.raises(InputError, match=r"'grwo' is no stage.*near are grow"):
        selected(targets=["grwo", "raw"])


def test_force_runs_the_targets_again_and_without_any_all() -> None:
    assert selected(force=True).forced == set(UPSTREAM)
    plan = selected(force=True, targets=["grow@a"])
    assert plan.forced == {"grow@a"}
    assert plan.settled == {"raw@a"}
    assert selected().settled == set(UPSTREAM)


def test_parameters_say_all_that_is_wrong_at_once() -> None:
    with pytest.raises(InputError) as caught:
        RunParameters.read({"suite": "../x", "targets": "x", "force": 7, "reason": "y" * 2000})
    for part in ("suite", "targets", "force", "reason"):
        assert f"{part} = " in str(caught.value)


# --- schedules ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "tasks").mkdir()
    shutil.copy(ROOT / "suites/mini.yaml", tmp_path / "suites")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("signals")
def test_schedules_are_added_and_removed_and_the_rest_stays(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("prefect.yaml").read_text()
    cron = ["--cron", "0 3 * * 6", "--timezone", "Europe/Berlin"]
    given = ["--target", "evaluate", "--force", "--reason", "a week's end"]
    assert cli.main(["schedule", "add", "mini", *cron, *given]) == 0
    made = deployments.read()["mini"]
    assert made.parameters == RunParameters(
        suite="mini", targets=("evaluate",), force=True, reason="a week's end"
    )
    assert [(each.cron, each.timezone) for each in made.schedules] == [(cron[1], cron[3])]
    assert all(line in Path("prefect.yaml").read_text() for line in before.splitlines())
    assert cli.main(["schedule", "list"]) == 0
    said = capsys.readouterr().out
    assert "nightly: next at" in said
    assert "(0 3 * * 6), mini, evaluate, by force" in said
    assert cli.main(["schedule", "add", "mini", *cron]) == 2
    assert "has a deployment 'mini'" in capsys.readouterr().err
    assert cli.main(["schedule", "remove", "mini"]) == 0
    assert Path("prefect.yaml").read_text() == before


@pytest.mark.usefixtures("signals", "folder")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "mino", "--cron", "0 3 * * 6"], "suite 'mino' is unknown"),
        (["add", "mini", "--cron", "x 3 * * 6"], "Invalid cron"),
        (["add", "mini", "--cron", "0 3 * * 6", "--timezone", "Mars"], "time zone database"),
        (["add", "mini", "--cron", "0 3 * * 6", "--name", "a/b"], "name = 'a/b'"),
        (["remove", "mini"], "no deployment 'mini'; it has 'nightly'"),
    ],
)
def test_bad_schedules_change_nothing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("prefect.yaml").read_bytes()
    assert cli.main(["schedule", *words]) == 2
    assert said in capsys.readouterr().err
    assert Path("prefect.yaml").read_bytes() == before


def test_without_a_schedule_the_list_says_how_to_add_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedules.remove("nightly")
    schedules.list_all()
    assert "adamerge schedule add" in capsys.readouterr().out


# --- notifications --------------------------------------------------------------------------------


def command(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_a_notification_is_a_command_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "told.json"
    code = (
        "import json, os, sys; names = ('EVENT', 'SUITE', 'PAGE');"
        f"open({str(out)!r}, 'w').write(json.dumps([sys.stdin.read(),"
        " *(os.environ['ADAMERGE_' + name] for name in names)]))"
    )
    assert notify.notify("failed", "mini", "text", "page") is None
    monkeypatch.setenv(notify.NOTIFY, notify.check(command(code)))
    assert notify.notify("failed", "mini", "two\nlines", "http://page") is None
    assert json.loads(out.read_text()) == ["two\nlines", "failed", "mini", "http://page"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (command("import sys; print('no mail'); sys.exit(3)"), "ended with 3: no mail"),
        ("/no/such/command", "No such file"),
    ],
)
def test_a_notification_that_fails_is_told(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(notify.NOTIFY, given)
    assert said in str(notify.notify("failed", "mini", "text", ""))


@pytest.mark.parametrize("given", ["", "  ", "mail 'x"])
def test_what_is_no_command_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="command to notify with"):
        notify.check(given)


def test_a_fall_is_told_beyond_what_is_tolerated() -> None:
    before = {("held_out", "a"): 70.0, ("held_out", "b"): 70.0, ("held_out", "gone"): 1.0}
    now = {("held_out", "a"): 69.5, ("held_out", "b"): 69.4, ("held_out", "new"): 1.0}
    assert falls(now, before, 0.5) == ["b, held_out: 70.00 -> 69.40 %"]
