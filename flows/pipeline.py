"""The Prefect flow: every stage of dvc.yaml as one Prefect task, run by DVC.

DVC decides what is up to date and what the cache has; Prefect shows, logs and schedules; MLflow
gets each run from its journal, which a process of its own brings there (tasks.tracking.follower).
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Completed, Crashed, Failed, State

from adamerge_core.errors import InputError
from flows import servers
from flows.dvc.internals import no_experiments
from flows.dvc.plan import Plan, plan
from flows.execute import Run
from flows.run_lock import alone
from tasks.graph import params_yaml
from tasks.running import journal, processes, upkeep
from tasks.running.environment import WORK, configure
from tasks.running.json_files import read_object
from tasks.running.upkeep import UpkeepError
from tasks.tracking.follower import Follower

_FLOW_RUNS = WORK / "flow_runs"

BAD_INPUT = "BadInput"


_prepared: list[tuple[Follower, Plan]] = []


@flow(name="pipeline", persist_result=False, validate_parameters=False)
def pipeline() -> State[None]:
    """Bring every stage of dvc.yaml in the current folder up to date.

    Completed if every stage is; else Failed, after all that does not depend on a failed stage has
    run. However the flow ends, no stage process is left behind.
    """
    configure()
    try:
        upkeep.check()  # a scheduled flow has no command before it, which would do that
        with alone(), no_experiments():
            return _bring_up_to_date(*(_prepared.pop() if _prepared else _ready()))
    except InputError as error:
        return Failed(name=BAD_INPUT, message=str(error))
    except UpkeepError as error:
        return Failed(message=str(error))
    except BaseException:  # Ctrl-C, or the end of Prefect's server
        servers.leave_if_silent()
        raise


def prepare() -> None:
    """Do what the next flow run of this process begins with, while Prefect's server starts."""
    _prepared[:] = [_ready()]


def workers() -> int:
    """Compute how many stages may be at work at a time: the cores by the threads of one stage."""
    threads = params_yaml.values(["compute.threads"])["compute.threads"]
    return max(1, _cores() // (threads if isinstance(threads, int) and threads > 0 else 1))


def _cores() -> int:
    """Count the CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ready() -> tuple[Follower, Plan]:
    follower = Follower()  # first: it starts while DVC is asked
    try:
        return follower, plan()
    except BaseException:
        follower.dismiss()
        raise


def _bring_up_to_date(follower: Follower, found: Plan) -> State[None]:
    key = str(flow_run.get_id())
    _bury_dead_runs(key)
    log = journal.start_pipeline(key, str(flow_run.get_name()), "adamerge run")
    follower.follow(key)
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
    return Failed(message=run.summary()) if run.failed else Completed(message=run.summary())


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
