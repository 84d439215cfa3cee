"""What the experiments of a suite say: a section each below `experiments` in params.yaml.

experiments/NAME.yaml has an experiment's settings, which `adamerge experiment run` puts there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tasks.suite.experiments.corruptions import Corruptions
from tasks.suite.experiments.cost import Cost
from tasks.suite.experiments.deployment import Deployment
from tasks.suite.experiments.experiment import Experiment
from tasks.suite.experiments.labels import Labels
from tasks.suite.experiments.number_of_tasks import NumberOfTasks
from tasks.suite.experiments.sensitivity import Sensitivity
from tasks.suite.experiments.surrogate import Surrogate
from tasks.suite.experiments.unlabeled import Unlabeled
from tasks.suite.experiments.unseen import Unseen
from tasks.suite.fields import lines_of, written
from tasks.suite.method_entries import MANY_TASKS
from tasks.suite.methods import methods_faults

EXPERIMENTS: dict[str, type[Experiment]] = {
    "sensitivity": Sensitivity,
    "unlabeled": Unlabeled,
    "unseen": Unseen,
    "corruptions": Corruptions,
    "surrogate": Surrogate,
    "labels": Labels,
    "cost": Cost,
    "number_of_tasks": NumberOfTasks,
    "deployment": Deployment,
}
"""By name, in the order of the report's contents."""


def settings_for(suite: object, content: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings that a file of experiments/ has for a suite: those below `suites` and its
    name in place of the others. The content is not checked beyond that.
    """
    settings = dict(content)
    others = settings.pop("suites", {})
    return settings | (others.get(suite) or {} if isinstance(others, Mapping) else {})


def experiments_of(content: Mapping[str, Any]) -> dict[str, Experiment]:
    """Read the settings of a checked suite's experiments, by name, in the order of EXPERIMENTS."""
    given = content.get("experiments") or {}
    return {n: kind.model_validate(given[n]) for n, kind in EXPERIMENTS.items() if n in given}


def experiment_faults(entries: Any, tasks: Sequence[str] = ()) -> list[str]:
    """List what is wrong with the section `experiments`, a line each.

    tasks: those of the suite; without any, what depends on them is not checked.
    """
    if not isinstance(entries, Mapping):
        return []  # told of by its type
    return [line for name, entry in entries.items() for line in _faults(name, entry, tasks)]


def _faults(name: Any, entry: Any, tasks: Sequence[str]) -> list[str]:
    where = f"experiments.{written(name)}"
    if name not in EXPERIMENTS:
        return [f"{where}: is no experiment; give one of {', '.join(EXPERIMENTS)}"]
    if not isinstance(entry, Mapping):
        return []  # told of by its type
    methods = entry.get("methods", {})
    merged, faults = len(tasks) or MANY_TASKS, []
    if methods:
        faults = methods_faults(methods, f"{where}.methods", merged, may_choose=False)
    try:
        settings = EXPERIMENTS[name].model_validate(entry)
    except ValidationError as error:
        return faults + lines_of(error, f"{where}.")
    if tasks:
        faults += settings.faults_of_tasks(tasks)
    return faults or settings.faults_of_methods()
