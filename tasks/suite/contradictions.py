"""What the sections of a suite say against one another, or name and do not have."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import is_classifier
from adamerge_core.vision.datasets.registry import read_source, source_faults
from adamerge_core.vision.known_models import image_size
from tasks.suite.experiments.sections import experiment_faults, experiments_of
from tasks.suite.fields import MANY, shown, written
from tasks.suite.method_entries import MANY_TASKS
from tasks.suite.methods import Method, methods_faults, parse_methods
from tasks.suite.sections import checkpoint_faults, weights_faults
from tasks.suite.user_paths import faults_of_path

RESERVED_TASKS = (
    *("average", "traditional_mtl"),
    *("method", "protocol", "seed", "corruption", "severity", "criterion"),
)
"""Names that stand in tables and paths beside those of tasks."""

_LISTS = {
    "corrupt": ("tasks", "corruptions", "severities"),
    "pretrain": ("datasets",),
    "robustness": ("corruptions",),
}
"""Those whose values each stand once, as tasks and seeds do: a value is a stage or a row."""


def contradictions(content: Mapping[str, Any]) -> list[str]:
    """What one section names and another lacks; sections of a wrong form are passed over."""
    datasets, corrupt = _section(content, "datasets"), _section(content, "corrupt")
    robustness, tasks = _section(content, "robustness"), _list(content, "tasks")
    faults = [
        f"datasets.{written(name)}.{line}"
        for name, entry in datasets.items()
        if isinstance(entry, Mapping)
        for line in source_faults(str(name), entry) or _faults_of_files(str(name), entry)
    ]
    faults += [
        f"tasks: {name!r} is reserved; give the dataset another name"
        for name in tasks
        if name in RESERVED_TASKS
    ]
    faults += _unknown("tasks", tasks, datasets, "an entry of datasets")
    faults += _twice("seeds", _list(content, "seeds")) + _twice("tasks", tasks)
    for section, keys in _LISTS.items():
        for key in keys:
            faults += _twice(f"{section}.{key}", _list(_section(content, section), key))
    faults += _unknown("corrupt.tasks", _list(corrupt, "tasks"), tasks, "one of tasks")
    pretrained_on = _list(_section(content, "pretrain"), "datasets")
    faults += _unknown("pretrain.datasets", pretrained_on, datasets, "an entry of datasets")
    made = ["clean", *_list(corrupt, "corruptions")]
    chosen = _list(robustness, "corruptions")
    faults += _unknown("robustness.corruptions", chosen, made, "clean or one of corrupt")
    severity, severities = robustness.get("severity"), _list(corrupt, "severities")
    if severities and severity not in severities:
        known = ", ".join(map(str, severities))
        faults.append(f"robustness.severity = {shown(severity)}: corrupt makes only {known}")
    studied = _section(_section(content, "experiments"), "corruptions")
    chosen, where = _list(studied, "severities"), "experiments.corruptions.severities"
    faults += _unknown(where, chosen, severities, "one of corrupt.severities")
    faults += _twice(where, chosen)
    faults += _of_the_model(content) + _of_checkpoints(content, tasks)
    faults += _named_as_a_parameter(_section(content, "methods"), tasks)
    return faults + _of_methods(content, robustness)


def _of_the_model(content: Mapping[str, Any]) -> list[str]:
    """Weights that are not said well, or that do not go with the sections beside them."""
    model = _section(content, "model")
    if not isinstance(model.get("weights"), Mapping):
        return []
    weights = _section(model, "weights")
    faults = weights_faults(model.get("architecture"), weights)
    if faults:
        return faults
    if "file" in weights:
        faults = [
            f"model.weights.file = {shown(weights['file'])}: {rule}"
            for rule in faults_of_path(Path(weights["file"]))
        ]
    architecture = str(model.get("architecture"))
    faults += _of_one_head(content, is_classifier(architecture))
    if is_classifier(architecture):
        if content.get("pretrain") is not None:
            faults.append(
                f"pretrain: {architecture} is a classifier, which has no text tower; remove it"
            )
        if _section(_section(content, "checkpoints"), "heads"):
            faults.append(
                "checkpoints.heads: a classifier's checkpoint brings its own head; give {}"
            )
        return faults + _of_the_image_size(content, architecture)
    if "package" in weights and content.get("pretrain") is None:
        faults.append("pretrain: is missing, and model.weights has no text tower; add it")
    if "package" not in weights and content.get("pretrain") is not None:
        faults.append("pretrain: model.weights has a text tower, which is not trained; remove it")
    return faults + _of_the_image_size(content, architecture)


def _of_one_head(content: Mapping[str, Any], classifier: bool) -> list[str]:
    """What does not go with one head for all tasks."""
    head, section = content.get("head"), _section(content, "checkpoints")
    faults = []
    if head and not classifier and _section(section, "heads"):
        faults.append(f"checkpoints.heads: head is {head}, one for all tasks; give {{}}")
    if head == "average" and not (classifier and _section(section, "finetuned")):
        faults.append(
            "head = 'average': is the mean of the heads of imported classifiers, and none is "
            "imported; give shared"
        )
    return faults


def _of_the_image_size(content: Mapping[str, Any], architecture: str) -> list[str]:
    given = _section(content, "prepare").get("image_size")
    try:
        wanted = image_size(architecture)
    except InputError:
        return []  # told of already
    if wanted is None or given in (None, wanted):
        return []
    return [f"prepare.image_size = {shown(given)}: {architecture} takes images of {wanted} pixels"]


def _of_checkpoints(content: Mapping[str, Any], tasks: list[Any]) -> list[str]:
    """Checkpoints that are not said well, and the sections that they need or need not."""
    section = _section(content, "checkpoints")
    imported, heads = _section(section, "finetuned"), _section(section, "heads")
    faults = []
    for kind, entries in (("finetuned", imported), ("heads", heads)):
        faults += _unknown(f"checkpoints.{kind}", entries, tasks, "one of tasks")
        for task, entry in entries.items():
            where = f"checkpoints.{kind}.{written(task)}"
            faults += _of_a_checkpoint(where, entry) if isinstance(entry, Mapping) else []
    faults += [
        f"checkpoints.heads.{written(task)} = {shown(dict(entry))}: heads are read from files; "
        "give {file: PATH}"
        for task, entry in heads.items()
        if isinstance(entry, Mapping) and "hub" in entry
    ]
    faults += [
        f"checkpoints.finetuned: {' and '.join(named)} name the same model; each task has its own"
        for named in _alike(imported)
    ]
    trains = content.get("traditional_mtl") is not None or any(t not in imported for t in tasks)
    if trains and content.get("finetune") is None:
        faults.append("finetune: is missing, and not all models are imported; add it")
    if not trains and content.get("finetune") is not None:
        faults.append("finetune: all models are imported, so nothing is fine-tuned; remove it")
    return faults


def _of_a_checkpoint(where: str, entry: Mapping[str, Any]) -> list[str]:
    faults = checkpoint_faults(where, entry)
    if faults or "file" not in entry:
        return faults
    if not isinstance(entry["file"], str):
        return []  # told of by its type
    rules = faults_of_path(Path(entry["file"]))
    return [f"{where}.file = {shown(entry['file'])}: {rule}" for rule in rules]


def _alike(entries: Mapping[str, Any]) -> list[list[str]]:
    """Group the tasks whose entries are equal, where there are several."""
    groups: dict[str, list[str]] = {}
    for task, entry in entries.items():
        groups.setdefault(repr(entry), []).append(written(task))
    return [named for named in groups.values() if len(named) > 1]


def _named_as_a_parameter(methods: Mapping[str, Any], tasks: list[Any]) -> list[str]:
    """Tasks that share a column of a method's table of choices with the parameter chosen."""
    return [
        f"tasks: {key!r} is the parameter that methods.{written(name)} chooses, a column beside "
        "the tasks'; give the dataset another name"
        for name, entry in methods.items()
        if isinstance(entry, Mapping) and isinstance(entry.get("choose"), Mapping)
        for key in entry["choose"]
        if key != "by" and key in tasks
    ]


