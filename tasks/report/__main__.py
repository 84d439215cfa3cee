"""report: one page, the same as Markdown, its tables as CSV, its figures as PNG.

Equal metrics give equal bytes: no date, no host and no run stands in it.
"""

import argparse
import base64
import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from safetensors import safe_open

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from tasks.graph.paths import PROTOCOLS, REFERENCES, Files
from tasks.report import figures, results
from tasks.report.figures import LayerCoefficients
from tasks.report.results import AVERAGE, Row, Summary, label
from tasks.report.sample_figure import CorruptedSamples, TaskSamples, samples
from tasks.running.stage import run_stage
from tasks.suite.schema import Suite, load_params

PAPER_AVERAGES = {
    "pretrained": 48.0,
    "individual": 90.5,
    "traditional_mtl": 88.9,
    "weight_averaging": 65.8,
    "fisher_merging": 68.3,
    "regmean": 71.8,
    "task_arithmetic": 69.1,
    "ties_merging": 72.4,
    "task_wise_adamerging": 71.1,
    "task_wise_adamerging_pp": 73.7,
    "layer_wise_adamerging": 80.1,
    "layer_wise_adamerging_pp": 81.1,
}
"""Average top-1 accuracy in percent over the paper's eight tasks with ViT-B/32: arXiv 2310.02575,
table 1.
"""

READINGS = {
    "transductive": (
        "Paper's protocol (transductive)",
        "AdaMerging learns its merging coefficients on the test images without their labels, and "
        "is measured on the same images. This is what the paper reports.",
    ),
    "held_out": (
        "Held-out protocol",
        "AdaMerging learns on one part of the test images and is measured on the other, which it "
        "has not seen; all other methods are measured on that other part too. Where a number is as "
        "far above task arithmetic as in the table before, what AdaMerging learned holds for new "
        "images too.",
    ),
}
"""By protocol: the title of its table, and how to read it."""

FIGURES = {
    "trajectories": (
        "Entropy and accuracy along adaptation",
        "Look for accuracy that rises while entropy falls: entropy, which needs no labels, is what "
        "AdaMerging minimises in place of the error, and a task whose accuracy sinks while its "
        "entropy falls is one where that fails. Entropy is of each step's images, averaged over "
        "neighbouring steps; accuracy is measured on a part of the test images at a few steps.",
    ),
    "coefficients": (
        "Learned merging coefficients",
        "Look for whether rows get brighter further down: in the paper, deep layers take more of "
        "each task vector than shallow ones. A layer is one parameter tensor; white lines part the "
        "network's blocks.",
    ),
    "task_vectors": (
        "How the task vectors lie to each other",
        "Look for small numbers: task vectors that are nearly orthogonal can be added with little "
        "interference, and a pair with a large cosine shares what it learned.",
    ),
    "sweeps": (
        "Accuracy over the scaling",
        "Look for where each task has its best: one scaling for all tasks is a compromise, which "
        "is why coefficients of their own help. The circle marks the scaling with the best average "
        "on validation images, which the row of this name in the tables uses.",
    ),
    "samples": (
        "What the images look like",
        "Look at how different the tasks are, and at how much of an image a corruption leaves.",
    ),
}
"""By file name: title, and what to look for."""

_IMAGES_PER_TASK = 8
_CORRUPTIONS_SHOWN = 3


@dataclass(frozen=True)
class _Sources:
    """The metrics and images that the report reads, by what they are about."""

    evaluations: dict[tuple[str, int], Path]
    corrupted: list[Path]
    trajectories: dict[tuple[str, str], Path]
    coefficients: dict[str, Path]
    sweeps: dict[str, Path]
    task_vectors: Path
    test_images: list[Path]
    corrupted_images: list[Path]

    @classmethod
    def of(cls, suite: Suite, root: Path) -> "_Sources":
        """Figures show the first seed; coefficients and trajectories are under each protocol."""
        files, seed = Files(suite.name), suite.seeds[0]
        adapting = suite.merge.of_kind("adapt")
        evaluated = (*REFERENCES, *suite.merge.root)
        corruptions = suite.evaluate_corrupted.corruptions
        images = [
            path
            for task in suite.task_names
            for path in (
                files.images(task, "test"),
                files.labels(task, "test"),
                files.classes(task),
            )
        ]
        return cls(
            {(m, s): root / files.evaluation(m, s) for m in evaluated for s in suite.seeds},
            [root / files.corrupted_evaluation(c, s) for c in corruptions for s in suite.seeds],
            {(m, p): root / files.trajectory(m, seed, p) for m in adapting for p in PROTOCOLS},
            {
                m: root / files.coefficients(m, seed, PROTOCOLS[0])
                for m in adapting
                if suite.merge.granularity(m) != "task_wise"
            },
            {m: root / files.sweep(m, seed) for m in suite.merge.of_kind("sweep")},
            root / files.task_vector_geometry(seed),
            [root / path for path in images],
            [
                root / files.corrupted(task, corruption)
                for task in suite.corrupt.tasks
                for corruption in _corruptions_shown(suite)
            ],
        )

    def check(self) -> None:
        """Raises one InputError that lists the files that do not exist."""
        paths: list[Path] = [
            *self.evaluations.values(),
            *self.corrupted,
            *self.trajectories.values(),
            *self.coefficients.values(),
            *self.sweeps.values(),
            self.task_vectors,
            *self.test_images,
            *self.corrupted_images,
        ]
        faults = [f"{path} does not exist" for path in paths if not path.is_file()]
        if faults:
            faults.append("fix: run the stages that make them: dvc repro")
            raise InputError.listing("what the report reads is not all there", faults)


