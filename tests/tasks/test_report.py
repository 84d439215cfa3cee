"""The report: its tables, its figures, its pages; equal metrics give equal bytes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from adamerge_core.errors import InputError
from adamerge_core.layers import network_order
from tasks.graph.build import FIGURES
from tasks.graph.paths import PROTOCOLS, SPLITS, Files
from tasks.report import __main__ as report
from tasks.report import figures, results
from tasks.report.results import REFERENCES, label
from tasks.suite.schema import Suite, load_suite

TASKS = ("signs", "letters", "mnist")
SEEDS = (0, 1)
LAYERS = (  # out of order, as safetensors files sort them
    "head.proj.weight",
    "trunk.blocks.10.0.conv.weight",
    "trunk.blocks.2.0.conv.weight",
    "trunk.bn2.weight",
    "trunk.conv_stem.weight",
)
SUITES = Path(__file__).parents[2] / "suites"
METHODS = (*REFERENCES, *load_suite(SUITES / "mini.yaml").merge.root)
"""Of the suite mini, in the order of its file."""


def small_suite(suite: str = "mini", **changes: Any) -> Suite:
    """A suite with three tasks, two seeds, two corruptions."""
    raw = yaml.safe_load((SUITES / f"{suite}.yaml").read_text(encoding="utf-8"))
    raw["seeds"] = list(SEEDS)
    raw["download"] = {task: raw["download"][task] for task in TASKS}
    raw["corrupt"] |= {"tasks": list(TASKS[:2]), "corruptions": ["motion_blur", "contrast"]}
    raw["evaluate_corrupted"]["corruptions"] = ["clean", "motion_blur"]
    return Suite.model_validate(raw | changes)


def write_metrics(suite: Suite, root: Path) -> None:
    """Every file that the report of `suite` reads, with made-up numbers, in the stages' formats."""
    files, rng = Files(suite.name), np.random.default_rng(0)
    for seed in suite.seeds:
        for rank, method in enumerate((*REFERENCES, *suite.merge.root)):
            _json(
                root / files.evaluation(method, seed), _evaluation(suite, method, seed, rank, rng)
            )
            _curves(suite, root, method, seed, rank, rng)
        for corruption in suite.evaluate_corrupted.corruptions:
            content = _corrupted(suite, corruption, seed, rng)
            _json(root / files.corrupted_evaluation(corruption, seed), content)
        count = len(suite.task_names)
        cosine = np.full((count, count), 0.05) + 0.95 * np.eye(count)
        content = {"tasks": suite.task_names, "cosine": cosine.tolist(), "l2_norm": [2.0] * count}
        _json(root / files.task_vector_geometry(seed), content)
    _images(suite, root, rng)


def _evaluation(
    suite: Suite, method: str, seed: int, rank: int, rng: np.random.Generator
) -> dict[str, Any]:
    protocols = {
        protocol: _with_average(
            {task: 40 + 4 * rank + float(rng.uniform(0, 5)) for task in suite.task_names}
        )
        for protocol in PROTOCOLS
    }
    return {"method": method, "seed": seed, "protocols": protocols}


def _corrupted(
    suite: Suite, corruption: str, seed: int, rng: np.random.Generator
) -> dict[str, Any]:
    return {
        "corruption": corruption,
        "severity": 0 if corruption == "clean" else suite.evaluate_corrupted.severity,
        "seed": seed,
        "tasks": suite.corrupt.tasks,
        "methods": {
            method: _with_average(
                {task: float(rng.uniform(40, 90)) for task in suite.corrupt.tasks}
            )
            for method in ("task_arithmetic", "layer_wise_adamerging")
        },
    }


