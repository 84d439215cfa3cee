"""The graph of a suite: its stages, what each reads and writes, and the dvc.yaml that says so.

dvc.yaml is the only graph that runs; `adamerge suite use NAME` writes it from here. A group of
stages is one template in dvc.yaml: `finetune@mnist-0` is of the group finetune, with task mnist
and seed 0. DVC cannot template lists, so stages that differ in the number of files they read are
groups of their own: all that begin with evaluate, but the corrupted ones, run tasks.evaluate. So do
merges and sweeps by a rule that tasks.merge does not import, and adaptations over such a
preprocessing: each depends on the one file that its rule stands in, not on those of other rules.

Paths with a placeholder (`${item.task}`) come from tasks.graph.paths as any other path does.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.graph.code import sources
from tasks.graph.dvc_yaml import DVC_YAML, Stage, read, render
from tasks.graph.paths import PROTOCOLS, REFERENCES, SPLITS, Files
from tasks.suite.rules import Rule
from tasks.suite.schema import ImageFolder, Suite

REPORT_TEMPLATES = (Path("tasks/report/template.html"), Path("tasks/report/template.md"))
FIGURES = ("trajectories", "coefficients", "task_vectors", "sweeps", "samples")

_TASK = "${item.task}"
_METHOD = "${item.method}"
_STATISTIC = "${item.statistic}"
_CORRUPTION = "${item.corruption}"
_SEED: Any = "${item.seed}"  # stands where tasks.graph.paths wants a number

_MODEL = ("model", "compute")  # the parameters of every stage that runs the image encoder
_ON_DEVICE = ("compute.device", "compute.threads")  # of one that only sums tensors there
_ON_CPU = ("compute.threads",)  # sums split over threads round differently

_HEADING = """\
The graph of the suite {suite}, written by `adamerge suite use` from params.yaml and tasks/graph/build.py.
Change params.yaml, not this file; then write it anew: adamerge suite use

See it with `dvc dag`; run it with `adamerge run` or `dvc repro`. docs/pipeline.md explains it."""


def stages(suite: Suite) -> dict[str, Stage]:
    """Every stage of a suite by name, in an order in which they can run."""
    return {stage.name: stage for group in groups(suite) for stage in group.expand()}


def dvc_yaml(suite: Suite) -> str:
    """The text of dvc.yaml for a suite."""
    return render(groups(suite), _HEADING.format(suite=suite.name), _figures(suite))


def misfits(suite: Suite, path: Path = DVC_YAML) -> list[str]:
    """What in dvc.yaml differs from the suite's graph, a line a stage. Stages added by hand are
    no fault.
    """
    wanted, found = stages(suite), read(path)
    missing = [f"{name} is missing" for name in wanted if name not in found]
    common = [name for name in wanted if name in found]
    changed = [f"{name} differs" for name in common if found[name] != wanted[name]]
    return missing + changed


def download_stage(suite: Suite, task: str) -> str:
    """The name of the stage that archives a task's images.

    A task from a folder has a stage of its own: the folder is among what it depends on.
    """
    return f"download_{task}" if isinstance(suite.task(task), ImageFolder) else f"download@{task}"


def statistics_stage(kind: str, task: str, seed: int) -> str:
    """The name of the stage that computes a statistic of a task's fine-tuned model."""
    return f"statistics@{kind}-{task}-{seed}"


def merge_stage(suite: Suite, method: str, seed: int) -> str:
    """The name of the stage that makes a merged model."""
    return f"{_merge_group(suite, method)}@{method}-{seed}"


def evaluate_stage(suite: Suite, method: str, seed: int) -> str:
    """The name of the stage that evaluates a method: a merging one, or one of the three
    references.
    """
    if method in REFERENCES:
        return f"evaluate_{method}@{seed}"
    adapts = suite.merge[method].kind == "adapt"
    return f"{'evaluate_adapted' if adapts else 'evaluate'}@{method}-{seed}"


def evaluate_corrupted_stage(corruption: str, seed: int) -> str:
    """The name of the stage that evaluates under a corruption, or on the clean images beside it."""
    if corruption == "clean":
        return f"evaluate_clean@{seed}"
    return f"evaluate_corrupted@{corruption}-{seed}"


