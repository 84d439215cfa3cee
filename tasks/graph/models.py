"""The stages that make models: pretrain, import_clip or import_classifier, heads of all kinds,
finetune or import_finetuned, traditional_mtl, task_vectors.
"""

from pathlib import Path
from pkgutil import iter_modules

from tasks.graph import paths
from tasks.graph.dvc_yaml import Stage
from tasks.graph.templates import (
    DATASET,
    ENCODER,
    MODEL,
    ON_CPU,
    SEED,
    STATISTIC,
    axes,
    split_files,
    template,
)
from tasks.suite.schema import Suite
from tasks.suite.sections import Pretrain


def stages(suite: Suite) -> list[Stage]:
    """Make the templates of a suite's models, up to the task vectors and statistics."""
    return [
        *(_of_a_classifier(suite) if suite.model.is_classifier else _of_a_clip(suite)),
        *(_import_finetuned(suite, task) for task in suite.imported),
        _finetune(suite),
        *_traditional_mtl(suite),
        _task_vectors(suite),
        *_statistics(suite),
    ]


def _of_a_clip(suite: Suite) -> list[Stage]:
    """The pretrained CLIP and its heads; an imported one depends on its own file alone."""
    imported = suite.checkpoints.heads if suite.checkpoints else {}
    return [
        _pretrain(suite, suite.pretrain) if suite.pretrain else _import_pretrained(suite),
        _shared_heads(suite) if suite.head else _heads(suite),
        *(_import_head(suite, task) for task in imported),
    ]


def _of_a_classifier(suite: Suite) -> list[Stage]:
    """The pretrained encoder, and heads: out of the tasks' checkpoints, or linear probes."""
    if suite.head:
        return [_import_pretrained(suite), _shared_heads(suite)]
    return [
        _import_pretrained(suite),
        *(_import_classifier_head(suite, task) for task in suite.imported),
        _probe_heads(suite),
    ]


def _pretrain(suite: Suite, section: Pretrain) -> Stage:
    datasets = section.datasets
    return template(
        "pretrain",
        "tasks.pretrain",
        {"model": MODEL, "size": str(suite.size)},
        matrix=axes(model=suite.model.name),
        deps=[*split_files(datasets, suite.size, "pretrain"), *map(paths.classes, datasets)],
        params=["pretrain", *(["head"] if suite.head else []), *ENCODER],
        outs=[
            paths.pretrained(MODEL),
            paths.text_tower(MODEL),
            paths.pretrain_curve(MODEL),
            paths.pretrain_accuracy(MODEL),
            *(paths.head(MODEL, dataset) for dataset in datasets if not suite.head),
        ],
    )


def _import_pretrained(suite: Suite) -> Stage:
    """The stage that imports a classifier, or a CLIP with its text tower."""
    name, more = "import_classifier", []
    if not suite.model.is_classifier:
        name, more = "import_clip", [paths.text_tower(MODEL)]
    return template(
        name,
        f"tasks.{name}",
        {"model": MODEL},
        matrix=axes(model=suite.model.name),
        deps=_read_from(suite, "model.weights"),
        params=["model", *ON_CPU],
        outs=[paths.pretrained(MODEL), *more],
    )


def _heads(suite: Suite) -> Stage:
    """Heads that neither pretrain makes (of what it learned from) nor are imported."""
    pretrained_on = suite.pretrain.datasets if suite.pretrain else ()
    imported = suite.checkpoints.heads if suite.checkpoints else {}
    return template(
        "heads",
        "tasks.heads",
        {"model": MODEL, "dataset": DATASET},
        matrix=axes(
            model=suite.model.name,
            dataset=[task for task in suite.tasks if task not in (*pretrained_on, *imported)],
        ),
        deps=[paths.text_tower(MODEL), paths.classes(DATASET)],
        params=ENCODER,
        outs=[paths.head(MODEL, DATASET)],
    )


def _import_finetuned(suite: Suite, task: str) -> Stage:
    return template(
        f"import_finetuned_{task}",
        "tasks.import_finetuned",
        {"model": MODEL, "dataset": task, "seed": SEED},
        matrix=axes(model=suite.model.name, seed=suite.seeds),
        deps=[paths.pretrained(MODEL), *_read_from(suite, f"checkpoints.finetuned.{task}")],
        code=_formats(),
        params=[f"checkpoints.finetuned.{task}", "model", *ON_CPU],
        outs=[paths.finetuned(MODEL, task, SEED)],
    )


def _formats() -> list[str]:
    """Name the modules of all formats: which one a checkpoint has, its content tells the stage."""
    package = "adamerge_core.vision.checkpoint_formats"
    return [f"{package}.{module.name}" for module in iter_modules([package.replace(".", "/")])]


def _import_head(suite: Suite, task: str) -> Stage:
    return template(
        f"import_head_{task}",
        "tasks.import_head",
        {"model": MODEL, "dataset": task},
        matrix=axes(model=suite.model.name),
        deps=[paths.classes(task), *_read_from(suite, f"checkpoints.heads.{task}")],
        params=[f"checkpoints.heads.{task}"],
        outs=[paths.head(MODEL, task)],
    )


def _import_classifier_head(suite: Suite, task: str) -> Stage:
    return template(
        f"import_classifier_head_{task}",
        "tasks.import_classifier_head",
        {"model": MODEL, "dataset": task},
        matrix=axes(model=suite.model.name),
        deps=[paths.classes(task), *_read_from(suite, f"checkpoints.finetuned.{task}")],
        params=[f"checkpoints.finetuned.{task}", "model"],
        outs=[paths.head(MODEL, task)],
    )


