"""`adamerge schedule add | list | remove`: the deployments in prefect.yaml, one a suite or more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from flows.deployments import PREFECT_YAML, Deployment, Schedule, read, unfit
from flows.run_parameters import RunParameters
from flows.suites import file_of

_ENTRYPOINT = "flows/pipeline.py:pipeline"
_WIDTH = 120


def add(name: str | None, cron: str, timezone: str, parameters: RunParameters) -> int:
    """Add a deployment that runs a suite by a cron line; its name is the suite's by default."""
    suite = parameters.suite or ""
    file_of(suite)
    entry = {
        "name": name or suite,
        "description": parameters.reason or f"Brings the suite {suite} up to date",
        "entrypoint": _ENTRYPOINT,
        "parameters": _given(parameters),
        "schedules": [{"cron": cron, "timezone": timezone}],
        "concurrency_limit": 1,
    }
    made = Deployment.of(entry)
    if made.name in read():
        raise InputError(
            f"{PREFECT_YAML} has a deployment {made.name!r}: give another with --name, or remove "
            f"that one: adamerge schedule remove {made.name!r}"
        )
    _edit(lambda listed: listed.append(entry))
    print(f"{made.name}: {line(made)}")
    print("runs while `adamerge schedule` is at work; one that is takes it up by itself")
    return 0


def list_all() -> int:
    """Print the deployments: when each runs next, and what."""
    found = read()
    for each in found.values():
        print(f"{each.name}: {line(each)}")
    if not found:
        print("nothing is scheduled: adamerge schedule add NAME --cron '0 2 * * *'")
    return 0


def remove(name: str) -> int:
    """Remove a deployment. Raises InputError, which names those there are."""
    found = read()
    if name not in found:
        known = ", ".join(map(repr, found)) or "none"
        raise InputError(f"{PREFECT_YAML} has no deployment {name!r}; it has {known}")
    position = list(found).index(name)

    def cut(listed: list[Any]) -> None:
        del listed[position]

    _edit(cut)
    print(f"{name}: removed from {PREFECT_YAML}")
    return 0


def line(deployment: Deployment) -> str:
    """Say in a line what a deployment runs, and when next."""
    parameters = deployment.parameters
    what = [parameters.suite or "the active suite", *parameters.targets]
    what += ["by force"] if parameters.force else []
    when = [_when(schedule) for schedule in deployment.schedules] or ["when somebody starts it"]
    return ", ".join([*when, *what])


def _when(schedule: Schedule) -> str:
    return f"next at {schedule.next().strftime('%Y-%m-%d %H:%M %Z')} ({schedule.cron})"


def _given(parameters: RunParameters) -> dict[str, Any]:
    """Write down the parameters that are not what they are without a word."""
    given = parameters.model_dump(exclude_defaults=True)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in given.items()}


def _edit(change: Callable[[list[Any]], None]) -> None:
    """Change the list of deployments in prefect.yaml; comments and all else stay as they are."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = Path(PREFECT_YAML)
    content = yaml.load(path.read_text(encoding="utf-8"))
    change(content["deployments"])
    with atomic_write(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
        try:
            read(temporary)
        except InputError as error:
            raise unfit(f"it cannot be edited: {error}") from error
