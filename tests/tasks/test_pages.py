"""MLflow's pages in a headless browser: what a person sees of a pipeline run."""

import itertools
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, make_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DESKTOP = {"width": 1500, "height": 1200}
MERGED = "data/suites/toy/merged/seed-0/ties_merging/model.safetensors"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Project]:
    """A toy project that has run twice: the second time all is cached."""
    from flows.pipeline import pipeline

    made = make_project(tmp_path_factory.mktemp("pages") / "toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        for _ in range(2):
            assert pipeline(return_state=True).is_completed()
        yield made


@pytest.fixture(scope="module")
def addresses(ran: Project) -> Iterator[dict[str, str]]:
    """The pages, as `adamerge ui` prints them; Ctrl-C ends both servers."""
    mlflow, prefect = str(free_port()), str(free_port())
    ports = ["--mlflow-port", mlflow, "--prefect-port", prefect]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ui", *ports],
        cwd=ran.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        printed = list(itertools.takewhile(lambda line: "login" not in line, lines))
        yield {line[:16].strip(): line[16:].strip() for line in printed}
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    for port in (mlflow, prefect):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0


@pytest.fixture(scope="module")
def page(addresses: dict[str, str]) -> Iterator[object]:
    """A browser's page."""
    if BROWSER is None:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        login = {"username": "me", "password": Path(".adamerge/secret").read_text().strip()}
        yield browser.new_page(viewport=DESKTOP, http_credentials=login)
        browser.close()


@pytest.fixture(scope="module")
def read(addresses: dict[str, str], page: object) -> object:
    """Opens a page and waits until it shows some text; gives all its text."""

    def text(address: str, until: str, folder: Path = Path("pages")) -> str:
        if "//" not in address:
            address = f"{addresses['runs'].partition('#')[0]}{address}"
        page.goto(address)
        if "#" not in address and "/adamerge/" not in address:  # Prefect's, once a browser
            page.locator("input[type=password]").fill(Path(".adamerge/secret").read_text().strip())
            page.keyboard.press("Enter")
        page.get_by_text(until).first.wait_for(timeout=60_000, state="attached")
        time.sleep(1.5)
        folder.mkdir(exist_ok=True)
        page.screenshot(path=folder / f"{len(list(folder.iterdir()))}.png", full_page=True)
        return str(page.inner_text("body"))

    return text


def found(condition: str) -> object:
    from tasks.tracking.found_run import FoundRun
    from tasks.tracking.store import Store

    run = Store().search(condition)
    assert run is not None
    return FoundRun.of(run)


def test_the_page_of_a_stage_shows_what_it_read_and_wrote(ran: Project, read: object) -> None:
    run = found("tags.`adamerge.stage` = 'grow@a' and params.`grow.steps` = '5'")
    page = read(run.page, "python -m work --kind grow --task a")
    grown = "data/suites/toy/grown/a.txt"
    metrics = ("loss", "transductive/photos", "held_out/average")
    for shown in ("grow@a", *metrics, "grow.steps", "a/train", grown):
        assert shown in page, shown
    assert run.outs()[grown] in page


def test_the_page_of_a_pipeline_run_shows_its_stages(ran: Project, read: object) -> None:
    run = found("tags.`adamerge.stages.run` = '8'")
    page = read(run.page, "average/transductive/ties_merging")
    for shown in ("Child runs", "report", "merge", "adamerge run", "adamerge.stages.run"):
        assert shown in page, shown
    for shown in ("FINISHED after", "8 stages, 8 ran", "ties_merging", "grow", "graph"):
        assert shown in page, shown


def test_the_pages_that_are_printed_show_what_they_say(
    addresses: dict[str, str], read: object
) -> None:
    shown = {
        "runs": "matching runs",
        "last run": "8 stages, 8 cached",
        "its graph": "8 cached",
        "merged models": "ties_merging-seed-0",
        "registry": "toy-merged",
        "flow runs": "Dashboard",
    }
    assert addresses.keys() == shown.keys()
    for name, text in shown.items():
        assert text in read(addresses[name], text), name


def test_the_page_of_a_cached_run_leads_to_the_runs_behind_it(ran: Project, read: object) -> None:
    run = found("tags.`adamerge.stages.cached` = '8'")
    page = read(f"adamerge/runs/{run.run_id}/graph", "8 cached")
    assert all(stage.partition("@")[2] in page for stage in run.cached())
    assert read(run.cached()["merge"], "python -m work --kind merge")


def test_the_list_of_runs_has_them_all(ran: Project, read: object) -> None:
    run = found("tags.`adamerge.stages.run` = '8'")
    page = read(f"#/experiments/{run.experiment_id}/runs", run.tags["mlflow.runName"])
    assert "matching runs" in page


def test_the_best_model_is_in_the_registry(ran: Project, read: object) -> None:
    page = read("#/models/toy-merged", "Version 1")
    assert "candidate" in page
    assert "ties_merging" in page
    page = read("#/models/toy-merged/versions/1", "held-out protocol")
    assert "Did not become champion" in page
    assert "cannot be loaded: no stage in dvc.lock measured it" in page


def test_the_graph_fits_a_phone(ran: Project, addresses: dict[str, str], page: object) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(addresses["its graph"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_text("8 cached").first.is_visible()
    page.locator("a.stage").first.click()
    page.get_by_text("About this run").first.wait_for(timeout=60_000)
    page.set_viewport_size(DESKTOP)


def test_prefect_answers(addresses: dict[str, str]) -> None:
    prefect = addresses["flow runs"].removesuffix("/runs")
    with urllib.request.urlopen(f"{prefect}/api/health") as answer:
        assert answer.status == 200
    with urllib.request.urlopen(prefect) as answer:
        assert "<html" in answer.read().decode().lower()
