"""The commands of `adamerge`: run, status, lineage and ui."""

import os
import sys
import time
import webbrowser
from collections import Counter
from collections.abc import Container
from datetime import datetime
from pathlib import Path

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from flows import page_links, servers
from flows.notify import NOTIFY
from flows.notify import check as check_notify
from flows.run_parameters import RunParameters
from flows.suites import activate, check
from tasks.graph import dvc_lock, dvc_yaml, paths
from tasks.report import results
from tasks.running.environment import HOST, PORTS
from tasks.suite.schema import Suite
from tasks.tracking import database, ingest
from tasks.tracking.database import DATABASE
from tasks.tracking.ingest import IngestionError

# Prefect's own lines say nothing that the flow does not; errors reach the user as messages
_QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_COLORS": "false",
}
_RECORD_SECONDS = 15.0
_HAND_OVER_SECONDS = 5.0


def run(parameters: RunParameters, notify_with: str | None) -> int:
    """Run the pipeline with these parameters, and print its results.

    notify_with: a command that is run when it fails, or accuracies fall.
    """
    if notify_with is not None:
        os.environ[NOTIFY] = check_notify(notify_with)
    if parameters.suite is not None:
        activate(parameters.suite, None, force=False)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    server = servers.prefect(None, pages=False)  # first: it takes seconds to start
    try:
        suite = check()
        _bring_in()
        servers.use_prefect(server)
        from flows.pipeline import BAD_INPUT, pipeline, prepare

        prepare(parameters)
        server.wait()
        with server.needed():
            state = pipeline(**parameters.model_dump(), return_state=True)
            _await_records(str(state.state_details.flow_run_id))
    except servers.EndedError as error:
        servers.leave(str(error))
    finally:
        if not server.ended():
            _hand_over()
        server.stop()
    if not state.is_completed():
        print(f"adamerge: {state.message}", file=sys.stderr)
        return 2 if state.name == BAD_INPUT else 1
    _show_results(suite)
    return 0


def _hand_over() -> None:
    """Send Prefect's server the logs and events that wait to be sent, while it is still there.

    Prefect does that at the end of the process, and then tries for minutes to reach a server.
    """
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for queue in (EventsWorker, APILogWorker):
        queue.drain_all(timeout=_HAND_OVER_SECONDS)


def _await_records(flow_run_id: str) -> None:
    """Wait until Prefect's server has the ends of all task runs, which come a moment later."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter

    open_states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "SCHEDULED"]}}}
    of_run = FlowRunFilter.model_validate({"id": {"any_": [flow_run_id]}})
    still_open = TaskRunFilter.model_validate(open_states)
    until = time.monotonic() + _RECORD_SECONDS
    with get_client(sync_client=True) as client:
        while client.read_task_runs(flow_run_filter=of_run, task_run_filter=still_open, limit=1):
            if time.monotonic() > until:
                return
            time.sleep(0.2)


def _bring_in() -> None:
    """Bring earlier runs' journals into MLflow; print what stands against it, and go on."""
    try:
        ingest.ingest()
    except IngestionError as error:
        print(f"adamerge: {error}", file=sys.stderr)


def _show_results(suite: Suite) -> None:
    rows = results.read(suite.name)
    if rows:
        print(f"\n{results.text_table(rows, results.references(suite.name))}\n")
        print(f"report   {paths.report(suite.name) / 'index.html'}")
    print(_pages())


def _pages() -> str:
    """Write the addresses of the pages whose servers are up; else how to start them."""
    found = page_links.of_project(page_links.served("MLflow"), page_links.served("Prefect"))
    if not found:
        return "pages    adamerge ui   (MLflow: runs, curves, lineage; Prefect: flow runs, logs)"
    return f"pages\n{page_links.written(found)}"


def status() -> int:
    """Print the stages by what they run, and the last pipeline run."""
    from flows.dvc import plan as dvc_plan

    suite = check()
    plan, ran = dvc_plan.plan(), dvc_lock.read_lock()
    kinds = {name: _kind(name, plan.changed, ran) for name in plan.upstream}
    phases = {name: stage.phase for name, stage in dvc_yaml.read().items()}
    groups: dict[str, Counter[str]] = {}
    for name, kind in kinds.items():
        groups.setdefault(phases.get(name, name), Counter())[kind] += 1
    print(f"suite {suite.name}, seeds {', '.join(map(str, suite.seeds))}")
    for group, found in groups.items():
        print(f"  {group:<20} {', '.join(f'{n} {kind}' for kind, n in found.items())}")
    for name in [name for name, kind in kinds.items() if kind == "changed"][:10]:
        print(f"    {name}: {plan.changed[name]}")
    print(f"{len(plan.settled)} of {len(plan.upstream)} stages have nothing to do")
    print(_last_run())
    print(_pages())
    return 0


def _kind(name: str, changed: Container[str], ran: Container[str]) -> str:
    if name not in changed:
        return "up to date"
    return "changed" if name in ran else "never run"


def _last_run() -> str:
    from tasks.tracking.runs import explained
    from tasks.tracking.store import Store

    _bring_in()
    with explained():
        run = Store().last_pipeline() if DATABASE.exists() else None
    if run is None:
        return "no pipeline run is recorded yet"
    began = datetime.fromtimestamp(run.start_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    name = run.tags.get("mlflow.runName", run.run_id)
    return f"last pipeline run: {name}, {began}, {run.status}"


def lineage(what: str, form: str, page: str | None) -> int:
    """Print where a file, a registered model or a commit's results come from.

    form: `screen`, `all` or `json`; page: a file that is written as HTML in place of that.
    """
    from tasks.tracking import lineage as lines
    from tasks.tracking import lineage_text
    from tasks.tracking.runs import explained

    if page is not None and Path(page).is_dir():
        raise InputError(f"--html {page}: is a folder; name a file")
    _bring_in()
    with explained():
        traced = lines.trace(what)
    pages = page_links.served("MLflow")
    if page is not None:
        default = f"http://{HOST}:{PORTS['mlflow']}"
        with atomic_write(Path(page)) as temporary:
            temporary.write_text(lineage_text.as_html(traced, pages or default), "utf-8")
        print(f"{page}: {len(traced.origins)} stage runs; its links lead to {pages or default}")
    elif form == "json":
        print(lineage_text.as_json(traced))
    else:
        write = lineage_text.as_full_text if form == "all" else lineage_text.as_text
        print(write(traced, pages))
    return 0


def ui(mlflow_port: int, prefect_port: int, *, open_pages: bool) -> int:
    """Run MLflow's and Prefect's servers until Ctrl-C; open their first pages if asked."""
    _bring_in()
    if DATABASE.exists():
        database.probe(DATABASE)
        database.relocate(DATABASE)
    else:
        from tasks.tracking.store import Store

        Store()  # makes it whole, which MLflow's server does not when it is cut
    started: list[servers.Server] = []
    try:
        started.append(servers.prefect(prefect_port, pages=True))
        started.append(servers.mlflow(mlflow_port))
        for server in started:
            server.wait()
        prefect, mlflow = (server.address for server in started)
        pages = page_links.of_project(mlflow, prefect)
        print(page_links.written(pages))
        print(servers.LOGIN)
        print("Ctrl-C ends both", flush=True)
        if open_pages:
            for name in ("flow runs", "runs"):  # the last one is in front
                webbrowser.open(pages[name])
        while not (ended := [server for server in started if server.ended()]):
            time.sleep(0.5)
        for server in ended:
            print(f"adamerge: {server.name}'s server ended; its log: {server.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for server in started:
            server.stop()
