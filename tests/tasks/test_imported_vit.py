"""ViT-B/32 of random weights, eight tasks: from files of five formats to models others open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from clip_checkpoints import save_vision_model, tower_of, whole_clip
from conftest import ROOT
from published_pickles import encoder_pickle, tall_masks_state, write
from safetensors.torch import save_file
from stage_runs import rows_of, run_all, use
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.vision.architectures import configuration
from adamerge_core.vision.clip import create_clip, image_encoder, pixel_scaling
from adamerge_core.vision.export import export_open_clip, export_transformers
from tasks.graph import paths
from tasks.suite.schema import checked

ARCHITECTURE = "ViT-B-32-quickgelu"
TASKS = ("photos", "vehicles", "letters", "landuse", "housenum", "signs", "mnist", "patterns")
STEPS = {"steps": 10, "images_per_task": 4, "batches_per_step": 1, "learning_rate": 0.01}


def fine_tuned(whole: dict[str, Tensor], seed: int, projection: bool) -> dict[str, Tensor]:
    """The CLIP with noise on its image tower, as of a fine-tuning; the projection where it may."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 1e-3 * torch.randn(tensor.shape, generator=rng)
        if name.startswith("visual.") and (projection or name != "visual.proj")
        else tensor
        for name, tensor in whole.items()
    }


def save_each(folder: Path, models: dict[str, dict[str, Tensor]]) -> dict[str, Path]:
    """A file or folder a task, of formats in turn."""
    written = {}
    for number, (task, model) in enumerate(models.items()):
        path = folder / f"{task}.pt"
        match number % 5:
            case 0:
                save_file(model, path)
            case 1:
                torch.save({f"module.{name}": tensor for name, tensor in model.items()}, path)
            case 2:
                path = save_vision_model(
                    folder / task,
                    tower_of(model),
                    "vision_model.",
                    hidden_size=768,
                    num_attention_heads=12,
                )
            case 3:
                write(path, encoder_pickle(model))
            case 4:
                torch.save(tall_masks_state(model), path)
        written[task] = path
    return written


def suite_of(files: dict[str, Path]) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    raw["suite"] = "vit"
    raw["datasets"] = {
        task: {"source": "miniature", "seed": 0, "train": 1, "val": 1, "test": 32} for task in TASKS
    }
    raw["prepare"]["image_size"] = 224
    raw["compute"] |= {"threads": 2, "micro_batch": 32}
    raw["model"] = {
        "name": "vit",
        "architecture": ARCHITECTURE,
        "weights": {"file": "clip.safetensors", "activation": "quick_gelu"},
    }
    del raw["pretrain"], raw["finetune"], raw["traditional_mtl"]
    named = {task: {"file": path.as_posix()} for task, path in files.items()}
    raw["checkpoints"] = {"line": "own", "finetuned": named, "heads": {}}
    raw["methods"] = {"layer_wise": {"adapt": "layer_wise", **STEPS}}
    raw["evaluate"] |= {"trajectory_images": 4, "trajectory_points": 2}
    raw["corrupt"] |= {"tasks": ["signs"], "corruptions": ["contrast"], "images": 2}
    merged = {"task_arithmetic": {"rule": "task_arithmetic"}}
    raw["robustness"] = {"corruptions": ["clean"], "severity": 3, "methods": merged}
    return raw


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_eight_tasks_from_five_formats_are_adapted_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tasks", "adamerge_core"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    whole = whole_clip(
        0, {k: v for k, v in configuration(ARCHITECTURE).items() if k != "quick_gelu"}
    )
    save_file(whole, "clip.safetensors")
    models = {
        task: fine_tuned(whole, number, projection=number % 5 != 2)
        for number, task in enumerate(TASKS)
    }
    suite = checked(suite_of(save_each(Path(), models)), "vit")
    use(suite)
    run_all(suite)

    pretrained = checkpoints.load(paths.pretrained("vit"))
    assert pretrained.keys() == tower_of(whole).keys()
    for task, model in models.items():
        vector = checkpoints.load(paths.task_vector("vit", task, 0))
        for name, tensor in tower_of(model).items():
            difference = tensor - pretrained[name]
            assert torch.equal(vector[name] if name in vector else 0 * difference, difference)
    rows = rows_of(paths.report("vit") / "results.csv")
    assert [row["method"] for row in rows[::2]] == ["pretrained", "individual", "layer_wise"]
    _check_exports(checkpoints.load(paths.merged("vit", "layer_wise", 0, "transductive")))


def _check_exports(merged: dict[str, Tensor]) -> None:
    """Features of what open_clip and transformers load are those of the merged encoder."""
    pixels = pixel_scaling(ARCHITECTURE, "openai")
    clip = create_clip(ARCHITECTURE).eval()
    text = {n: t for n, t in clip.state_dict().items() if not n.startswith("visual.")}
    clip.visual.load_state_dict(merged)
    images = torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)
    mean, deviation = (torch.tensor(values) for values in pixels)
    scaled = ((images - mean) / deviation).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = image_encoder(clip, pixels)(images)
        export_open_clip(Path("for_open_clip"), ARCHITECTURE, pixels, merged, text)
        again = open_clip.create_model(f"local-dir:{Path('for_open_clip').resolve()}").eval()
        torch.testing.assert_close(again.encode_image(scaled), expected, rtol=0, atol=1e-5)
        export_transformers(Path("for_transformers"), ARCHITECTURE, pixels, merged)
        transformers = pytest.importorskip("transformers")
        theirs = transformers.CLIPVisionModelWithProjection.from_pretrained("for_transformers")
        found = theirs.eval()(pixel_values=scaled).image_embeds
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
