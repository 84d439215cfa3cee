"""Fine-tune two models from shipped ImageNet weights on folders of images; merge their checkpoints.

python examples/merge_checkpoints.py

The folders hold miniature data sets here, and training is cut short: it takes half a minute.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from adamerge_core import FinetuneRecipe, MergeRecipe, finetune_folder, merge_models
from adamerge_core.vision.miniature.tasks import class_names, images

MODEL, TASKS = ("efficientnet_lite0_clip", "imagenet"), ("signs", "mnist")


def draw(folder: Path, task: str, split: str, count: int) -> None:
    """Write images to <folder>/<class>/<number>.png."""
    for number, (pixels, label) in enumerate(images(task, split, count, seed=0)):
        place = folder / class_names(task)[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")


with TemporaryDirectory() as name:
    here = Path(name)
    finetuned, unlabeled = {}, {}
    for task in TASKS:
        draw(here / task / "train", task, "train", 220)
        draw(here / task / "test", task, "test", 110)
        unlabeled[task] = str(here / task / "test")
        finetuned[task] = str(here / f"{task}.safetensors")
        settings = {"steps": 30, "batch_size": 16, "learning_rate": 4e-4}
        finetune_folder(
            FinetuneRecipe(*MODEL, str(here / task / "train"), settings=settings), finetuned[task]
        )
    settings = {"preset": "fast", "steps": 30}
    recipe = MergeRecipe(*MODEL, finetuned, "layer_wise", settings, unlabeled)
    merged = merge_models(recipe, here / "merged")

print(f"{'':12}", *(f"{task:>8}" for task in (*TASKS, "average")))
for model, row in merged.accuracies.items():
    print(f"{model:12}", *(f"{value:8.1f}" for value in row.values()))