def _of_methods(
    content: Mapping[str, Any],
    robustness: Mapping[str, Any],
) -> list[str]:
    merged = len(_list(content, "tasks")) or MANY_TASKS
    corrupted = len(_list(_section(content, "corrupt"), "tasks")) or MANY_TASKS
    faults = methods_faults(content.get("methods", {}), "methods", merged)
    entries = robustness.get("methods", {})
    faults += methods_faults(entries, "robustness.methods", corrupted, may_choose=False)
    faults += experiment_faults(
        content.get("experiments"), [str(task) for task in _list(content, "tasks")]
    )
    if faults:
        return faults + _without_splits(content, ())
    sections = {"methods": content, "robustness.methods": robustness}
    found = {where: parse_methods(_section(each, "methods")) for where, each in sections.items()}
    for name, settings in experiments_of(content).items():
        found[f"experiments.{name}.methods"] = settings.reading_statistics
    faults = _without_splits(content, [m for methods in found.values() for m in methods.values()])
    if faults or content.get("statistics") is not None:
        return faults
    return [
        f"statistics: is missing, and {where}.{name} needs {', '.join(method.needs)}; add it, "
        "for example {images: 100, split: val, fisher_probes: 4}"
        for where, methods in found.items()
        for name, method in methods.items()
        if method.needs
    ]