def run(suite: Suite, root: Path = Path()) -> None:
    """Writes data/<suite>/report below the project's root `root`.

    Raises one InputError that lists all metrics that are missing, or that do not fit the suite.
    """
    sources = _Sources.of(suite, root)
    sources.check()
    rows = results.read_evaluations(sources.evaluations, suite.task_names)
    corrupted = results.read_corrupted(sources.corrupted, suite.corrupt.tasks)
    pictures = {name: draw() for name, draw in _figures(suite, root, sources).items()}
    filled = {
        **content(suite, rows, corrupted),
        "pictures": {name: base64.b64encode(png).decode() for name, png in pictures.items()},
    }
    folder = root / Files(suite.name).report
    for name, png in pictures.items():
        _write(folder / "figures" / f"{name}.png", png)
    _write(folder / "results.csv", results.results_csv(rows, suite.task_names).encode())
    _write(folder / "corrupted.csv", results.corrupted_csv(corrupted, suite.corrupt.tasks).encode())
    _write(folder / "report.md", render("report_template.md", filled).encode())
    _write(folder / "index.html", render("report_template.html", filled).encode())


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tasks.report.__main__", description=__doc__
    ).parse_args()
    run_stage("report", lambda _: run(load_params()))


def render(template: str, content: Mapping[str, Any]) -> str:
    """A template of this package filled in; names are escaped for HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(content)


# --- tables -------------------------------------------------------------------------------------


def content(
    suite: Suite, rows: Sequence[Row], corrupted: Sequence[results.CorruptedRow]
) -> dict[str, Any]:
    """What both templates are filled with."""
    tables = {protocol: results.summarise(rows, protocol) for protocol in PROTOCOLS}
    drawn = {*figures.METHOD_COLOURS, *suite.merge.of_kind("adapt")}
    references = results.references(suite.raw["merge"])
    return {
        "suite": suite.name,
        "seeds": list(suite.seeds),
        "severity": suite.evaluate_corrupted.severity,
        "miniature": all(source.source == "miniature" for source in suite.download.values()),
        "task_names": list(suite.task_names),
        "tables": {
            name: _table(summaries, drawn, references) for name, summaries in tables.items()
        },
        "headline": _headline(tables[PROTOCOLS[0]], references),
        "supervised": bool(references.difference(REFERENCES)),
        "held_out_percent": f"{100 * suite.evaluate.held_out_fraction:g}",
        "corrupted_tasks": list(suite.corrupt.tasks),
        "corrupted": _corrupted_table(corrupted),
        "figures": [
            {"name": name, "title": title, "text": text} for name, (title, text) in FIGURES.items()
        ],
        "readings": READINGS,
        "paper": [
            {"label": label(name), "average": f"{average:.1f}"}
            for name, average in PAPER_AVERAGES.items()
        ],
        "parameters": yaml.safe_dump(
            suite.raw, sort_keys=False, default_flow_style=None, width=100
        ),
    }


def _table(
    summaries: Mapping[str, Summary], drawn: Container[str], references: Container[str]
) -> list[dict[str, Any]]:
    """The rows of a results table; `shade` is 0 for a column's lowest and 1 for its highest. The
    methods in `drawn` have their colour.
    """
    best = results.best_by_column(summaries, references)
    return [
        {
            "method": method,
            "label": label(method),
            "reference": method in references,
            "last": method == REFERENCES[-1],
            "colour": figures.method_colour(method) if method in drawn else None,
            "cells": _cells(
                summary,
                [other.mean for other in summaries.values()],
                {column for column, methods in best.items() if method in methods},
            ),
        }
        for method, summary in summaries.items()
    ]


def _corrupted_table(rows: Sequence[results.CorruptedRow]) -> list[dict[str, Any]]:
    """The rows of the corrupted results; the best and the shades are of each corruption."""
    summaries = results.summarise_corrupted(rows)
    table = []
    for (corruption, severity, method), summary in summaries.items():
        beside = [
            other.mean for key, other in summaries.items() if key[:2] == (corruption, severity)
        ]
        best = {
            column
            for column, value in summary.mean.items()
            if f"{value:.1f}" == f"{max(other[column] for other in beside):.1f}"
        }
        table.append(
            {
                "corruption": corruption.replace("_", " "),
                "label": label(method),
                "last": beside[-1] is summary.mean,
                "colour": figures.METHOD_COLOURS.get(method),
                "cells": _cells(summary, [other.mean for other in summaries.values()], best),
            }
        )
    return table


def _cells(
    summary: Summary, column_of: Sequence[Mapping[str, float]], best: set[str]
) -> list[dict[str, Any]]:
    """The cells of one row; `column_of` holds all rows' values, for the shade."""
    cells = []
    for column, value in summary.mean.items():
        low, high = (bound(row[column] for row in column_of) for bound in (min, max))
        cells.append(
            {
                "mean": f"{value:.1f}",
                "deviation": f"{summary.deviation[column]:.1f}" if summary.deviation else None,
                "best": column in best,
                "shade": f"{(value - low) / (high - low) if high > low else 0:.2f}",
            }
        )
    return cells


