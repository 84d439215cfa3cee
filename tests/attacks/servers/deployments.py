"""prefect.yaml: deployments that are none, or that would run something else."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from flows import deployments
from tests.attacks.cases import Case, refused

_GOOD = {"name": "nightly", "entrypoint": "flows/pipeline.py:pipeline"}


def _yaml(**changes: Any) -> str:
    return json.dumps({"deployments": [{**_GOOD, **changes}]})


BAD_YAML = {
    "empty": "",
    "no mapping": "[1, 2]",
    "no list": "deployments: 3",
    "no deployment": "deployments: []",
    "not YAML": "deployments: [",
    "a deployment that is text": "deployments: [nightly]",
    "a name twice": json.dumps({"deployments": [_GOOD, _GOOD]}),
    "a work pool": _yaml(work_pool={"name": "x"}),
    "pull steps": _yaml(pull=[{"prefect.deployments.steps.run_shell_script": {"script": "id"}}]),
    "a command": _yaml(command="id"),
    "job variables": _yaml(job_variables={"command": "id"}),
    **{
        f"entrypoint {entry}": _yaml(entrypoint=entry)
        for entry in (
            "os.py:system",
            "/etc/x.py:y",
            "flows/../x.py:y",
            "flows/x.sh:y",
            "flows.pipeline",
            "flows/pipeline.py:",
            "flows/none.py:pipeline",
            "flows/pipeline.py:workers",
            3,
            None,
        )
    },
    **{f"name {name!r}": _yaml(name=name) for name in ("", " ", "../x", "a/b", 7, None, "x" * 300)},
    **{
        f"cron {cron!r}": _yaml(schedules=[{"cron": cron}])
        for cron in ("", "nightly", "* * * *", "99 * * * *", "0 2 * * * *; id", 5, None)
    },
    "a zone that is none": _yaml(schedules=[{"cron": "0 2 * * *", "timezone": "Mars/Olympus"}]),
    "a limit of zero": _yaml(concurrency_limit=0),
    "a limit that is true": _yaml(concurrency_limit=True),
}


def _bad_yaml(text: str, folder: Path) -> None:
    deployments.PREFECT_YAML.write_text(text)
    refused(
        lambda: [each.flow() for each in deployments.read().values()],
        "prefect.yaml",
        "git checkout prefect.yaml",
    )


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for name, text in BAD_YAML.items():
        yield Case(f"prefect.yaml: {name}", partial(_bad_yaml, text), "low")