def _without_splits(content: Mapping[str, Any], methods: Iterable[Method]) -> list[str]:
    """Datasets that lack a split which something reads."""
    datasets, tasks = _section(content, "datasets"), _list(content, "tasks")
    imported = _section(_section(content, "checkpoints"), "finetuned")
    together = content.get("traditional_mtl") is not None
    trained = [task for task in tasks if together or task not in imported]
    needs = [("pretrain", "pretrain.datasets", _list(_section(content, "pretrain"), "datasets"))]
    needs += [(split, "finetune", trained) for split in ("train", "val")]
    if any(method.choose for method in methods):
        needs.append(("val", "choose", tasks))
    if any(method.needs for method in methods):
        split = str(_section(content, "statistics").get("split", "test"))
        needs.append((split, "statistics", tasks))
    had = {
        name: read_source(name, entry).splits()
        for name, entry in datasets.items()
        if isinstance(entry, Mapping) and not source_faults(str(name), entry)
    }
    lacking = {
        f"{where}: {name} has no split {split}; let datasets.{name} set one aside, or remove it "
        "here"
        for split, where, names in needs
        for name in names
        if isinstance(name, str) and name in had and split not in had[name]
    }
    return sorted(lacking)


def _faults_of_files(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Say which files and folders of a source dvc.yaml cannot name, or are the project's own."""
    return [
        f"path = {shown(path.as_posix())}: {rule}"
        for path in read_source(name, entry).files()
        for rule in faults_of_path(path)
    ]


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section, empty where it has a wrong form or is too long, which is a fault of its own."""
    value = content.get(key)
    return value if isinstance(value, Mapping) and len(value) <= MANY else {}


def _list(section: Mapping[str, Any], key: str) -> list[Any]:
    value = section.get(key)
    return value if isinstance(value, list) and len(value) <= MANY else []


def _unknown(key: str, names: Iterable[Any], known: Iterable[Any], rule: str) -> list[str]:
    listed = list(known)
    return [
        f"{key}: {shown(name)} must be {rule}: {', '.join(map(written, listed))}"
        for name in names
        if listed and name not in listed
    ]


def _twice(key: str, values: list[Any]) -> list[str]:
    if len(set(map(str, values))) == len(values):
        return []
    return [f"{key} = {shown(values)}: each must stand once"]