def _probe_heads(suite: Suite) -> Stage:
    size = str(suite.size)
    probed = [task for task in suite.tasks if task not in suite.imported]
    return template(
        "probe_heads",
        "tasks.probe_heads",
        {"model": MODEL, "dataset": DATASET, "size": size},
        matrix=axes(model=suite.model.name, dataset=probed),
        deps=[
            paths.pretrained(MODEL),
            paths.classes(DATASET),
            *split_files([DATASET], size, "train"),
        ],
        params=ENCODER,
        outs=[paths.head(MODEL, DATASET)],
    )


def _shared_heads(suite: Suite) -> Stage:
    """One head a model: of prompts, of the tasks' checkpoints, or a probe on all their images."""
    model, size, imported = suite.model, str(suite.size), suite.imported
    reads: list[Path] = [paths.text_tower(model.name)]
    if model.is_classifier and imported:
        reads = [p for t in imported for p in _read_from(suite, f"checkpoints.finetuned.{t}")]
    elif model.is_classifier:
        reads = [paths.pretrained(model.name), *split_files(suite.tasks, size, "train")]
    entries = ["checkpoints.finetuned"] if model.is_classifier and imported else []
    return template(
        "shared_heads",
        "tasks.shared_heads",
        {"model": MODEL, "tasks": "${item.tasks}", "size": size},
        matrix=axes(model=model.name, tasks=paths.tasks_together(suite.tasks)),
        deps=[*reads, *map(paths.classes, suite.tasks)],
        params=["tasks", "head", *entries, *ENCODER],
        outs=[paths.head(MODEL, task) for task in suite.tasks],
    )


def _read_from(suite: Suite, key: str) -> list[Path]:
    """Give what an entry is read from: the user's file, or the pin of a model of the hub."""
    return [found[key] for found in (suite.model_files, suite.model_pins) if key in found]


def _finetune(suite: Suite) -> Stage:
    size = str(suite.size)
    trained = [task for task in suite.tasks if task not in suite.imported]
    return template(
        "finetune",
        "tasks.finetune",
        {"model": MODEL, "dataset": DATASET, "size": size, "seed": SEED},
        matrix=axes(model=suite.model.name, dataset=trained, seed=suite.seeds),
        deps=[
            paths.pretrained(MODEL),
            paths.head(MODEL, DATASET),
            *split_files([DATASET], size, "train"),
            *split_files([DATASET], size, "val"),
        ],
        params=["finetune", *ENCODER],
        outs=_trained(paths.finetuned(MODEL, DATASET, SEED)),
    )


def _traditional_mtl(suite: Suite) -> list[Stage]:
    if suite.traditional_mtl is None:
        return []
    model, size = suite.model.name, str(suite.size)
    return [
        template(
            "traditional_mtl",
            "tasks.traditional_mtl",
            {"model": MODEL, "tasks": "${item.tasks}", "size": size, "seed": SEED},
            matrix=axes(model=model, tasks=paths.tasks_together(suite.tasks), seed=suite.seeds),
            deps=[
                paths.pretrained(model),
                *(paths.head(model, task) for task in suite.tasks),
                *split_files(suite.tasks, size, "train"),
                *split_files(suite.tasks, size, "val"),
            ],
            params=["tasks", "finetune", "traditional_mtl", *ENCODER],
            outs=_trained(paths.traditional_mtl(MODEL, "${item.tasks}", SEED)),
        )
    ]


def _trained(checkpoint: Path) -> list[Path]:
    return [checkpoint, paths.training_curve(checkpoint), paths.training_accuracy(checkpoint)]


def _task_vectors(suite: Suite) -> Stage:
    return template(
        "task_vectors",
        "tasks.task_vectors",
        {"model": MODEL, "dataset": DATASET, "seed": SEED},
        matrix=axes(model=suite.model.name, dataset=suite.tasks, seed=suite.seeds),
        deps=[paths.pretrained(MODEL), paths.finetuned(MODEL, DATASET, SEED)],
        params=ON_CPU,
        outs=[paths.task_vector(MODEL, DATASET, SEED)],
    )


def _statistics(suite: Suite) -> list[Stage]:
    methods = [*suite.merging.values(), *suite.robust.values()]
    methods += [m for each in suite.studied.values() for m in each.reading_statistics.values()]
    kinds = dict.fromkeys(kind for method in methods for kind in method.needs)
    if suite.statistics is None or not kinds:
        return []
    size = str(suite.size)
    options = {"model": MODEL, "statistic": STATISTIC, "dataset": DATASET}
    return [
        template(
            "collect_statistics",
            "tasks.collect_statistics",
            {**options, "size": size, "seed": SEED},
            matrix=axes(
                model=suite.model.name,
                statistic=list(kinds),
                dataset=suite.tasks,
                seed=suite.seeds,
            ),
            deps=[
                paths.finetuned(MODEL, DATASET, SEED),
                paths.head(MODEL, DATASET),
                paths.images(DATASET, size, suite.statistics.split),
            ],
            params=["statistics", "compute.micro_batch", *ENCODER],
            outs=[paths.statistic(MODEL, STATISTIC, DATASET, SEED)],
        )
    ]
