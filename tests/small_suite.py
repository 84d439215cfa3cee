"""The mini suite cut down to seconds a stage: the real stages, on two tasks and a few steps."""

import shutil
from pathlib import Path

import yaml
from conftest import ROOT, Project, commit


def small_suite() -> str:
    """The mini suite cut down to two tasks and a few steps; its numbers mean nothing."""
    params = yaml.safe_load((ROOT / "suites/mini.yaml").read_text())
    few = {"train": 64, "val": 32, "test": 40}
    counts = {"letters": {"pretrain": 52, **few}, "mnist": {"pretrain": 40, **few}}
    params |= {"suite": "small", "tasks": list(counts)}
    params["datasets"] = {name: {**params["datasets"][name], **n} for name, n in counts.items()}
    params["corrupt"] |= {"tasks": ["letters"], "corruptions": ["contrast"], "images": 8}
    few_steps = {"steps": 5, "captions_per_step": 16, "warmup_steps": 1}
    params["model"]["name"] = "small_clip"
    params["pretrain"] |= {"datasets": list(counts), **few_steps}
    params["finetune"] |= {"steps": 6, "batch_size": 8, "warmup_steps": 1}
    params["traditional_mtl"]["steps"] = 6
    adapt = {"steps": 6, "images_per_task": 4}
    methods = params["methods"]
    choose = {"scaling": [0.2, 0.4], "by": "accuracy"}
    params["methods"] = {
        "task_arithmetic": methods["task_arithmetic"],
        "task_arithmetic_best": {"rule": "task_arithmetic", "choose": choose},
        "layer_wise_adamerging": methods["layer_wise_adamerging"] | adapt,
    }
    params["evaluate"] |= {"trajectory_images": 8, "trajectory_points": 2}
    adapted = params["robustness"]["methods"]["layer_wise_adamerging"] | adapt
    params["robustness"] |= {
        "corruptions": ["clean", "contrast"],
        "methods": {"layer_wise_adamerging": adapted},
    }
    return yaml.safe_dump(params, sort_keys=False)


def make_small(root: Path) -> Project:
    """A project with this code and the small suite."""
    project = copy_code(root)
    project.write("suites/small.yaml", small_suite())
    done = project.run("flows.cli", "suite", "use", "small")
    assert done.returncode == 0, done.stderr
    commit(root)
    return project


def copy_code(root: Path) -> Project:
    """A project with this code, in the new folder `root`."""
    ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in ("adamerge_core", "tasks", "flows", "suites", "experiments", ".dvc"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    return Project(root)