def _merge_group(suite: Suite, method: str) -> str:
    """merge, sweep or adapt; with the name of what stands in a file of its own."""
    kind, used = suite.merge[method].kind, _used(suite, method)
    return f"{kind}_{used.name}" if used and not _is_everyones(used) else kind


def _is_everyones(rule: Rule) -> bool:
    """Whether every stage that merges depends on its file, which the package imports by name."""
    return rule.module.replace(".", "/") + ".py" in sources("adamerge_core.merging")


def _used(suite: Suite, method: str) -> Rule | None:
    """The rule or preprocessing of a method."""
    return suite.merge.rule(method) or suite.merge.preprocessing(method)


def groups(suite: Suite) -> list[Stage]:
    """The templates; those for which the suite has nothing are left out."""
    made = [
        *_data(suite),
        *_models(suite),
        *_statistics(suite),
        *_merges(suite),
        *_evaluations(suite),
        _report(suite),
    ]
    return [group for group in made if all(group.matrix.values())]


def _data(suite: Suite) -> list[Stage]:
    files, tasks, corrupt = Files(suite.name), list(suite.task_names), suite.raw["corrupt"]
    splits = [split(_TASK, name) for split in (files.images, files.labels) for name in SPLITS]
    folders = {
        task: source for task, source in suite.download.items() if isinstance(source, ImageFolder)
    }
    return [
        _group(
            "download",
            f"download --task {_TASK}",
            matrix={"task": [task for task in tasks if task not in folders]},
            params=[f"download.{_TASK}"],
            outs=[files.raw(_TASK)],
        ),
        *(
            _group(
                download_stage(suite, task),
                f"download --task {task}",
                deps=[Path(source.path)],
                params=[f"download.{task}"],
                outs=[files.raw(task)],
            )
            for task, source in folders.items()
        ),
        _group(
            "prepare",
            f"prepare --task {_TASK}",
            matrix={"task": tasks},
            deps=[files.raw(_TASK)],
            params=["prepare"],
            outs=[*splits, files.classes(_TASK)],
        ),
        _group(
            "corrupt",
            f"corrupt --task {_TASK} --corruption {_CORRUPTION}",
            matrix={"task": corrupt["tasks"], "corruption": corrupt["corruptions"]},
            deps=[files.images(_TASK, "test")],
            params=["corrupt.severities", "corrupt.images", "corrupt.seed"],
            outs=[files.corrupted(_TASK, _CORRUPTION)],
        ),
    ]


def _models(suite: Suite) -> list[Stage]:
    files, tasks, seeds = Files(suite.name), list(suite.task_names), list(suite.seeds)
    start = [files.pretrained, files.heads]
    return [
        _group(
            "pretrain",
            "pretrain",
            deps=[*_split(files, tasks, "pretrain"), *(files.classes(task) for task in tasks)],
            params=["pretrain", *_MODEL],
            outs=[files.pretrained, files.text_tower, files.heads, files.pretrain_curve()],
            metrics=[files.pretrain_metrics()],
        ),
        _group(
            "finetune",
            f"finetune --task {_TASK} --seed {_SEED}",
            matrix={"task": tasks, "seed": seeds},
            deps=[*start, *_split(files, [_TASK], "train"), *_split(files, [_TASK], "val")],
            params=["finetune", *_MODEL],
            outs=[files.finetuned(_TASK, _SEED), files.finetune_curve(_TASK, _SEED)],
            metrics=[files.finetune_metrics(_TASK, _SEED)],
        ),
        _group(
            "traditional_mtl",
            f"traditional_mtl --seed {_SEED}",
            matrix={"seed": seeds},
            deps=[*start, *_split(files, tasks, "train"), *_split(files, tasks, "val")],
            params=["finetune", "traditional_mtl", *_MODEL],
            outs=[
                files.finetuned("traditional_mtl", _SEED),
                files.finetune_curve("traditional_mtl", _SEED),
            ],
            metrics=[files.finetune_metrics("traditional_mtl", _SEED)],
        ),
        _group(
            "task_vectors",
            f"task_vectors --seed {_SEED}",
            matrix={"seed": seeds},
            deps=[files.pretrained, *(files.finetuned(task, _SEED) for task in tasks)],
            params=_ON_CPU,
            outs=[files.task_vector(task, _SEED) for task in tasks],
            metrics=[files.task_vector_geometry(_SEED)],
        ),
    ]


