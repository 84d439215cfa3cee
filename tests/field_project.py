"""A project with the suites of the paper's setting, thinned, and the hub that they read.

The suites are as they are committed, but for what a small machine demands: sizes of models, numbers
of images and of steps, one corruption. Models and images are random and in the formats of the
published ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT, Project, commit
from field_data_sets import count, hub_of, tell_counts, write_emnist_digits
from field_models import (
    SIDE,
    TINY,
    add_architectures,
    fine_tuned_hubs,
    openai_hub,
    write_local_models,
)
from hub_server import Hub, serving
from small_suite import copy_code

from adamerge_core.merging import AFTER, BEFORE, RULES
from adamerge_core.vision.datasets.published import published_dataset, published_names
from dev.clip_suites import COUNTS, KINDS, MODELS

SMALL = "clip-real-small"
NAMES = (
    *(
        f"clip-vit-{model}-{tasks}-{kind}"
        for kind in KINDS
        for model in MODELS
        for tasks in reversed(COUNTS)  # what the larger makes, the smaller finds
    ),
    SMALL,
)
ALL_METHODS = (*(f"clip-vit-b-32-8-{kind}" for kind in KINDS), SMALL)
"""These have every registered method beside their own."""
BY_DVC = (*(f"clip-vit-b-16-8-{kind}" for kind in KINDS), SMALL)
"""These are run once more in a copy, by `dvc repro` alone."""

STEPS = {"steps": 2, "images_per_task": 4, "batches_per_step": 1}
CORRUPTION = "contrast"


def as_committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"suites/{name}.yaml").read_text("utf-8"))
    return found


def thinned(name: str) -> dict[str, Any]:
    """A suite's file with fewer steps, images and corruptions; sizes are the tiny models'."""
    raw = as_committed(name)
    raw["compute"] |= {"device": "cpu", "threads": 1}
    raw["corrupt"] |= {"corruptions": [CORRUPTION], "images": 4}
    raw["corrupt"]["severities"] = raw["corrupt"]["severities"][-1:]
    raw["robustness"]["corruptions"] = ["clean", CORRUPTION]
    raw["robustness"]["severity"] = raw["corrupt"]["severities"][0]
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    if raw["model"]["architecture"] in TINY:
        raw["prepare"]["image_size"] = SIDE
    for section, values in {
        "finetune": {"steps": 2, "batch_size": 4, "warmup_steps": 1},
        "traditional_mtl": {"steps": 2},
        "pretrain": {"steps": 2, "captions_per_step": 8, "warmup_steps": 1},
    }.items():
        if section in raw:
            raw[section] |= values
    for entry in raw["datasets"].values():
        classes = len(published_dataset(entry["dataset"]).classes)
        few = {"pretrain": classes, "train": classes, "val": 4, "test": count(classes, "test")}
        entry.update({split: number for split, number in few.items() if split in entry})
    if name in ALL_METHODS:
        add_all_methods(raw)
    for methods in (raw["methods"], raw["robustness"]["methods"]):
        for method in methods.values():
            method.update(STEPS if "adapt" in method else {})
    return raw


def add_all_methods(raw: dict[str, Any]) -> None:
    """Add every rule, every step before and after a merge, and every kind of adaptation."""
    labels = "val" if raw.get("finetune") else "test"
    raw["statistics"] = {"images": 4, "split": labels, "fisher_probes": 1}
    own = {method.get("rule") for method in raw["methods"].values()}
    added: dict[str, Any] = {
        f"rule_{name}": {"rule": name}
        for name in RULES
        if name not in own and name != "published_coefficients"  # of the paper's models alone
    }
    added["rule_wudi"]["steps"] = 2
    added |= {f"over_{name}": {"adapt": "layer_wise", "before": name} for name in BEFORE}
    added |= {f"then_{name}": {"rule": "task_arithmetic", "after": name} for name in AFTER}
    added["fast"] = {"adapt": "layer_wise", "preset": "fast"}
    added["adarank"] = {"adapt": "singular_components", "preset": "adarank"}
    if labels == "val":
        for by in ("accuracy", "entropy"):
            choose = {"scaling": [0.2, 0.4], "by": by}
            added[f"chosen_by_{by}"] = {"rule": "task_arithmetic", "choose": choose}
    raw["methods"] |= added


@dataclass(frozen=True)
class Field:
    """A project with all suites, and the hub that they read."""

    project: Project
    root: Path
    hub: Hub

    def run(self, *command: str, project: Project | None = None, online: bool = False) -> str:
        variables = dict(os.environ) | {"HF_HUB_CACHE": str(self.root / "cache")}
        variables.pop("HF_HUB_OFFLINE", None)
        if online:
            variables["HF_ENDPOINT"] = self.hub.address
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=(project or self.project).root,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def bring_in(self, name: str, project: Project | None = None) -> None:
        """Make a suite the active one, and fetch what it reads."""
        self.run("flows.cli", "suite", "use", name, project=project)
        self.run("flows.cli", "data", "download", project=project, online=True)

    def copy(self, folder: Path) -> Project:
        """Make a project of the same suites and files, in which nothing was run."""
        project = copy_code(folder)
        prepare(project, self.root)
        return project


def prepare(project: Project, files: Path) -> None:
    """Put suites, sizes and links to the user's files into a copy of the code."""
    add_architectures(project.root)
    tell_counts(project.root / "adamerge_core/vision/datasets/catalogue")
    for name in NAMES:
        text = yaml.safe_dump(thinned(name), sort_keys=False, width=10**6)
        project.write(f"suites/{name}.yaml", text)
    for folder in ("checkpoints", "torchvision"):
        shutil.copytree(files / folder, project.root / folder)
    with (project.root / ".gitignore").open("a") as file:
        file.write("/checkpoints\n/torchvision\n")
    commit(project.root)


@contextmanager
def field_project(root: Path) -> Iterator[Field]:
    """Make the project below `root`, with its hub on a port of this machine."""
    hubs = [openai_hub(architecture) for architecture in TINY]
    hubs += [
        hub_of(published)
        for published in map(published_dataset, published_names())
        if not published.refused
    ]
    for model in MODELS:
        hubs += fine_tuned_hubs(as_committed(f"clip-vit-{model}-20-fusionbench"))
        for tasks in (8, 20):
            suite = as_committed(f"clip-vit-{model}-{tasks}-local")
            write_local_models(root, suite, {"fer2013": 7})
    write_emnist_digits(root / "torchvision")
    project = copy_code(root / "flow")
    prepare(project, root)
    with serving(*hubs) as hub:
        yield Field(project, root, hub)
