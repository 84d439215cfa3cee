"""Every stage's own work, one after the other, on a suite of two small tasks and a few steps."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image

from adamerge_core import checkpoints
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.vision.images import open_array
from tasks import adapt, corrupt, download, evaluate, merge, prepare, pretrain, task_vectors
from tasks import choose as sweep
from tasks import collect_statistics as statistics
from tasks.experiments import robustness as evaluate_corrupted
from tasks.graph import build as graph
from tasks.graph.paths import PROTOCOLS, REFERENCES, Files
from tasks.report import __main__ as report
from tasks.running.stage import PlainReporter
from tasks.shared.encoders import finetune_settings
from tasks.shared.training import train_encoder
from tasks.suite.schema import Suite

IMAGES = {"pretrain": 20, "train": 20, "val": 10, "test": 20}
STEPS = {"steps": 2, "images_per_task": 4, "batches_per_step": 1, "learning_rate": 0.05}
ADAPTATIONS = {
    "layer_wise_over_depth": {
        "preset": "fast",
        **STEPS,
        "start": 1.0,
        "clamp": "none",
        "preprocessing": "scale_by_depth",
    },
    "adarank": {"preset": "adarank", **STEPS},
}


def tiny_suite(device: str) -> Suite:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    raw["suite"] = "tiny"
    raw["compute"] |= {"device": device, "micro_batch": 8}
    raw["download"] = {
        "stripes": {"source": "image_folder", "path": "photos", "templates": ["a photo of {}."]},
        "landuse": {"source": "miniature", "seed": 0, **IMAGES},
    }
    raw["prepare"]["image_size"] = 32
    raw["corrupt"] |= {"tasks": ["landuse"], "corruptions": ["contrast"], "images": 8}
    raw["pretrain"] |= {"steps": 2, "captions_per_step": 16, "warmup_steps": 1}
    raw["finetune"] |= {"steps": 6, "batch_size": 8, "learning_rate": 3e-4, "warmup_steps": 1}
    raw["traditional_mtl"]["steps"] = 1
    raw["statistics"] = {"images": 4, "split": "val", "fisher_probes": 2}
    raw["merge"] = {
        "task_arithmetic": {},
        "regmean": {},
        "task_arithmetic_best": {"scalings": [0.3, 1.0]},
        **ADAPTATIONS,
    }
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    raw["evaluate_corrupted"] |= {"corruptions": ["clean", "contrast"]}
    raw["evaluate_corrupted"]["adaptation"] = {**STEPS, "start": 0.3}
    return Suite.model_validate(raw)


def make_photos(folder: Path) -> None:
    """A user's images: stripes along or across, with noise."""
    rows = np.zeros((16, 16, 3))
    rows[::2] = 255
    noise = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for name, stripes in (("rows", rows), ("columns", rows.swapaxes(0, 1))):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.normal(stripes, 20).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def run_all(suite: Suite) -> None:
    """As the stages' main functions do, in the order of the graph."""
    files, quiet = Files(suite.name), PlainReporter()
    for task in suite.task_names:
        download.run(task, suite.task(task), files.raw(task), quiet)
        prepare.run(task, files, suite.prepare.image_size)
    images = open_array(files.images("landuse", "test"), 4)[: suite.corrupt.images]
    corrupted = files.corrupted("landuse", "contrast")
    corrupt.run(images, "contrast", suite.corrupt.severities, 0, corrupted, quiet)

    pretrain.run(suite, quiet)
    settings = finetune_settings(suite.finetune)
    for task in suite.task_names:
        train_encoder(task, [task], settings, suite, 0, quiet)
    joint = finetune_settings(suite.finetune, suite.traditional_mtl.steps)
    train_encoder("traditional_mtl", suite.task_names, joint, suite, 0, quiet)
    task_vectors.run(suite, 0)
    for kind in suite.merge.statistics:
        for task in suite.task_names:
            statistics.run(suite, kind, task, 0)

    for method in suite.merge.of_kind("merge"):
        merge.run(suite, method, 0)
    for method in suite.merge.of_kind("sweep"):
        sweep.run(suite, method, 0, quiet)
    for method in suite.merge.of_kind("adapt"):
        adapt.run(suite, method, 0, quiet)
    for method in (*REFERENCES, *suite.merge.root):
        evaluate.run(suite, method, 0, quiet)
    for corruption in suite.evaluate_corrupted.corruptions:
        evaluate_corrupted.run(suite, corruption, 0, quiet)
    report.run(suite)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_stages_of_a_tiny_suite(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(Path("photos"))
    suite = tiny_suite(device)
    run_all(suite)
    written = {path.as_posix() for path in Path("data").rglob("*") if path.is_file()}
    wanted = {path for stage in graph.stages(suite).values() for path in stage.files}
    assert written == wanted
    check_models(suite)
    check_coefficients(suite)
    check_tables(suite)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def check_models(suite: Suite) -> None:
    files = Files(suite.name)
    pretrained = checkpoints.load(files.pretrained)
    merged = checkpoints.load(files.merged("task_arithmetic", 0))
    tuned = [checkpoints.load(files.finetuned(task, 0)) for task in suite.task_names]
    name = "trunk.conv_stem.weight"
    added = sum(each[name] - pretrained[name] for each in tuned)
    assert added.abs().max() > 0
    torch.testing.assert_close(merged[name], pretrained[name] + 0.3 * added, rtol=0, atol=1e-6)
    others = [checkpoints.load(files.merged(method, 0)) for method in suite.merge.of_kind("sweep")]
    others += [checkpoints.load(files.merged(m, 0, p)) for m in ADAPTATIONS for p in PROTOCOLS]
    for state in [checkpoints.load(files.merged("regmean", 0)), *others]:
        checkpoints.check_same_architecture(pretrained, {"merged": state})
        assert not torch.equal(state[name], pretrained[name])


def check_coefficients(suite: Suite) -> None:
    files = Files(suite.name)
    for method in ADAPTATIONS:
        start = suite.merge[method].start
        for protocol in PROTOCOLS:
            learned = LearnedCoefficients.load(files.coefficients(method, 0, protocol))
            assert learned.task_names == suite.task_names
            moved = (learned.values - start).abs()
            assert 0.01 < moved.max() <= 0.2  # Adam's: at most about its rate a step
            rows = rows_of(files.trajectory(method, 0, protocol))
            assert [row["step"] for row in rows] == ["0", "1", "2"]
            assert all(float(row["loss"]) > 0 for row in rows[1:])
            assert [bool(row["accuracy_average"]) for row in rows] == [True, False, True]


def check_tables(suite: Suite) -> None:
    files = Files(suite.name)
    rows = rows_of(files.report / "results.csv")
    methods = [*REFERENCES, *suite.merge.root]
    assert [(row["method"], row["protocol"]) for row in rows] == [
        (method, protocol) for method in methods for protocol in PROTOCOLS
    ]
    for row in rows:
        accuracies = [float(row[column]) for column in (*suite.task_names, "average")]
        assert all(0 <= accuracy <= 100 for accuracy in accuracies)
        assert np.mean(accuracies[:-1]) == pytest.approx(accuracies[-1], abs=0.01)
    stripes = {row["method"]: float(row["stripes"]) for row in rows[:: len(PROTOCOLS)]}
    assert stripes["individual"] > max(80, stripes["pretrained"])
    corrupted = rows_of(files.report / "corrupted.csv")
    assert [(row["corruption"], row["method"]) for row in corrupted] == [
        (corruption, method)
        for corruption in ("clean", "contrast")
        for method in ("task_arithmetic", "layer_wise_adamerging")
    ]
    page = (files.report / "index.html").read_text(encoding="utf-8")
    assert all(f'title="{method}"' in page for method in methods)
    measured = json.loads(files.pretrain_metrics().read_text(encoding="utf-8"))
    assert measured["pretraining accuracy"].keys() == {*suite.task_names, "average"}