def _statistics(suite: Suite) -> list[Stage]:
    files, kinds = Files(suite.name), suite.merge.statistics
    if suite.statistics is None:
        return []
    return [
        _group(
            "statistics",
            f"statistics --statistic {_STATISTIC} --task {_TASK} --seed {_SEED}",
            matrix={"statistic": kinds, "task": list(suite.task_names), "seed": list(suite.seeds)},
            deps=[
                files.finetuned(_TASK, _SEED),
                files.heads,
                files.images(_TASK, suite.statistics.split),
            ],
            params=["statistics", *_MODEL],
            outs=[files.statistic(_STATISTIC, _TASK, _SEED)],
        )
    ]


def _merges(suite: Suite) -> list[Stage]:
    """One template for the methods of a group, merges first, adaptations last."""
    grouped: dict[str, list[str]] = {}
    for kind in ("merge", "sweep", "adapt"):
        for method in suite.merge.of_kind(kind):
            grouped.setdefault(_merge_group(suite, method), []).append(method)
    return [_merge_template(suite, group, methods) for group, methods in grouped.items()]


def _merge_template(suite: Suite, group: str, methods: list[str]) -> Stage:
    files, tasks = Files(suite.name), list(suite.task_names)
    kind, used = suite.merge[methods[0]].kind, _used(suite, methods[0])
    deps = [files.pretrained, *(files.task_vector(task, _SEED) for task in tasks)]
    params, outs = [f"merge.{_METHOD}"], [files.merged(_METHOD, _SEED)]
    if used and used.kind == "merge_rule" and used.needs:
        deps += [files.statistic(used.needs, task, _SEED) for task in tasks]
    if kind == "merge":
        params += _ON_DEVICE
    elif kind == "sweep":
        deps += [files.heads, *_split(files, tasks, "val")]
        params += _MODEL
        outs.append(files.sweep(_METHOD, _SEED))
    elif kind == "adapt":
        deps += [files.heads, *_split(files, tasks, "test")]
        params += ["evaluate", *_MODEL]
        outs = [
            path(_METHOD, _SEED, protocol)
            for path in (files.merged, files.coefficients, files.trajectory)
            for protocol in PROTOCOLS
        ]
    return _group(
        group,
        f"{kind} --method {_METHOD} --seed {_SEED}",
        matrix={"method": methods, "seed": list(suite.seeds)},
        deps=deps,
        code=[used.module] if used else [],
        params=params,
        outs=outs,
    )


def _evaluations(suite: Suite) -> list[Stage]:
    files, tasks, seeds = Files(suite.name), list(suite.task_names), list(suite.seeds)
    plain = [*suite.merge.of_kind("merge"), *suite.merge.of_kind("sweep")]
    models: list[tuple[str, str, Mapping[str, Sequence[Any]], Sequence[Path]]] = [
        ("evaluate_pretrained", "pretrained", {}, [files.pretrained]),
        ("evaluate_individual", "individual", {}, [files.finetuned(task, _SEED) for task in tasks]),
        (
            "evaluate_traditional_mtl",
            "traditional_mtl",
            {},
            [files.finetuned("traditional_mtl", _SEED)],
        ),
        ("evaluate", _METHOD, {"method": plain}, [files.merged(_METHOD, _SEED)]),
        (
            "evaluate_adapted",
            _METHOD,
            {"method": suite.merge.of_kind("adapt")},
            [files.merged(_METHOD, _SEED, protocol) for protocol in PROTOCOLS],
        ),
    ]
    measured = [files.heads, *_split(files, tasks, "test")]
    return [
        _group(
            name,
            f"evaluate --method {method} --seed {_SEED}",
            matrix={**matrix, "seed": seeds},
            deps=[*weights, *measured],
            params=["evaluate.held_out_fraction", *_MODEL],
            metrics=[files.evaluation(method, _SEED)],
        )
        for name, method, matrix, weights in models
    ] + _corrupted_evaluations(suite)


