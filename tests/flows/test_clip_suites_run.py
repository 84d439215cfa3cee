"""Every suite of the paper's setting, and clip-real-small, from its downloads to its report.

One is run by `-k NAME`.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Project
from field_project import BY_DVC, NAMES, Field, field_project, thinned

from tasks.graph import paths
from tasks.report.catalogue import PUBLISHED


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field_project(tmp_path_factory.mktemp("field")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_a_suite_runs_from_its_downloads_to_its_report(field: Field, name: str) -> None:
    field.bring_in(name)
    said = field.run("flows.cli", "run")
    assert " failed" not in said
    assert "Data and pipelines are up to date." in field.run("dvc", "repro")
    assert "Data and pipelines are up to date." in field.run("dvc", "status")
    check_report(field.project.root / paths.report(name), thinned(name))
    if name in BY_DVC:
        again = field.copy(field.root / f"dvc-{name}")
        field.bring_in(name, again)
        field.run("dvc", "repro", project=again)
        made = results(again)
        here = results(field.project)
        assert made == {stage: here[stage] for stage in made}


def results(project: Project) -> dict[str, dict[str, str]]:
    """Read the md5s of all that stages wrote, by stage and path."""
    stages = yaml.safe_load((project.root / "dvc.lock").read_text("utf-8"))["stages"]
    return {
        name: {out["path"]: out["md5"] for out in entry.get("outs", [])}
        for name, entry in stages.items()
    }


def check_report(folder: Path, raw: dict[str, Any]) -> None:
    """Rows are the suite's; beside its averages stand those published of its line alone."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    references = {"pretrained", "individual"} | {"traditional_mtl"} & raw.keys()
    assert {row["method"] for row in rows} == references | raw["methods"].keys()
    averages = {row["method"]: row["average"] for row in rows if row["protocol"] == "transductive"}
    page = (folder / "results.html").read_text("utf-8")
    line = raw.get("checkpoints", {}).get("line")
    lines = {row["line"] for row in published_rows()}
    titles = re.findall(r"Beside what was published of (\w+)", page)
    known = published_rows(line, len(raw["tasks"]), raw["model"]["architecture"])
    assert set(titles) == ({line} & lines if known else set())
    assert ("Beside the paper" in page) == (line is None)
    title = f"published of {line}" if line else "Beside the paper"
    table = page.split(title, 1)[1].split("</table>")[0] if known else ""
    shown = [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in cells]
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        if (cells := re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL))
    ]
    for row in known:
        ours = averages.get(row["method"])
        if ours is None:
            continue
        beside = [f"{float(row['average']):.1f}", f"{float(ours):.1f}"]
        assert any(cells[1:3] == beside for cells in shown), (row, beside, shown)


def published_rows(
    line: str | None = None, tasks: int | None = None, architecture: str | None = None
) -> list[dict[str, str]]:
    """Read the published averages, of one line, number of tasks and model where these are given."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        return [
            row
            for row in csv.DictReader(file)
            if architecture is None
            or (
                (row["line"], row["tasks"]) == (line, str(tasks))
                and architecture.startswith(row["model"])
            )
        ]
