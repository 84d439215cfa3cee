"""Every stage's own work, one after the other, on a suite of two small tasks and a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from open_clip.model import CLIP
from PIL import Image
from stage_runs import rows_of, run_all, run_one, use

from adamerge_core import checkpoints
from adamerge_core.coefficient_files import LearnedCoefficients
from adamerge_core.vision import architectures
from adamerge_core.vision.architectures import ARCHITECTURES, PIXEL_SCALING
from adamerge_core.vision.clip import tokenizer
from adamerge_core.vision.heads import zero_shot_weight
from tasks import wiring
from tasks.graph import paths
from tasks.graph.paths import PROTOCOLS
from tasks.shared.hits import read_hits
from tasks.suite.fields import REFERENCES
from tasks.suite.schema import Suite, checked

IMAGES = {"pretrain": 20, "train": 20, "val": 10, "test": 20}
STEPS = {"steps": 2, "images_per_task": 4, "batches_per_step": 1, "learning_rate": 0.05}
ADAPTED = {
    "over_depth": {
        "adapt": "layer_wise",
        "before": "scale_by_depth",
        "preset": "fast",
        **STEPS,
        "start": 1.0,
        "clamp": "none",
    },
    "adarank": {"adapt": "singular_components", "preset": "adarank", **STEPS},
    "chosen_start": {
        "adapt": "task_wise",
        **STEPS,
        "choose": {"start": [0.2, 0.4], "by": "entropy"},
    },
}
MERGED = {
    "task_arithmetic": {"rule": "task_arithmetic"},
    "regmean": {"rule": "regmean"},
    "trimmed_average": {"rule": "weight_averaging", "before": {"name": "trim_and_elect"}},
    "best": {"rule": "task_arithmetic", "choose": {"scaling": [0.3, 1.0], "by": "accuracy"}},
    "unlabeled": {"rule": "ties_merging", "choose": {"keep": [0.2, 1.0], "by": "agreement"}},
}
ROBUST = {
    "task_arithmetic": {"rule": "task_arithmetic"},
    "layer_wise": {"adapt": "layer_wise", **STEPS},
}


TINY_VIT = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_suite(device: str) -> Suite:
    return checked(tiny_parameters(device), "tiny suite")


def tiny_parameters(device: str) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    raw["suite"] = "tiny"
    raw["compute"] |= {"device": device, "micro_batch": 8}
    raw["tasks"] = ["stripes", "landuse"]
    raw["datasets"] = {
        "stripes": {"source": "image_folder", "path": "photos", "templates": ["a photo of {}."]},
        "landuse": {"source": "miniature", "seed": 0, **IMAGES},
    }
    raw["model"]["name"] = "tiny"
    raw["prepare"]["image_size"] = 32
    raw["corrupt"] |= {"tasks": ["landuse"], "corruptions": ["contrast"], "images": 8}
    raw["pretrain"] |= {"steps": 2, "captions_per_step": 16, "warmup_steps": 1}
    raw["pretrain"]["datasets"] = ["landuse"]
    raw["finetune"] |= {"steps": 6, "batch_size": 8, "learning_rate": 3e-4, "warmup_steps": 1}
    raw["traditional_mtl"]["steps"] = 1
    raw["statistics"] = {"images": 4, "split": "val", "fisher_probes": 2}
    raw["methods"] = {**MERGED, **ADAPTED}
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    raw["robustness"] = {"corruptions": ["clean", "contrast"], "severity": 3, "methods": ROBUST}
    return raw


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, the current one, with a user's images."""
    (tmp_path / "tasks").symlink_to(ROOT / "tasks")
    (tmp_path / "adamerge_core").symlink_to(ROOT / "adamerge_core")
    monkeypatch.chdir(tmp_path)
    make_photos(Path("photos"))
    return tmp_path