def _headline(summaries: Mapping[str, Summary], references: Container[str]) -> dict[str, str]:
    """The best merged method on average, and the averages to hold it against."""
    averages = {name: summary.mean[AVERAGE] for name, summary in summaries.items()}
    merged = [name for name in averages if name not in references]
    best = max(merged, key=lambda name: averages[name])
    return {
        "best": label(best),
        "best_average": f"{averages[best]:.1f}",
        **{
            name: f"{averages[name]:.1f}"
            for name in ("pretrained", "individual", "task_arithmetic")
        },
    }


# --- figures ------------------------------------------------------------------------------------


def _figures(suite: Suite, root: Path, sources: _Sources) -> dict[str, Callable[[], bytes]]:
    """How each figure is drawn, by the name of its file."""
    curves = {key: results.read_curve(path) for key, path in sources.trajectories.items()}
    sweeps = {method: results.read_curve(path) for method, path in sources.sweeps.items()}
    learned = {method: read_coefficients(path) for method, path in sources.coefficients.items()}
    geometry = json.loads(sources.task_vectors.read_text(encoding="utf-8"))
    return {
        "trajectories": lambda: figures.trajectories(curves, suite.task_names),
        "coefficients": lambda: figures.coefficients(
            learned, sorted({suite.merge[method].start for method in learned})
        ),
        "task_vectors": lambda: figures.task_vectors(
            geometry["tasks"], np.array(geometry["cosine"]), geometry["l2_norm"]
        ),
        "sweeps": lambda: figures.sweeps(sweeps, suite.task_names),
        "samples": lambda: _samples(suite, root),
    }


def read_coefficients(path: Path) -> LayerCoefficients:
    """Learned coefficients from their file, without torch."""
    with safe_open(path, framework="np") as file:
        names = json.loads(file.metadata()["names"])
        return LayerCoefficients(
            file.get_tensor("coefficients"),
            names["layers"],
            names["tasks"],
        )


def _samples(suite: Suite, root: Path) -> bytes:
    """The figure of the images; files are mapped, so only the pages of these images are read."""
    files, shown = Files(suite.name), _corruptions_shown(suite)
    made = suite.corrupt.severities
    chosen = sorted({0, len(made) // 2, len(made) - 1})
    tasks = [_task_samples(files, root, task) for task in suite.task_names]
    corrupted = []
    for task in suite.corrupt.tasks:
        stacks = [np.load(root / files.corrupted(task, name), mmap_mode="r") for name in shown]
        clean = np.load(root / files.images(task, "test"), mmap_mode="r")[0]
        images = np.array([[stack[severity, 0] for severity in chosen] for stack in stacks])
        corrupted.append(CorruptedSamples(task, clean, images))
    return samples(tasks, corrupted, shown, [made[index] for index in chosen])


def _task_samples(files: Files, root: Path, task_name: str) -> TaskSamples:
    """The first test image of classes spread over all of the task's."""
    labels = np.load(root / files.labels(task_name, "test"))
    classes = json.loads((root / files.classes(task_name)).read_text(encoding="utf-8"))["classes"]
    present, first = np.unique(labels, return_index=True)
    count = min(_IMAGES_PER_TASK, len(present))
    spread = np.linspace(0, len(present) - 1, count).round().astype(int)
    images = np.load(root / files.images(task_name, "test"), mmap_mode="r")
    names = [classes[present[index]] for index in spread]
    return TaskSamples(task_name, np.array(images[first[spread]]), names)


# --- what there is to show ----------------------------------------------------------------------


def _corruptions_shown(suite: Suite) -> list[str]:
    """Those that were evaluated first, then the others, up to a few."""
    made = suite.corrupt.corruptions
    evaluated = [name for name in suite.evaluate_corrupted.corruptions if name in made]
    return list(dict.fromkeys([*evaluated, *made]))[:_CORRUPTIONS_SHOWN]


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    main()
