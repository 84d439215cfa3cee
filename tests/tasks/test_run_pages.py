"""What MLflow's pages say of pipeline runs, through the journals that they come from."""

import re
import time
from pathlib import Path

import pytest
from conftest import Project
from journal_runs import stage_run
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tasks.running import journal
from tasks.running.journal import Journal
from tasks.tracking import ingest
from tasks.tracking.found_run import FoundRun
from tasks.tracking.pages import first_page, graph_page, graph_route
from tasks.tracking.pages.graph_page import Node
from tasks.tracking.pages.run_page import GRAPH, NOTE
from tasks.tracking.store import Store

WROTE = {"raw@a": "data/a.txt", "grow@a": "data/b.txt", "merge": "data/c.txt"}
GRAPH_OF_TOY = {
    "raw@a": {"phase": "raw", "above": []},
    "grow@a": {"phase": "grow", "above": ["raw@a"]},
    "merge": {"phase": "merge", "above": ["grow@a"]},
    "report": {"phase": "report", "above": ["merge"]},
}


def a_stage(name: str, pipeline: str, status: str = "FINISHED", **deps: str) -> None:
    stage_run(name, pipeline, {WROTE[name]: f"{name}-md5"}, read=deps, status=status)


def flow_run(key: str, reason: str = "") -> Journal:
    return journal.start_pipeline(
        key, f"run-{key}", "adamerge run", graph=GRAPH_OF_TOY, reason=reason
    )


def found(key: str) -> FoundRun:
    run = Store().pipeline(key)
    assert run is not None
    return run


@pytest.mark.usefixtures("database")
def test_a_pipelines_page_says_what_happened_and_links_to_all_of_it(project: Project) -> None:
    first = flow_run("one")
    a_stage("raw@a", "one")
    first.end("FINISHED", counts={"run": 1})
    ingest.ingest()
    second = flow_run("two", reason="new data | <b>")
    second.cached("raw@a", signature="", outs={"data/a.txt": "raw@a-md5"})
    a_stage("grow@a", "two", **{"data/a.txt": "raw@a-md5"})
    a_stage("merge", "two", "FAILED", **{"data/b.txt": "grow@a-md5"})
    second.end("FAILED", counts={"run": 1, "failed": 1})
    ingest.ingest()
    run, note = found("two"), found("two").tags[NOTE]
    assert "4 stages, 1 ran, 1 cached, 1 failed, 1 not run" in note
    assert re.search(r"Failed: \[✕ merge\]\(#/experiments/\d+/runs/\w{32}\?", note)
    assert "reason: new data \\| &lt;b&gt;" in note
    assert f"[graph](adamerge/runs/{run.run_id}/graph)" in note
    assert "/runs/flow-run/two)" in note
    assert run.tags["mlflow.user"] in note
    rows = [line.split(" | ")[0] for line in note.splitlines() if line.startswith("| ")]
    assert rows[-4:] == ["| raw", "| grow", "| merge", "| report"]
    page = (Path("mlartifacts") / run.run_id / "artifacts" / GRAPH).read_text()
    assert page.count('href="/#/experiments/') == 3
    assert "new data | &lt;b&gt;" in page


@pytest.mark.usefixtures("database", "project")
def test_stage_runs_link_up_and_down() -> None:
    log = flow_run("one")
    a_stage("raw@a", "one")
    a_stage("grow@a", "one", **{"data/a.txt": "raw@a-md5"})
    log.end("FINISHED", counts={})
    ingest.ingest()
    raw, grow = (
        Store().search(f"tags.`adamerge.stage` = '{name}'") for name in WROTE if name != "merge"
    )
    assert raw
    assert grow
    assert FoundRun.of(grow).upstream() == [raw.info.run_id]
    assert FoundRun.of(raw).readers() == {"grow@a": FoundRun.of(grow).page}
    again = flow_run("two")
    again.cached("raw@a", signature="", outs={"data/a.txt": "raw@a-md5"})
    a_stage("merge", "two", **{"data/a.txt": "raw@a-md5"})
    again.end("FINISHED", counts={})
    ingest.ingest()
    run = FoundRun.of(Store().client.get_run(raw.info.run_id))
    assert run.readers().keys() == {"grow@a", "merge"}
    assert run.tags[NOTE].count("read by") == 1
    assert run.tags[NOTE].endswith(" ".join(f"[{n}]({p})" for n, p in run.readers().items()))


