"""A suite of two small tasks whose stages have run, its results registered: real models."""

import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from conftest import ROOT
from PIL import Image
from stage_runs import rows_of, run_all, use

from adamerge_core.evaluation import with_average
from tasks.graph import params_yaml, paths
from tasks.graph.dvc_yaml import Stage
from tasks.report.results import results_csv
from tasks.report.rows import Row
from tasks.running import journal
from tasks.running.hashes import md5, md5_of_dep
from tasks.suite.schema import Suite, checked
from tasks.tracking import ingest

STEPS = {"steps": 2, "images_per_task": 4, "batches_per_step": 1, "learning_rate": 0.05}
IMAGES = {"pretrain": 20, "train": 20, "val": 10, "test": 20}


def register_suite(root: Path) -> Suite:
    """Run the suite `mini` in the current folder `root`, and bring the run into MLflow."""
    for name in ("tasks", "adamerge_core"):
        (root / name).symlink_to(ROOT / name)
    for name in (".dvc", "suites"):
        (root / name).mkdir()
    shutil.copy(ROOT / ".dvc/config", root / ".dvc")
    shutil.copy(ROOT / ".gitignore", root)
    _stripes(root / "photos")
    suite = checked(_parameters(), "mini suite")
    use(suite)
    stages = run_all(suite, without=("corrupt", "robustness", "geometry", "report"))
    _write_results(suite)
    evaluation = paths.evaluation("mini", "layer_wise", 0).as_posix()
    report = (paths.report("mini") / "results.csv").as_posix()
    stages.append(Stage("report@mini", "python -m tasks.report", (evaluation,), (), (report,)))
    lock = {"stages": {stage.name: _entry(stage) for stage in stages}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    # as of stages that ran before: the flow alone is new
    log = journal.start_pipeline(uuid.uuid4().hex, "small-run", "adamerge run")
    log.end("FINISHED", counts={"cached": len(lock["stages"])})
    ingest.ingest()
    return suite


def _parameters() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    raw |= {"suite": "mini", "tasks": ["stripes", "signs"]}
    raw["datasets"] = {
        "stripes": {"source": "image_folder", "path": "photos", "templates": ["a photo of {}."]},
        "signs": {"source": "miniature", "seed": 0, **IMAGES},
    }
    raw["model"]["name"] = "tiny"
    raw["prepare"]["image_size"] = 32
    raw["corrupt"] |= {"tasks": ["signs"], "corruptions": ["contrast"], "images": 4}
    raw["pretrain"] |= {"steps": 2, "captions_per_step": 16, "warmup_steps": 1}
    raw["pretrain"]["datasets"] = ["signs"]
    raw["finetune"] |= {"steps": 6, "batch_size": 8, "learning_rate": 3e-4, "warmup_steps": 1}
    del raw["traditional_mtl"]
    raw["methods"] = {"layer_wise": {"adapt": "layer_wise", **STEPS}}
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    robust = {"task_arithmetic": {"rule": "task_arithmetic"}}
    raw["robustness"] |= {"corruptions": ["clean", "contrast"], "methods": robust}
    return raw


def _stripes(folder: Path) -> None:
    """A user's images: stripes along or across, with noise, wider than high."""
    rows = np.zeros((40, 60, 3))
    rows[::8] = 255
    columns = np.zeros((40, 60, 3))
    columns[:, ::8] = 255
    noise = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for name, stripes in (("rows", rows), ("columns", columns)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.normal(stripes, 60).clip(0, 255).astype(np.uint8)
                suffix = "jpg" if index % 2 else "png"
                Image.fromarray(pixels).save(folder / split / name / f"{index}.{suffix}")


def _write_results(suite: Suite) -> None:
    """Write what the report, which is left out, has of the merged model."""
    measured: dict[str, dict[str, float]] = {}
    for row in rows_of(paths.evaluation("mini", "layer_wise", 0)):
        measured.setdefault(row["protocol"], {})[row["task"]] = float(row["value"])
    rows = [Row("layer_wise", name, 0, with_average(each)) for name, each in measured.items()]
    path = paths.report("mini") / "results.csv"
    path.parent.mkdir(parents=True)
    path.write_text(results_csv(rows, suite.tasks))


def _entry(stage: Stage) -> dict[str, Any]:
    return {
        "cmd": stage.cmd,
        "deps": [{"path": path, "md5": md5_of_dep(Path(path))} for path in stage.deps],
        "params": {"params.yaml": params_yaml.values(stage.params)},
        "outs": [{"path": path, "md5": md5(Path(path))} for path in stage.files],
    }


def weights() -> Path:
    """The file of the registered model's weights."""
    return paths.merged("mini", "layer_wise", 0, "held_out")
