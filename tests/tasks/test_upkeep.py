"""Damaged files around the results: set aside, named, swept, and led to where a project stands."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from adamerge_core.atomic import sweep
from adamerge_core.errors import InputError
from tasks.running import failures, upkeep
from tasks.running.aside import set_aside
from tasks.running.json_files import read_object
from tasks.running.upkeep import UpkeepError
from tasks.tracking import database, events


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_in_the_way_is_moved_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".adamerge").write_text("a file")
    Path("dvc.lock").mkdir()
    upkeep.check()
    said = capsys.readouterr().out
    assert ".adamerge is no folder (moved to .adamerge.1); a new one is made" in said
    assert "dvc.lock is no file (moved to .adamerge/aside/dvc.lock.1)" in said
    assert Path(".adamerge.1").read_text() == "a file"
    upkeep.check()
    assert capsys.readouterr().out == ""


def test_nothing_that_was_set_aside_is_written_over() -> None:
    for text in ("one", "two"):
        Path("x").write_text(text)
        set_aside(Path("x"), "is damaged", "go on")
    assert Path(".adamerge/aside/x.1").read_text() == "one"
    assert Path(".adamerge/aside/x.2").read_text() == "two"


def test_a_path_below_which_no_database_opens_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / ("x" * 200) / ("y" * 200)
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(InputError, match=r"must have at most 400, .*: move the project"):
        upkeep.check()


def test_a_link_to_nothing_is_named_and_kept() -> None:
    Path(".dvc").mkdir()
    Path(".dvc/cache").symlink_to("/not/mounted")
    with pytest.raises(UpkeepError, match=r"\.dvc/cache is a link to /not/mounted"):
        upkeep.check()
    assert Path(".dvc/cache").is_symlink()


def test_cut_copies_are_told_from_a_users_files() -> None:
    dead = 2**22 + 5  # above the largest process id
    ours, theirs = f".{dead}-{'0' * 32}.part.npy", f".{'a' * 22}.tmp"
    mine = [".notes.tmp", f".{'a' * 21}.tmp", f".{os.getpid()}-{'0' * 32}.part.npy", ".film.part"]
    Path("data/x").mkdir(parents=True)
    for name in (ours, theirs, *mine):
        Path("data/x", name).touch()
    removed = upkeep.sweep_copies()
    assert sorted(path.name for path in removed) == sorted([ours, theirs])
    assert sorted(path.name for path in Path("data/x").iterdir()) == sorted(mine)
    assert sweep(Path("nowhere")) == []


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"null", b"[" * 100_000])
def test_a_damaged_json_file_says_nothing(content: bytes) -> None:
    Path("x.json").write_bytes(content)
    assert read_object(Path("x.json")) == {}


def test_the_paths_in_mlflows_database_follow_the_project() -> None:
    here, old, other = (Path(p, "mlartifacts").as_uri() for p in (Path.cwd(), "/a b", "/c"))
    with closing(sqlite3.connect(database.DATABASE)) as connection:
        for table, column in database._LOCATIONS:
            connection.execute(f"CREATE TABLE {table} ({column} TEXT, experiment_id INTEGER)")
        connection.execute("INSERT INTO experiments VALUES (?, 1), ('/a b/mlruns/0', 0)", (old,))
        connection.execute(
            "INSERT INTO runs VALUES (?, 1), (?, 1), (?, 1)",
            (f"{old}/1", f"{old}-2/1", f"{other}/1"),
        )
        connection.commit()
        database.relocate()
        database.relocate()
        found = [uri for (uri,) in connection.execute("SELECT artifact_uri FROM runs")]
        assert found == [f"{here}/1", f"{old}-2/1", f"{other}/1"]
        places = list(connection.execute("SELECT artifact_location FROM experiments"))
        assert places == [(here,), (f"{here}/0",)]


def test_a_journal_without_kind_begins_no_run() -> None:
    Path("x.jsonl").write_text('{"event": "start", "run": "x", "time": 1.0}\n')
    assert events.start_of(Path("x.jsonl")) is None
    lines = ['{"event": "metrics", "points": [{"step": 0}]}', "[1]", '{"event": "party"}']
    lines.append('{"event": "end", "status": "FAILED", "time": 2.0}')
    Path("y.jsonl").write_text("\n".join(lines) + "\n")
    assert [event["event"] for event in events.later(Path("y.jsonl"), 0)[0]] == ["end"]


def test_a_full_disk_and_a_limit_are_explained() -> None:
    assert "the disk is full" in str(failures.explain(OSError(28, "No space left on device")))
    limit = failures.explain(OSError(27, "File too large", "data/x"))
    assert limit == (
        "data/x: File too large; the limit of this shell for the size of a file is too low: "
        "ulimit -f unlimited"
    )
    full = sqlite3.OperationalError("database or disk is full")
    assert "the disk is full" in str(failures.explain(full))
    written = sqlite3.OperationalError("disk I/O error")
    assert "ulimit -f unlimited" in str(failures.explain(written))
    assert failures.explain(ValueError("x")) is None
