"""deployment: adaptations under what a deployment meets, each condition beside the undisturbed.

What is learned is learned on the first part of the test images, as the condition disturbs it; it is
measured on the other part, which stays clean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from adamerge_core.adamerging.turns import Turns
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.vision.corruptions import corrupt
from adamerge_core.vision.images import LabeledImages
from tasks.experiments.held_out import HeldOut
from tasks.experiments.measuring import Row, each_of, measure
from tasks.experiments.merged_models import learned
from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.merging import code_of, heads_of, options_of, statistics_of, vectors_of
from tasks.graph.templates import SEED, SUITE, axes, split_files, template
from tasks.running.stage import run_stage
from tasks.running.work import Work
from tasks.shared.long_tables import MEASURED_IN_EXPERIMENT, write_long
from tasks.shared.methods import make_model
from tasks.shared.task_vectors import Statistics, open_statistics
from tasks.suite.experiments.deployment import (
    Batch,
    Condition,
    Corrupted,
    Deployment,
    LongTail,
    MissingClasses,
    NoImages,
    Order,
    OtherImages,
    WrongExpert,
    read_condition,
)
from tasks.suite.experiments.tables import UNDISTURBED
from tasks.suite.methods import AdaptMethod, Method, RuleMethod, parse_method

if TYPE_CHECKING:
    from tasks.suite.schema import Suite

Images = Mapping[str, LabeledImages]


def stages(suite: "Suite") -> list[Stage]:
    """Make a template for each condition, of a stage a seed."""
    settings = Deployment.of(suite.raw)
    return [_template(suite, settings, name) for name in settings.names]


def _template(suite: "Suite", settings: Deployment, condition: str) -> Stage:
    methods, tasks, key = settings.merging.values(), suite.tasks, Deployment.key
    return template(
        f"deployment_{condition}",
        "tasks.experiments.deployment",
        options_of(suite) | {"condition": condition, "seed": SEED},
        matrix=axes(suite=suite.name, seed=suite.seeds),
        deps=[
            *vectors_of(suite, tasks),
            *statistics_of(suite, methods, tasks),
            *heads_of(suite, tasks),
            *split_files(tasks, suite.size, "test"),
        ],
        code=code_of(methods),
        params=[
            "tasks",
            *([] if condition == UNDISTURBED else [f"{key}.conditions.{condition}"]),
            *(f"{key}.{each}" for each in ("images", "seed", "methods")),
            "evaluate.held_out_fraction",
            "compute",
            "model",
        ],
        outs=[paths.experiment(SUITE, "deployment", condition, SEED)],
    )


def run(work: Work) -> None:
    """Write accuracy and entropy per task on the held-out part, in long form."""
    suite, condition = work.options["suite"], work.options["condition"]
    settings, tasks = work.params["experiments"]["deployment"], work.params["tasks"]
    methods = {name: parse_method(entry) for name, entry in settings["methods"].items()}
    disturbance, plain = _condition(work), HeldOut.open(work)
    images = {task: _first(part, settings["images"]) for task, part in plain.seen.items()}
    problem = replace(
        plain,
        seen=images_under(disturbance, images, settings["seed"]),
        task_vectors=vectors_under(disturbance, plain.task_vectors),
    )

    def rows_of(name: str) -> list[Row]:
        method = methods[name]
        statistics = _statistics(problem, method, disturbance)
        if isinstance(method, RuleMethod):
            made = make_model(method, problem.task_vectors, statistics)
        else:
            adaptation = problem.prepare(paced_under(disturbance, method, len(tasks)))
            turns = turns_under(disturbance, tasks, method.settings.steps)
            made = adaptation.model(learned(work, name, adaptation, turns=turns), statistics)
        named = {"setting": condition, "method": name, "seed": work.seed}
        measured = measure(problem.encoder, made, problem.heads, problem.measured)
        return [{**named, **row} for row in measured]

    write_long(
        paths.experiment(suite, "deployment", condition, work.seed),
        MEASURED_IN_EXPERIMENT,
        each_of(work, measured_methods(methods, disturbance), rows_of),
    )


def measured_methods(methods: Mapping[str, Method], condition: Condition | None) -> list[str]:
    """Name the methods that a condition changes: rules learn from no image."""
    in_models = condition is None or condition.in_models
    return [name for name, method in methods.items() if method.adapts or in_models]


def _condition(work: Work) -> Condition | None:
    name = work.options["condition"]
    if name == UNDISTURBED:
        return None
    return read_condition(work.params["experiments"]["deployment"]["conditions"][name])


def _first(part: LabeledImages, images: int) -> LabeledImages:
    return LabeledImages(part.images[:images], part.labels[:images])


def _statistics(problem: HeldOut, method: Method, condition: Condition | None) -> Statistics:
    """Open what a method needs of the fine-tuned models, of a wrong one under another's name."""
    work, device = problem.work, next(problem.encoder.parameters()).device
    tasks = problem.task_vectors.task_names
    found = open_statistics(work.options["model"], method.needs, tasks, work.seed, device)
    if isinstance(condition, WrongExpert):
        handed_in = {condition.task: condition.expert_of}
        return {k: {t: each[handed_in.get(t, t)] for t in each} for k, each in found.items()}
    return found