@pytest.fixture
def tiny_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny ViT a known architecture."""
    monkeypatch.setitem(ARCHITECTURES, "tiny_vit", TINY_VIT)
    monkeypatch.setattr(architectures, "known_architectures", lambda: tuple(ARCHITECTURES))
    monkeypatch.setitem(PIXEL_SCALING, "tiny_vit", ((127.0,) * 3, (128.0,) * 3))


@pytest.mark.usefixtures("folder", "tiny_vit")
def test_the_stages_of_a_suite_that_imports_its_clip_and_a_model() -> None:
    torch.manual_seed(3)
    whole = CLIP(**TINY_VIT).state_dict()
    checkpoints.save(Path("clip.safetensors"), whole)
    raw = tiny_parameters("cpu")
    raw["model"] |= {
        "architecture": "tiny_vit",
        "weights": {"file": "clip.safetensors", "activation": "quick_gelu"},
    }
    del raw["pretrain"], raw["traditional_mtl"]
    tuned = {n: t + 0.01 if n.startswith("visual.") else t for n, t in whole.items()}
    torch.save({f"model.{name}": tensor for name, tensor in tuned.items()}, "landuse.pt")
    finetuned = {"landuse": {"file": "landuse.pt"}}
    raw["checkpoints"] = {"line": "own", "finetuned": finetuned, "heads": {}}
    raw["methods"] = {"task_arithmetic": {"rule": "task_arithmetic"}}
    suite = checked(raw, "tiny suite")
    use(suite)
    run_all(suite)
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    assert all(torch.equal(whole[f"visual.{name}"], t) for name, t in pretrained.items())
    imported = checkpoints.load(paths.finetuned("tiny", "landuse", 0))
    assert all(torch.equal(tuned[f"visual.{name}"], t) for name, t in imported.items())
    assert not paths.training_curve(paths.finetuned("tiny", "landuse", 0)).exists()
    assert paths.training_curve(paths.finetuned("tiny", "stripes", 0)).exists()
    rows = rows_of(paths.report("tiny") / "results.csv")
    assert [row["method"] for row in rows[::2]] == ["pretrained", "individual", "task_arithmetic"]


@pytest.mark.usefixtures("folder", "tiny_vit")
def test_the_tasks_of_a_clip_share_a_zero_shot_head_of_all_their_prompts() -> None:
    torch.manual_seed(3)
    clip = CLIP(**TINY_VIT).eval()
    checkpoints.save(Path("clip.safetensors"), clip.state_dict())
    raw = tiny_parameters("cpu")
    raw["model"] |= {
        "architecture": "tiny_vit",
        "weights": {"file": "clip.safetensors", "activation": "quick_gelu"},
    }
    raw["head"] = "shared"
    drawn = raw["datasets"]["stripes"] | {"templates": ["a drawing of {}."]}
    raw["datasets"] = {"stripes": raw["datasets"]["stripes"], "drawings": drawn}
    raw["tasks"], raw["corrupt"]["tasks"] = ["stripes", "drawings"], ["stripes"]
    del raw["pretrain"], raw["traditional_mtl"]
    raw["methods"] = {"task_arithmetic": {"rule": "task_arithmetic"}}
    suite = checked(raw, "tiny suite")
    stages = wiring.stages(suite)
    use(suite)
    for name in stages:
        if name.startswith(("download", "prepare", "import", "shared_heads")):
            run_one(stages[name])
    texts = ["a photo of {}.", "a drawing of {}."]
    wanted = zero_shot_weight(clip, tokenizer("tiny_vit"), ["columns", "rows"], texts)
    for task in suite.tasks:
        assert torch.equal(checkpoints.load(paths.head("tiny", task))["weight"], wanted)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_stages_of_a_tiny_suite(device: str) -> None:
    suite = tiny_suite(device)
    use(suite)
    run_all(suite)
    written = {path.as_posix() for path in Path("data").rglob("*") if path.is_file()}
    assert written == {path for stage in wiring.stages(suite).values() for path in stage.files}
    check_models(suite)
    check_coefficients()
    check_choices()
    check_tables(suite)


def check_models(suite: Suite) -> None:
    pretrained = checkpoints.load(paths.pretrained("tiny"))
    merged = checkpoints.load(paths.merged("tiny", "task_arithmetic", 0))
    tuned = [checkpoints.load(paths.finetuned("tiny", task, 0)) for task in suite.tasks]
    name = "trunk.conv_stem.weight"
    added = sum(each[name] - pretrained[name] for each in tuned)
    assert added.abs().max() > 0
    torch.testing.assert_close(merged[name], pretrained[name] + 0.3 * added, rtol=0, atol=1e-6)
    others = [checkpoints.load(paths.merged("tiny", method, 0)) for method in MERGED]
    others += [checkpoints.load(paths.merged("tiny", m, 0, p)) for m in ADAPTED for p in PROTOCOLS]
    for state in others:
        checkpoints.check_same_architecture(pretrained, {"merged": state})
        assert not torch.equal(state[name], pretrained[name])


def check_coefficients() -> None:
    starts = {"over_depth": 1.0, "adarank": 0.3}
    for method, start in starts.items():
        for protocol in PROTOCOLS:
            learned = LearnedCoefficients.load(paths.coefficients("tiny", method, 0, protocol))
            assert learned.task_names == ("stripes", "landuse")
            moved = (learned.values - start).abs()
            assert 0.01 < moved.max() <= 0.2  # Adam's: at most about its rate a step
            rows = rows_of(paths.trajectory("tiny", method, 0, protocol))
            assert [row["step"] for row in rows] == ["0", "1", "2"]
            assert all(float(row["loss"]) > 0 for row in rows[1:])
            assert [bool(row["accuracy_average"]) for row in rows] == [True, False, True]


def check_choices() -> None:
    for method, parameter, count in (("best", "scaling", 2), ("unlabeled", "keep", 2)):
        rows = rows_of(paths.choice("tiny", method, 0))
        assert len({row[parameter] for row in rows}) == count
    assert rows_of(paths.choice("tiny", "chosen_start", 0))


def check_tables(suite: Suite) -> None:
    rows = rows_of(paths.report("tiny") / "results.csv")
    methods = [*REFERENCES, *suite.merging]
    assert [(row["method"], row["protocol"]) for row in rows] == [
        (method, protocol) for method in methods for protocol in PROTOCOLS
    ]
    for row in rows:
        accuracies = [float(row[column]) for column in (*suite.tasks, "average")]
        assert all(0 <= accuracy <= 100 for accuracy in accuracies)
        assert np.mean(accuracies[:-1]) == pytest.approx(accuracies[-1], abs=0.01)
        shown = json.loads(paths.averages("tiny", row["method"], 0).read_text(encoding="utf-8"))
        assert shown[row["protocol"]] == pytest.approx(accuracies[-1], abs=0.01)
        hits = read_hits(paths.hits("tiny", row["method"], 0))
        right = [100 * hits[row["protocol"], task].mean() for task in suite.tasks]
        assert right == pytest.approx(accuracies[:-1], abs=0.01)
    stripes = {row["method"]: float(row["stripes"]) for row in rows[:: len(PROTOCOLS)]}
    assert stripes["individual"] > max(80, stripes["pretrained"])
    corrupted = rows_of(paths.report("tiny") / "corrupted.csv")
    assert [(row["corruption"], row["method"]) for row in corrupted] == [
        (corruption, method) for corruption in ("clean", "contrast") for method in ROBUST
    ]
