"""The deployments of prefect.yaml: what `adamerge schedule` runs, and nothing else."""

import importlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import available_timezones

from anyio import run
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adamerge_core.errors import InputError, collected
from flows.run_parameters import RunParameters
from tasks.suite.fields import lines_of, shown
from tasks.suite.yaml_files import load_yaml

PREFECT_YAML = Path("prefect.yaml")

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=200)]


class Schedule(BaseModel):
    """When a deployment's runs begin."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cron: str
    timezone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, value: str) -> str:
        CronSchedule(cron=value)
        return value

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("must be a name of the time zone database, such as Europe/Berlin")
        return value

    def next(self) -> datetime:
        """Compute when the next run begins."""
        from prefect.server.schemas.schedules import CronSchedule as ServerSchedule  # seconds

        schedule = ServerSchedule(cron=self.cron, timezone=self.timezone)
        return run(schedule.get_dates, 1)[0]


class Deployment(BaseModel):
    """A flow of this project under a name, with its schedules."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name
    description: str = ""
    entrypoint: str = Field(pattern=r"^flows(/[a-z_]+)+\.py:[a-z_]+$")
    parameters: RunParameters = RunParameters()
    schedules: list[Schedule] = []
    concurrency_limit: int | None = Field(default=None, ge=1)

    @classmethod
    def of(cls, entry: Any) -> "Deployment":
        """Check an entry of prefect.yaml. Raises InputError with all that is wrong."""
        if not isinstance(entry, Mapping):
            raise InputError(f"{shown(entry)}: must be a name, an entrypoint and what else it has")
        try:
            return cls.model_validate(entry)
        except ValidationError as error:
            raise InputError.listing("a deployment", lines_of(error)) from None

    def flow(self) -> Flow[..., Any]:
        """Import the flow. Raises InputError if there is none."""
        path, _, name = self.entrypoint.partition(":")
        module = path.removesuffix(".py").replace("/", ".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise unfit(f"{self.name}: entrypoint {self.entrypoint}: {error}") from error
        if not isinstance(found, Flow):
            raise unfit(f"{self.name}: entrypoint {self.entrypoint} is no flow")
        return found


def read(path: Path = PREFECT_YAML) -> dict[str, Deployment]:
    """Read the deployments in prefect.yaml by name. Raises InputError, with all that is wrong."""
    try:
        content = load_yaml(path)
    except InputError as error:
        raise unfit(str(error)) from error
    listed = content.get("deployments") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise unfit("it must have `deployments`, a list")
    found: dict[str, Deployment] = {}
    wrong: list[str] = []
    for number, entry in enumerate(listed, 1):
        about = f"deployment {number}"
        with collected(wrong, about):
            deployment = Deployment.of(entry)
            if deployment.name in found:
                raise InputError(f"{about}: the name {deployment.name!r} is there twice")
            found[deployment.name] = deployment
    if wrong:
        raise unfit("\n  ".join(["", *wrong]))
    return found


def deploy(client: SyncPrefectClient, deployment: Deployment) -> Any:
    """Make the server's deployment what prefect.yaml says; return its id."""
    flow = deployment.flow()
    return client.create_deployment(
        client.create_flow_from_name(flow.name),
        deployment.name,
        description=deployment.description,
        entrypoint=deployment.entrypoint,
        parameters=deployment.parameters.model_dump(mode="json", exclude_defaults=True),
        parameter_openapi_schema=parameter_schema(flow).model_dump(),
        enforce_parameter_schema=False,  # a run checks them itself, and says all that is wrong
        concurrency_limit=deployment.concurrency_limit,
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=each.cron, timezone=each.timezone), active=True
            )
            for each in deployment.schedules
        ],
        pull_steps=[],
    )


def remove_others(client: SyncPrefectClient, ids: set[Any]) -> list[str]:
    """Remove the server's deployments that prefect.yaml does not have; return their names."""
    names = []
    while foreign := [each for each in client.read_deployments(limit=200) if each.id not in ids]:
        for each in foreign:
            client.delete_deployment(each.id)
            names.append(each.name)
    return names


def unfit(why: str) -> InputError:
    return InputError(
        f"{PREFECT_YAML} in {Path.cwd()}: {why}\n"
        f"mend it, or bring it back with `git checkout {PREFECT_YAML}`"
    )
