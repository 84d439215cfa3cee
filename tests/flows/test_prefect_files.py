"""Prefect's files of a project: damaged ones are set aside, others are kept."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows import prefect_files
from flows.prefect_files import PrefectFilesError

DATABASE = Path(".adamerge/prefect/prefect.db")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(DATABASE.parent.resolve()))
    DATABASE.parent.mkdir(parents=True)
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('a3b9c7d2e5f1')")
        connection.commit()


def test_a_damaged_database_is_set_aside(capsys: pytest.CaptureFixture[str]) -> None:
    DATABASE.write_bytes(DATABASE.read_bytes()[:5000])
    DATABASE.with_name("profiles.toml").write_text("[[")
    prefect_files.mend()
    assert not list(DATABASE.parent.iterdir())
    assert "prefect.db is damaged" in capsys.readouterr().out


def test_a_whole_one_is_kept_and_a_newer_one_named() -> None:
    prefect_files.mend()
    assert DATABASE.exists()
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'future'")
        connection.commit()
    with pytest.raises(PrefectFilesError, match="of another version of Prefect"):
        prefect_files.mend()
    assert DATABASE.exists()