def _curves(
    suite: Suite, root: Path, method: str, seed: int, rank: int, rng: np.random.Generator
) -> None:
    files, params = Files(suite.name), suite.raw["merge"].get(method, {})
    if "scalings" in params:
        lines = []
        for scaling in params["scalings"]:
            line = {
                task: 80 - 200 * (scaling - 0.2) ** 2 + i for i, task in enumerate(suite.task_names)
            }
            lines.append({"scaling": scaling, **_with_average(line)})
        _csv(root / files.sweep(method, seed), lines)
    if method in suite.merge.of_kind("adapt"):
        for protocol in PROTOCOLS:
            lines = [
                _step(suite, step, params["steps"], rank, rng)
                for step in range(1, params["steps"] + 1)
            ]
            _csv(root / files.trajectory(method, seed, protocol), lines)
            _coefficients(suite, root / files.coefficients(method, seed, protocol), rng)


def _step(
    suite: Suite, step: int, steps: int, rank: int, rng: np.random.Generator
) -> dict[str, Any]:
    names, done = suite.task_names, step / steps
    entropy = {
        task: (2 + i / 3) * np.exp(-done) + rng.normal(0, 0.1) for i, task in enumerate(names)
    }
    accuracy = {task: 40 + 2 * rank + 20 * done + 5 * i for i, task in enumerate(names)}
    measured = step % 25 in (0, 1)
    return {
        "step": step,
        "loss": sum(entropy.values()),
        **{f"entropy_{task}": value for task, value in entropy.items()},
        **{f"mean_coefficient_{task}": 0.3 for task in names},
        **{f"accuracy_{task}": value if measured else "" for task, value in accuracy.items()},
        "accuracy_average": np.mean(list(accuracy.values())) if measured else "",
    }


def _coefficients(suite: Suite, path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = rng.uniform(0, 1, (len(LAYERS), len(suite.task_names)))
    metadata = {"names": json.dumps({"layers": LAYERS, "tasks": suite.task_names})}
    save_file({"coefficients": values}, path, metadata)


def _images(suite: Suite, root: Path, rng: np.random.Generator) -> None:
    files, split, count = Files(suite.name), SPLITS[-1], 12
    for task in suite.task_names:
        images = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
        _npy(root / files.images(task, split), images)
        _npy(root / files.labels(task, split), np.arange(count) % 5)
        names = [f"{task} class {number}" for number in range(5)]
        _json(root / files.classes(task), {"classes": names, "templates": ["a photo of a {}."]})
    for task in suite.corrupt.tasks:
        for corruption in suite.corrupt.corruptions:
            stack = rng.integers(0, 256, (len(suite.corrupt.severities), 4, 16, 16, 3), np.uint8)
            _npy(root / files.corrupted(task, corruption), stack)


def _with_average(values: Mapping[str, float]) -> dict[str, float]:
    return {**values, "average": float(np.mean(list(values.values())))}


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _csv(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def _npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


# --- the tests ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    """A suite and a project's root in which its report has been written."""
    suite, root = small_suite(), tmp_path_factory.mktemp("project")
    write_metrics(suite, root)
    report.run(suite, root)
    return suite, root


@pytest.fixture
def pages(project: tuple[Suite, Path]) -> Path:
    suite, root = project
    return root / Files(suite.name).report


def _lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_results_csv_has_a_row_per_method_protocol_and_seed(
    project: tuple[Suite, Path], pages: Path
) -> None:
    suite, root = project
    lines = _lines(pages / "results.csv")
    assert list(lines[0]) == ["method", "protocol", "seed", *TASKS, "average"]
    keys = [(line["method"], line["protocol"], int(line["seed"])) for line in lines]
    assert keys == [(m, p, s) for m in METHODS for p in PROTOCOLS for s in SEEDS]
    for line in lines:
        path = root / Files(suite.name).evaluation(line["method"], int(line["seed"]))
        measured = json.loads(path.read_text())["protocols"][line["protocol"]]
        assert {column: line[column] for column in measured} == {
            column: f"{value:.2f}" for column, value in measured.items()
        }


def test_corrupted_csv_names_corruption_and_severity(pages: Path) -> None:
    lines = _lines(pages / "corrupted.csv")
    assert list(lines[0]) == ["corruption", "severity", "method", "seed", *TASKS[:2], "average"]
    assert {(line["corruption"], line["severity"]) for line in lines} == {
        ("clean", "0"),
        ("motion_blur", str(load_suite(SUITES / "mini.yaml").evaluate_corrupted.severity)),
    }
    assert len(lines) == 2 * 2 * len(SEEDS)
    assert all(re.fullmatch(r"\d+\.\d\d", line["average"]) for line in lines)


def test_mean_and_sample_deviation_over_seeds() -> None:
    values = np.random.default_rng(3).uniform(0, 100, (4, 2))
    rows = [
        results.Row("ties_merging", "held_out", seed, {"mnist": mnist, "average": average})
        for seed, (mnist, average) in enumerate(values)
    ]
    summary = results.summarise(rows, "held_out")["ties_merging"]
    assert list(summary.mean.values()) == pytest.approx(values.mean(axis=0))
    assert summary.deviation is not None
    assert list(summary.deviation.values()) == pytest.approx(values.std(axis=0, ddof=1))
    assert results.summarise(rows[:1], "held_out")["ties_merging"].deviation is None
    assert results.summarise(rows, "transductive") == {}


def test_the_best_of_a_column_is_a_merged_model_and_may_be_several() -> None:
    summaries = {
        name: results.Summary({"mnist": value}, None)
        for name, value in (
            ("individual", 99.0),
            ("task_arithmetic", 9.97),
            ("ties_merging", 70.02),
            ("layer_wise_adamerging", 70.04),
        )
    }
    best = results.best_by_column(summaries, REFERENCES)
    assert best == {"mnist": {"ties_merging", "layer_wise_adamerging"}}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_picture_of_a_page_s_width(pages: Path, name: str) -> None:
    with Image.open(pages / "figures" / f"{name}.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 1500
        assert 400 <= picture.height <= 3000
        assert "Software" not in picture.info
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_two_runs_write_the_same_bytes(
    project: tuple[Suite, Path], pages: Path, tmp_path: Path
) -> None:
    suite, root = project
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / Files(suite.name).report)
    report.run(suite, tmp_path / "copy")
    again = tmp_path / "copy" / Files(suite.name).report
    written = sorted(path.relative_to(pages) for path in pages.rglob("*") if path.is_file())
    assert len(written) == 4 + len(FIGURES)
    assert written == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [p for p in written if (pages / p).read_bytes() != (again / p).read_bytes()] == []


def test_the_page_is_self_contained(pages: Path) -> None:
    page = (pages / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"https?://|<script|<link|@import|url\(", page) == []
    sources = re.findall(r'src="([^"]{22})', page)
    assert sources == ["data:image/png;base64,"] * len(FIGURES)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))


