"""The Prefect flow: every stage of dvc.yaml as one Prefect task, run by DVC.

DVC decides what is up to date and what the cache has; Prefect shows, logs and schedules; MLflow
gets each run from its journal, which a process of its own brings there (tasks.tracking.follower).
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed, Crashed, Failed, State

from adamerge_core.errors import InputError
from flows import servers
from flows.dvc.internals import no_experiments
from flows.dvc.plan import Plan, plan
from flows.endings import Ending, show
from flows.estimates import workers
from flows.execute import Run
from flows.notify import notify
from flows.run_lock import alone
from flows.run_parameters import RunParameters
from flows.suites import activate
from tasks.graph import dvc_lock, dvc_yaml, params_yaml, paths
from tasks.report import results
from tasks.running import journal, processes, upkeep
from tasks.running.environment import WORK, configure
from tasks.running.hashes import stored
from tasks.running.json_files import read_object
from tasks.running.upkeep import UpkeepError
from tasks.tracking.follower import Follower

_FLOW_RUNS = WORK / "flow_runs"

BAD_INPUT = "BadInput"


FELL = "Fell"
"""The name of the state of a run that ended well, with accuracies below those of the last one."""

_TOLERANCE = "registry.average_tolerance"

_prepared: list[tuple[Follower, Plan]] = []


@flow(name="pipeline", persist_result=False, validate_parameters=False)
def pipeline(
    suite: str | None = None,
    targets: Sequence[str] = (),
    force: bool = False,
    reason: str = "",
) -> State[None]:
    """Bring the stages of dvc.yaml in the current folder up to date; see RunParameters.

    Completed if every stage is; else Failed, after all that does not depend on a failed stage has
    run. However the flow ends, no stage process is left behind.
    """
    configure()
    try:
        given = {"suite": suite, "targets": targets, "force": force, "reason": reason}
        parameters = RunParameters.read(given)
        upkeep.check()  # a scheduled flow has no command before it, which would do that
        with alone(), no_experiments():
            if parameters.suite is not None and not _prepared:
                activate(parameters.suite, None, force=False)
            follower, found = _prepared.pop() if _prepared else _ready(parameters)
            return _bring_up_to_date(follower, found, parameters)
    except InputError as error:
        return _refused(Failed(name=BAD_INPUT, message=str(error)))
    except UpkeepError as error:
        return _refused(Failed(message=str(error)))
    except BaseException:  # Ctrl-C, or the end of Prefect's server
        servers.leave_if_silent()
        raise


def _refused(state: State[None]) -> State[None]:
    """Notify of a run that could not begin."""
    _notify("failed", params_yaml.suite_name(), state.message or "", "")
    return state


def _notify(event: str, suite: str, message: str, page: str) -> None:
    if trouble := notify(event, suite, message, page):
        get_run_logger().warning(trouble)
        print(f"adamerge: {trouble}", file=sys.stderr)


def prepare(parameters: RunParameters) -> None:
    """Do what the next flow run of this process begins with, while Prefect's server starts; its
    suite is the active one.
    """
    _prepared[:] = [_ready(parameters)]


def _ready(parameters: RunParameters) -> tuple[Follower, Plan]:
    follower = Follower()  # first: it starts while DVC is asked
    try:
        return follower, parameters.select(plan(), dvc_yaml.read())
    except BaseException:
        follower.dismiss()
        raise


def _bring_up_to_date(follower: Follower, found: Plan, parameters: RunParameters) -> State[None]:
    key, suite = str(flow_run.get_id()), params_yaml.suite_name()
    _bury_dead_runs(key)
    name, graph = str(flow_run.get_name()), _graph(found)
    log = journal.start_pipeline(key, name, "adamerge run", graph=graph, reason=parameters.reason)
    follower.follow(key)
    before = results.averages(_last_results(suite))
    run, status = Run(found, log, workers()), "KILLED"
    try:
        run.all()
        status = "FAILED" if run.failed else "FINISHED"
    except BaseException:
        run.say_standing()
        raise
    finally:
        run.stop()
        log.end(status, counts=run.counts())
        if status == "KILLED":
            servers.leave_if_silent()  # the next run then tells Prefect
        (_FLOW_RUNS / key).unlink(missing_ok=True)
        follower.wait()
    run.say(run.summary())
    return _end(Ending.of(suite, run, before, _tolerance(), follower.page), failed=bool(run.failed))


def _end(ending: Ending, *, failed: bool) -> State[None]:
    show(ending)
    if failed:
        _notify("failed", ending.suite, ending.message, ending.page)
        return Failed(message=ending.message)
    if ending.falls:
        _notify("fell", ending.suite, ending.message, ending.page)
        return Completed(name=FELL, message=ending.message)
    return Completed(message=ending.message)


def _tolerance() -> float:
    """Read how far an average may fall without a word, in points."""
    found = params_yaml.values([_TOLERANCE])[_TOLERANCE]
    return float(found) if isinstance(found, int | float) else 0.0


def _last_results(suite: str) -> list[results.Row]:
    """Read the results of the last run: those that dvc.lock has, wherever the file is now."""
    path = paths.report(suite) / results.RESULTS_CSV
    written = {
        out: md5 for entry in dvc_lock.read_lock().values() for out, md5 in entry.outs.items()
    }
    expected = written.get(path.as_posix())
    kept = stored(path, expected) if expected else None
    return results.read_rows(kept) if kept else []


def _graph(found: Plan) -> dict[str, dict[str, Any]]:
    """Note for MLflow what each stage runs, and what is upstream of it."""
    stages = dvc_yaml.read()
    return {
        name: {"phase": stages[name].phase if name in stages else name, "above": list(above)}
        for name, above in found.upstream.items()
    }


def _bury_dead_runs(key: str) -> None:
    """Mark this flow run as alive, and those whose process is gone as crashed in Prefect."""
    _FLOW_RUNS.mkdir(parents=True, exist_ok=True)
    for path in filter(Path.is_file, _FLOW_RUNS.iterdir()):
        if not processes.is_alive(read_object(path)):
            client = get_client(sync_client=True)
            state: State[None] = Crashed(message="its process was killed")
            with suppress(ValueError, ObjectNotFound):
                client.set_flow_run_state(path.name, state, force=True)
        path.unlink()
    (_FLOW_RUNS / key).write_text(json.dumps(processes.process_facts()))
