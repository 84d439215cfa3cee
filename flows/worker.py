"""The worker of `adamerge schedule`: runs what prefect.yaml deploys when it is due, one at a time.

It asks Prefect's server which flow runs are due, and which are to be cancelled. What a flow run
does comes from prefect.yaml and this project's code alone: commands, pull steps, job variables,
environments and entrypoints of the server's database are not read.
"""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import FlowRunResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Pending, State

from flows import guard
from flows.deployments import Deployment
from flows.notify import notify
from tasks.graph import params_yaml

_OPEN = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.SCHEDULED]}}})


class Worker:
    """Carries out the flow runs of some deployments, each in a guarded process."""

    def __init__(self, client: SyncPrefectClient, deployments: Mapping[UUID, Deployment]) -> None:
        self._client = client
        self._process: subprocess.Popen[str] | None = None
        self._at_work: UUID | None = None
        self.serve(deployments)

    def serve(self, deployments: Mapping[UUID, Deployment]) -> None:
        """Carry out the flow runs of these deployments from now on."""
        self._deployments = deployments
        self._next = {
            (key, each): each.next()
            for key, found in deployments.items()
            for each in found.schedules
        }

    def turn(self) -> None:
        """Do what there is to do now; call it every few seconds."""
        self._refuse_others()
        self._order_scheduled()
        if self._process and self._at_work:
            self._watch(self._process, self._at_work)
        else:
            self._start_next()

    def stop(self) -> None:
        """End the flow run at work, if there is one."""
        if self._process:
            guard.stop(self._process)

    def _refuse_others(self) -> None:
        """Cancel what is scheduled for a deployment that prefect.yaml does not have."""
        for run in self._client.read_flow_runs(flow_run_filter=_OPEN, limit=200):
            if run.deployment_id not in self._deployments:
                print(f"flow run {run.name!r}: refused, prefect.yaml has no deployment for it")
                message = "refused: prefect.yaml has no such deployment, and nothing else is run"
                self._set(run.id, Cancelled(message=message))

    def _order_scheduled(self) -> None:
        """Make a flow run of each schedule that is due, unless it is paused on Prefect's page."""
        for (key, schedule), when in self._next.items():
            if datetime.now(UTC) < when:
                continue
            self._next[key, schedule] = schedule.next()
            on_page = self._client.read_deployment(key)
            active = [each.schedule for each in on_page.schedules if each.active]
            crons = [each.cron for each in active if isinstance(each, CronSchedule)]
            if not on_page.paused and schedule.cron in crons:
                self._client.create_flow_run_from_deployment(key)

    def _start_next(self) -> None:
        due = self._client.get_scheduled_flow_runs_for_deployments(
            list(self._deployments), scheduled_before=datetime.now(UTC)
        )
        for run in sorted(due, key=_when):
            name = self._deployments[run.deployment_id].name if run.deployment_id else None
            if name and self._take(run.id):
                self._process = guard.start(
                    ["flows.scheduled_run", name, str(run.id)], stdin=subprocess.DEVNULL
                )
                self._at_work = run.id
                return

    def _take(self, flow_run_id: UUID) -> bool:
        """Set the flow run to pending; the server says no where the limit of runs is reached."""
        answer: OrchestrationResult[Any] = self._client.set_flow_run_state(flow_run_id, Pending())
        return answer.state is not None and answer.state.is_pending()

    def _watch(self, process: subprocess.Popen[str], flow_run_id: UUID) -> None:
        try:
            state = self._client.read_flow_run(flow_run_id).state
        except ObjectNotFound:  # deleted on Prefect's page
            state = None
        to_end = state is None or state.is_cancelling() or state.is_cancelled()
        if process.poll() is None and not to_end:
            return
        guard.stop(process)
        if state is not None and to_end:
            self._set(flow_run_id, Cancelled(message="cancelled; the next run goes on from here"))
        elif state is not None and not self._state(flow_run_id).is_final():
            message = f"its process ended with {process.returncode}"
            self._set(flow_run_id, Crashed(message=message))
            if trouble := notify("failed", params_yaml.suite_name(), message, ""):
                print(f"adamerge: {trouble}", file=sys.stderr)
        self._process = self._at_work = None

    def _state(self, flow_run_id: UUID) -> State[Any]:
        return self._client.read_flow_run(flow_run_id).state or Pending()

    def _set(self, flow_run_id: UUID, state: State[Any]) -> None:
        self._client.set_flow_run_state(flow_run_id, state, force=True)


def _when(run: FlowRunResponse) -> datetime:
    return run.next_scheduled_start_time or datetime.now(UTC)