def _corrupted_evaluations(suite: Suite) -> list[Stage]:
    """The paper's robustness study merges the corrupted tasks alone."""
    files, tasks, seeds = Files(suite.name), suite.raw["corrupt"]["tasks"], list(suite.seeds)
    chosen = suite.raw["evaluate_corrupted"]["corruptions"]
    parts = [files.pretrained, files.heads, *(files.task_vector(task, _SEED) for task in tasks)]
    labels = [files.labels(task, "test") for task in tasks]
    params = ["evaluate_corrupted.adaptation", "merge.task_arithmetic", *_MODEL]
    corrupted = ["corrupt.severities", "evaluate_corrupted.severity"]
    clean: dict[str, Sequence[Any]] = {"seed": seeds if "clean" in chosen else []}
    return [
        _group(
            "evaluate_clean",
            f"evaluate_corrupted --corruption clean --seed {_SEED}",
            matrix=clean,
            deps=[*parts, *labels, *(files.images(task, "test") for task in tasks)],
            params=["corrupt.images", *params],
            metrics=[files.corrupted_evaluation("clean", _SEED)],
        ),
        _group(
            "evaluate_corrupted",
            f"evaluate_corrupted --corruption {_CORRUPTION} --seed {_SEED}",
            matrix={"corruption": [name for name in chosen if name != "clean"], "seed": seeds},
            deps=[*parts, *labels, *(files.corrupted(task, _CORRUPTION) for task in tasks)],
            params=[*corrupted, *params],
            metrics=[files.corrupted_evaluation(_CORRUPTION, _SEED)],
        ),
    ]


def _report(suite: Suite) -> Stage:
    files, corrupt = Files(suite.name), suite.raw["corrupt"]
    measured = [
        Path(path)
        for group in [*_models(suite), *_merges(suite), *_evaluations(suite)]
        for stage in group.expand()
        for path in stage.files
        if path.endswith((".json", ".csv", "_coefficients.safetensors"))
    ]
    images = [files.images(task, "test") for task in suite.task_names]
    labels = [files.labels(task, "test") for task in suite.task_names]
    classes = [files.classes(task) for task in suite.task_names]
    corrupted = [files.corrupted(t, c) for t in corrupt["tasks"] for c in corrupt["corruptions"]]
    pages = ["index.html", "report.md", "results.csv", "corrupted.csv"]
    return _group(
        "report",
        "report",
        deps=[*measured, *images, *labels, *classes, *corrupted, *REPORT_TEMPLATES],
        params=list(suite.raw),  # the page shows them all
        outs=[
            *(files.report / page for page in pages),
            *_figures(suite),
        ],
    )


def uses_device(stage: Stage) -> bool:
    """Whether a stage computes on the suite's device."""
    return not {"compute", "compute.device"}.isdisjoint(stage.params)


def _split(files: Files, task_names: Iterable[str], split: str) -> list[Path]:
    """Images and labels of one split of each task."""
    return [path(task, split) for task in task_names for path in (files.images, files.labels)]


def _group(
    name: str,
    arguments: str,
    *,
    matrix: Mapping[str, Sequence[Any]] | None = None,
    deps: Iterable[Path] = (),
    code: Iterable[str] = (),
    params: Iterable[str] = (),
    outs: Iterable[Path] = (),
    metrics: Iterable[Path] = (),
) -> Stage:
    """A template that runs `python -m tasks.<arguments>` and depends on the code that this runs.

    code: modules that it uses without an import of theirs by name.
    """
    modules = [f"tasks.{arguments.split()[0]}", *code]
    files = sorted({path for module in modules for path in sources(module)})
    return Stage(
        name,
        f"python -m tasks.{arguments}",
        deps=(*(path.as_posix() for path in deps), *files),
        params=tuple(params),
        outs=tuple(path.as_posix() for path in outs),
        metrics=tuple(path.as_posix() for path in metrics),
        matrix=matrix or {},
    )


def _figures(suite: Suite) -> list[Path]:
    """The report's pictures, which `dvc plots show` puts on one page; DVC's own curves would load
    their drawing library from the network.
    """
    return [Files(suite.name).report / "figures" / f"{figure}.png" for figure in FIGURES]