# --- conditions -----------------------------------------------------------------------------------


def images_under(condition: Condition | None, images: Images, seed: int) -> Images:
    """Disturb the images to learn on; labels serve to make streams alone."""
    if isinstance(condition, MissingClasses):
        return _chosen(images, partial(missing, condition.share), seed)
    if isinstance(condition, LongTail):
        return _chosen(images, partial(tailed, condition.imbalance), seed)
    if isinstance(condition, Corrupted):
        return {task: _corrupted(part, condition, seed) for task, part in images.items()}
    if isinstance(condition, OtherImages):
        return {**images, condition.task: images[condition.images_of]}
    return images


def vectors_under(condition: Condition | None, vectors: TaskVectors) -> TaskVectors:
    """Put another task's vector in the place of the task's whose expert is a wrong one."""
    if not isinstance(condition, WrongExpert):
        return vectors
    names = list(vectors.task_names)
    rows = [names.index(condition.expert_of if n == condition.task else n) for n in names]
    return vectors.map_layers(lambda _, stack: stack[rows])


def paced_under(condition: Condition | None, method: AdaptMethod, tasks: int) -> AdaptMethod:
    """Change a method's batches or steps so that it sees as many images of each task."""
    settings = method.settings
    if isinstance(condition, Batch):
        size = condition.images_per_task
        steps = settings.steps * settings.images_per_task // size
        return method.varied(images_per_task=size, steps=steps)
    if isinstance(condition, Order):
        return method.varied(steps=settings.steps * tasks)
    return method


def turns_under(condition: Condition | None, tasks: Sequence[str], steps: int) -> Turns | None:
    """Say which tasks give images in which step; None for all in each. steps: of a task."""
    if isinstance(condition, NoImages):
        return [[task for task in tasks if task != condition.task]]
    if isinstance(condition, Order):
        in_a_row = steps if condition.order == "task_after_task" else 1
        return [[task] for task in tasks for _ in range(in_a_row)]
    return None


def _chosen(
    images: Images, choose: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int
) -> dict[str, LabeledImages]:
    """Keep of each task the rows that are chosen by its labels."""
    found = {}
    for number, (task, part) in enumerate(images.items()):
        rows = choose(part.labels, np.random.default_rng([seed, number]))
        found[task] = LabeledImages(part.images[rows], part.labels[rows])
    return found


def missing(share: float, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Choose the rows of the classes that are left when a share of them is missing."""
    classes = generator.permutation(np.unique(labels))
    left = max(1, len(classes) - round(share * len(classes)))
    return np.flatnonzero(np.isin(labels, classes[:left]))


def tailed(imbalance: float, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Choose rows so that the classes, in a random order, get rarer geometrically, at least one of
    each: the first keeps all its images, the last one in `imbalance`.
    """
    classes = generator.permutation(np.unique(labels))
    kept = []
    for rank, name in enumerate(classes):
        rows = np.flatnonzero(labels == name)
        share = imbalance ** (-rank / max(1, len(classes) - 1))
        kept.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(kept))


def _corrupted(part: LabeledImages, condition: Corrupted, seed: int) -> LabeledImages:
    """Corrupt every image, by a seed of its own."""
    images = []
    for number, image in enumerate(part.images):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        images.append(corrupt(np.array(image), condition.corruption, condition.severity, own))
    return LabeledImages(np.stack(images), part.labels)


if __name__ == "__main__":
    run_stage(run)
