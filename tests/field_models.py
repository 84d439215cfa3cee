"""Models as the suites of the paper's setting name them: tiny, of random weights, in their formats.

Names and numbers of layers are those of the real models; widths and image sizes are not.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from clip_checkpoints import tower_of
from hub_server import Hub
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, get_pretrained_cfg
from open_clip.model import CLIP
from published_pickles import encoder_pickle, head_pickle, tall_masks_state
from safetensors.torch import save
from torch import Tensor

from adamerge_core.checkpoints.hugging_face import to_hugging_face

WIDTH, EMBED, SIDE = 64, 16, 32


def _tiny(layers: int, patch: int) -> dict[str, Any]:
    return {
        "embed_dim": EMBED,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIDE, "layers": layers, "width": WIDTH, "patch_size": patch},
        "text_cfg": {"context_length": 77, "width": 16, "heads": 1, "layers": 1},
    }


TINY = {
    "ViT-B-32-quickgelu": _tiny(12, 16),
    "ViT-B-16-quickgelu": _tiny(12, 8),
    "ViT-L-14-quickgelu": _tiny(24, 8),
}


def add_architectures(root: Path) -> None:
    """Make the tiny models stand for the real ones in a project's copy of the code."""
    path = root / "adamerge_core/vision/architectures.py"
    scaling = tuple(
        tuple(255 * value for value in values)
        for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    path.write_text(
        f"{path.read_text()}\nARCHITECTURES.update({TINY!r})\n"
        f"PIXEL_SCALING.update(dict.fromkeys({list(TINY)!r}, {scaling!r}))\n"
    )


def pretrained(architecture: str) -> dict[str, Tensor]:
    """Make a whole CLIP's state dict, of random weights."""
    torch.manual_seed(sorted(TINY).index(architecture))
    return {name: t.detach() for name, t in CLIP(**TINY[architecture]).state_dict().items()}


def fine_tuned(whole: Mapping[str, Tensor], task: str, *, projection: bool) -> dict[str, Tensor]:
    """The CLIP with noise on its image tower, as of a fine-tuning; the projection where it may."""
    rng = torch.Generator().manual_seed(crc32(task.encode()))
    return {
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=rng)
        if name.startswith("visual.") and (projection or name != "visual.proj")
        else tensor
        for name, tensor in whole.items()
    }


def openai_hub(architecture: str) -> Hub:
    """Make the hub of a pretrained model, where open_clip looks for its tag `openai`."""
    hub_id = get_pretrained_cfg(architecture, "openai")["hf_hub"].strip("/")
    files = {"open_clip_model.safetensors": save(pretrained(architecture))}
    return Hub(hub_id, files, kind="models")


def fine_tuned_hubs(suite: Mapping[str, Any]) -> list[Hub]:
    """Make the hubs of the fine-tuned models that a suite names: FusionBench's CLIPVisionModel."""
    architecture = suite["model"]["architecture"]
    whole, vision = pretrained(architecture), TINY[architecture]["vision_cfg"]
    config = {
        "model_type": "clip_vision_model",
        "architectures": ["CLIPVisionModel"],
        "hidden_act": "quick_gelu",
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": 1,
        "image_size": SIDE,
        "patch_size": vision["patch_size"],
        "projection_dim": EMBED,
    }
    hubs = []
    for task, entry in suite["checkpoints"]["finetuned"].items():
        tower = tower_of(fine_tuned(whole, task, projection=False))
        bare = to_hugging_face({name: t for name, t in tower.items() if name != "proj"})
        files = {
            "config.json": json.dumps(config).encode(),
            "model.safetensors": save({f"vision_model.{name}": t for name, t in bare.items()}),
            "README.md": b"# a model",
        }
        hubs.append(Hub(entry["hub"], files, kind="models"))
    return hubs


def write_local_models(root: Path, suite: Mapping[str, Any], classes: Mapping[str, int]) -> None:
    """Write the files that a suite names below `root`: task_vectors' modules, tall_masks' states.

    classes: of each task whose head is imported. Cars of ViT-B/16 is a pickle without torch's
    archive around it, as it was published.
    """
    whole = pretrained(suite["model"]["architecture"])
    for task, entry in suite["checkpoints"]["finetuned"].items():
        path = root / entry["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        model = fine_tuned(whole, task, projection=True)
        if suite["checkpoints"]["line"] == "tall":
            torch.save(tall_masks_state(model), path)
        else:
            plain = 4 if path.parts[-3:-1] == ("ViT-B-16", "Cars") else None
            path.write_bytes(encoder_pickle(model, plain=plain))
    for task, entry in suite["checkpoints"]["heads"].items():
        weight = torch.randn(classes[task], EMBED, generator=torch.Generator().manual_seed(0))
        content = head_pickle(100 * weight / weight.norm(dim=1, keepdim=True), _HEADS)
        (root / entry["file"]).write_bytes(content)


_HEADS = "src.models.modeling"
