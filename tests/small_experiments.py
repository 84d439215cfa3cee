"""The experiments of the repository, cut down to seconds a stage."""

from typing import Any

import yaml
from conftest import ROOT, Project

from tasks.suite.experiments.sections import EXPERIMENTS, settings_for

STEPS = {"steps": 4, "images_per_task": 4, "batches_per_step": 1}
"""As many images as the batches of `deployment` divide."""

_FEW: dict[str, dict[str, Any]] = {
    "sensitivity": {
        "scalings": [0.0, 0.3],
        "images": 4,
        "methods": {"ties_merging": {"rule": "ties_merging"}, "iso_c": {"rule": "iso_c"}},
        "beyond": {"iso_c": [1.5]},
    },
    "unlabeled": {"images": [0, 1], "percent": [100]},
    "surrogate": {"images": 4, "finetuning": [50], "adapting": [50]},
    "cost": {"timed_steps": 1},
    "number_of_tasks": {"counts": [2, 3], "subsets": 1, "images": 4},
    "deployment": {"images": 4},
}


def write_small_experiments(project: Project, suite: str, changes: dict[str, Any]) -> None:
    """Write the settings of every experiment for a suite, with few steps, images and scalings.

    changes: settings by experiment in place of these.
    """
    for name in EXPERIMENTS:
        content = yaml.safe_load((ROOT / f"experiments/{name}.yaml").read_text(encoding="utf-8"))
        settings = settings_for(suite, content) | _FEW.get(name, {}) | changes.get(name, {})
        for method in settings.get("methods", {}).values():
            method.update(STEPS if "adapt" in method else {})
        project.write(f"experiments/{name}.yaml", yaml.safe_dump(settings, sort_keys=False))