@pytest.mark.usefixtures("database", "project")
def test_the_run_of_a_plain_dvc_repro_has_the_graph_of_what_ran() -> None:
    owner = {"owner_pid": 2**22 + 1, "owner_started": "x", "owner_cmd": "dvc repro"}
    stage_run("raw@a", "dvc-1", {"data/a.txt": "a"}, **owner)
    stage_run("grow@a", "dvc-1", {"data/b.txt": "b"}, read={"data/a.txt": "a"}, **owner)
    ingest.ingest()
    note = found("dvc-1").tags[NOTE]
    assert "2 stages, 2 ran" in note
    assert note.index("| raw |") < note.index("| grow |")
    assert "Prefect" not in note


def test_a_page_of_800_stages_is_readable_and_quick() -> None:
    nodes = [
        Node(f"finetune@model-{n}-0", "finetune", "ran", f"#/{n}", (f"prepare@{n}-64",), 1.5)
        for n in range(400)
    ]
    first = [Node(f"prepare@{n}-64", "prepare", "cached", "") for n in range(400)]
    began = time.monotonic()
    page = graph_page.html("A <run>", ["by me & you"], [*first, *nodes], "/")
    assert time.monotonic() - began < 5
    assert len(page) < 400_000
    assert "A &lt;run&gt;" in page
    assert "me &amp; you" in page
    assert page.count('class="stage ran"') == 401  # with the legend's
    assert ">● 7</a>" in page
    assert ">○ 7</span>" in page
    assert "reads from prepare" in page


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f@m-a-0", "f@m-b-0"], ["a", "b"]),
        (["f@m-a-0"], ["m-a-0"]),
        (["f@a", "f@a-b"], ["a", "a-b"]),
        (["f_x@m-0", "f_y@m-0"], ["x", "y"]),
        (["f@a-b-0", "f@a-c-b-0"], ["b", "c-b"]),
    ],
)
def test_labels_are_what_tells_stages_apart(names: list[str], expected: list[str]) -> None:
    assert graph_page.labels([Node(name, "f", "ran", "") for name in names]) == expected


@pytest.mark.usefixtures("project")
def test_the_graphs_page_is_served_alone_and_acts_as_nobody() -> None:
    client = TestClient(Starlette(routes=[graph_route.route()]))
    run_id = "a" * 32
    assert client.get(f"/adamerge/runs/{run_id}/graph").status_code == 404
    folder = Path("mlartifacts") / run_id / "artifacts"
    folder.mkdir(parents=True)
    (folder / GRAPH).write_text("<p>graph</p>")
    answer = client.get(f"/adamerge/runs/{run_id}/graph")
    assert answer.text == "<p>graph</p>"
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts allow-top")
    assert client.get("/adamerge/runs/..%2f..%2fx/graph").status_code == 404


def test_mlflows_first_page_opens_in_the_mode_for_runs() -> None:
    """The names are those that MLflow's script reads: a newer MLflow that renames one is seen."""
    import mlflow.server

    static = Path(mlflow.server.__file__).parent / "js/build"
    page = first_page.first_page((static / "index.html").read_text())
    assert page.index("localStorage") < page.index("static/js/main")
    scripts = "".join(path.read_text() for path in (static / "static/js").glob("*.js"))
    for name in first_page.SETTINGS:
        key, _, version = name.rpartition("_v")
        assert f'key:"{key}",version:{version}' in scripts, name


def test_the_gateway_is_answered_for_by_this_project(tmp_path: Path) -> None:
    """The list of runs asks for its endpoints; MLflow's own answer would send a request on."""
    client = TestClient(Starlette(routes=first_page.routes(tmp_path)))
    answer = client.get(first_page.NO_GATEWAY, params={"gateway_path": "api/2.0"})
    assert answer.json() == {"endpoints": []}