def test_both_pages_show_every_number_of_the_table(
    project: tuple[Suite, Path], pages: Path
) -> None:
    suite, _ = project
    page = (pages / "index.html").read_text(encoding="utf-8")
    markdown = (pages / "report.md").read_text(encoding="utf-8")
    rows = [
        results.Row(
            line["method"], line["protocol"], int(line["seed"]), {"average": float(line["average"])}
        )
        for line in _lines(pages / "results.csv")
    ]
    for protocol in PROTOCOLS:
        for method, summary in results.summarise(rows, protocol).items():
            assert summary.deviation is not None
            mean, deviation = summary.mean["average"], summary.deviation["average"]
            assert f"{mean:.1f}<small>±{deviation:.1f}</small>" in page
            row = rf"^\| \*?{re.escape(label(method))}\*? \|.* (\*\*)?{mean:.1f} ±{deviation:.1f}"
            assert re.search(row, markdown, re.MULTILINE)
    linked = re.findall(r"!\[.*\]\((.*)\)", markdown)
    assert linked == [f"figures/{name}.png" for name in FIGURES]
    assert f"adamerge lineage {Files(suite.name).report.as_posix()}/results.csv" in page


def test_markdown_tables_are_whole(pages: Path) -> None:
    text = (pages / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_names_are_escaped(project: tuple[Suite, Path]) -> None:
    suite, _ = project
    rows = [
        results.Row(method, protocol, 0, {"a<b>&": 50.0, "average": 50.0})
        for method in METHODS
        for protocol in PROTOCOLS
    ]
    content = {
        **report.content(suite, rows, []),
        "task_names": ["a<b>&"],
        "pictures": dict.fromkeys(FIGURES, ""),
    }
    page = report.render("report_template.html", content)
    assert "a<b>&" not in page
    assert "a&lt;b&gt;&amp;" in page


def test_text_table_shows_all_methods_in_aligned_columns(
    project: tuple[Suite, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, root = project
    monkeypatch.chdir(root)
    text = results.text_table(results.read(suite.name), REFERENCES)
    for table, protocol in zip(text.split("\n\n"), PROTOCOLS, strict=True):
        title, _, head, _, *lines, _, _ = table.splitlines()
        assert title.startswith(protocol)
        assert [line.split()[0] for line in lines] == list(METHODS)
        ends = [match.end() for match in re.finditer(r"\S+", head)][1:]
        for line in lines:
            assert [match.end() for match in re.finditer(r"±\d+\.\d", line)] == ends
        assert [line.split()[0] for line in lines if "*" in line] != []
        assert not any("*" in line for line in lines if line.split()[0] in REFERENCES)
    assert results.text_table([], REFERENCES) == ""


def test_what_learns_from_true_labels_is_a_reference_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = small_suite("mini_methods", seeds=[0])
    references = results.references(suite.raw["merge"])
    assert references == {*REFERENCES, "layer_wise_supervised"}
    rows = [
        results.Row(method, protocol, 0, {"mnist": accuracy, "average": accuracy})
        for method, accuracy in (
            *dict.fromkeys(REFERENCES, 60.0).items(),
            ("layer_wise_supervised", 99.0),
            ("task_arithmetic", 70.0),
            ("adarank", 71.0),
        )
        for protocol in PROTOCOLS
    ]
    best = results.best_by_column(results.summarise(rows, "held_out"), references)
    assert best == {"mnist": {"adarank"}, "average": {"adarank"}}
    starred = re.findall(r"^(\w+) .*\d\*", results.text_table(rows, references), re.MULTILINE)
    assert starred == ["adarank"] * len(PROTOCOLS)

    content = report.content(suite, rows, [])
    assert content["headline"]["best"] == "AdaRank"
    italic = [row["method"] for row in content["tables"]["held_out"] if row["reference"]]
    assert italic == [*REFERENCES, "layer_wise_supervised"]
    filled = {**content, "task_names": ["mnist"], "pictures": dict.fromkeys(FIGURES, "")}
    for template in ("report_template.html", "report_template.md"):
        page = report.render(template, filled)
        assert "learned from the true labels of the test images" in page
        if template.endswith(".html"):  # the line below the three, nowhere else
            assert page.count('<tr class="reference last">') == len(PROTOCOLS)
            assert page.count('<tr class="reference">') == 3 * len(PROTOCOLS)

    monkeypatch.chdir(tmp_path)
    for method in ("layer_wise_supervised", "adarank"):
        path = Files(suite.name).merged(method, 0, PROTOCOLS[0])
        path.parent.mkdir(parents=True)
        path.touch()
    found = results.best_merged(suite.name, rows, references)
    assert found is not None
    assert found[0].method == "adarank"


def test_missing_files_are_listed_at_once(project: tuple[Suite, Path], tmp_path: Path) -> None:
    suite, root = project
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    files = Files(suite.name)
    missing = [
        tmp_path / files.evaluation("ties_merging", 1),
        tmp_path / files.sweep("task_arithmetic_best", 0),
        tmp_path / files.corrupted("signs", "motion_blur"),
    ]
    for path in missing:
        path.unlink()
    with pytest.raises(InputError, match="dvc repro") as error:
        report.run(suite, tmp_path)
    assert [str(path) in str(error.value) for path in missing] == [True] * 3
    assert str(error.value).count("does not exist") == 3


def test_metrics_of_other_tasks_are_listed_at_once(tmp_path: Path) -> None:
    paths = {("pretrained", seed): tmp_path / f"{seed}.json" for seed in SEEDS}
    for path in paths.values():
        accuracies = {"mnist": 50.0, "average": 50.0}
        _json(path, {"protocols": {"transductive": accuracies, "held_out": accuracies}})
    with pytest.raises(InputError, match="dvc repro") as error:
        results.read_evaluations(paths, ["mnist", "signs"])
    assert str(error.value).count("no accuracy of signs") == 4
    paths["pretrained", 0].write_text('{"protocols": ')
    with pytest.raises(InputError, match=r"0\.json: not readable as JSON"):
        results.read_evaluations(paths, ["mnist"])


def test_layers_are_ordered_from_shallow_to_deep() -> None:
    order, blocks = network_order(LAYERS)
    assert [LAYERS[index] for index in order] == [
        "trunk.conv_stem.weight",
        "trunk.blocks.2.0.conv.weight",
        "trunk.blocks.10.0.conv.weight",
        "head.proj.weight",
        "trunk.bn2.weight",
    ]
    assert {name: len(rows) for name, rows in blocks.items()} == {
        "stem": 1,
        "blocks.2": 1,
        "blocks.10": 1,
        "head": 2,
    }
    vit = ["ln_post.weight", "transformer.resblocks.11.ln_1.bias", "class_embedding", "proj"]
    assert list(network_order(vit)[1]) == ["stem", "resblocks.11", "head"]


def test_a_suite_without_adaptation_and_sweeps_has_a_report(tmp_path: Path) -> None:
    suite = small_suite(merge={"task_arithmetic": {"scaling": 0.3}}, seeds=[7])
    write_metrics(suite, tmp_path)
    report.run(suite, tmp_path)
    pages = tmp_path / Files(suite.name).report
    assert len(_lines(pages / "results.csv")) == 4 * len(PROTOCOLS)
    with Image.open(pages / "figures" / "sweeps.png") as picture:
        assert picture.height < 300
    assert "seed 7" in (pages / "index.html").read_text(encoding="utf-8")


def test_a_suite_of_many_methods_has_a_report(tmp_path: Path) -> None:
    suite = small_suite("mini_methods", seeds=[0])
    write_metrics(suite, tmp_path)
    report.run(suite, tmp_path)
    pages = tmp_path / Files(suite.name).report
    lines = _lines(pages / "results.csv")
    methods = [*REFERENCES, *suite.merge.root]
    assert len(methods) > 25
    assert [line["method"] for line in lines] == [m for m in methods for _ in PROTOCOLS]
    markdown = (pages / "report.md").read_text(encoding="utf-8")
    references = results.references(suite.raw["merge"])
    for method in methods:
        shown = f"*{label(method)}*" if method in references else label(method)
        assert f"| {shown} |" in markdown
    for name in FIGURES:
        with Image.open(pages / "figures" / f"{name}.png") as picture:
            assert picture.width == 1500
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_every_method_has_a_name_for_people() -> None:
    assert label("tsv_m") == "TSV-M"
    assert label("tsv_m_best") == "TSV-M, best scaling"
    assert label("task_arithmetic_best") == "Task arithmetic, best scaling"
    assert label("layer_wise_mask_tails") == "layer wise mask tails"


def test_coefficients_above_one_are_not_drawn_as_one() -> None:
    """As where an adaptation does not clamp."""
    names, high = ["blocks.0.weight", "blocks.1.weight"], np.array([[0.5, 1.0], [0.2, 2.0]])

    def drawn(values: np.ndarray) -> bytes:
        found = figures.LayerCoefficients(values, names, ["a", "b"])
        return figures.coefficients({"layer_wise_adamerging": found}, [0.3])

    assert drawn(high) == drawn(high.copy())
    first, second = (np.asarray(Image.open(io.BytesIO(drawn(v)))) for v in (high, high.clip(0, 1)))
    assert first.shape == second.shape
    assert not np.array_equal(first[:, : first.shape[1] // 3], second[:, : second.shape[1] // 3])


def test_the_report_imports_neither_torch_nor_pandas() -> None:
    heavy = {"torch", "pandas", "matplotlib.pyplot"}
    code = f"import sys, tasks.report.__main__; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
