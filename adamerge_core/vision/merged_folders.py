"""The folder of a merged model: for this library, open_clip and transformers, with a card."""

import json
from pathlib import Path

from adamerge_core import checkpoints
from adamerge_core.atomic import atomic_write
from adamerge_core.checkpoints.content_hash import content_sha256
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import split_name
from adamerge_core.vision.classifier_exports import export_classifier
from adamerge_core.vision.export import export_open_clip, export_transformers, is_clip_vit
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.known_models import input_size
from adamerge_core.vision.merge_recipes import MergeInputs
from adamerge_core.vision.merged_models import MergedModel
from adamerge_core.vision.model_cards import model_card
from adamerge_core.vision.predictions import MultiTaskModel
from adamerge_core.vision.pretrained import encoder_of, in_float32, scaling_of
from adamerge_core.vision.task_heads import OWN, TaskHead, read_task_head

IMAGE_TOWER = "image_tower.safetensors"
RECIPE = "recipe.json"
COEFFICIENTS = "coefficients.safetensors"
HEADS = "heads"
OPEN_CLIP, TRANSFORMERS = "open_clip", "transformers"


def write_merged_folder(folder: Path, inputs: MergeInputs, merged: MergedModel) -> None:
    """Write a merged model.

    README.md: the model card; recipe.json: the same for programs; image_tower.safetensors: in
    open_clip's names below `visual.`, or the encoder in a classifier's own;
    heads/<task>.safetensors; coefficients.safetensors, where they were learned; open_clip/, where
    the text tower is known; transformers/, for a ViT. Of a classifier LIBRARY/<task>/: the whole
    model with a task's head, for its library; where all share one, LIBRARY/.
    """
    architecture = inputs.recipe.architecture
    pixels = scaling_of(architecture, inputs.recipe.pretrained)
    tensors = merged.tensors
    digest = content_sha256(tensors)
    facts = {**inputs.identity(), "merged": digest, "accuracies": merged.accuracies}
    facts["choice"] = merged.choice
    stated = {"architecture": architecture, "pretrained_sha256": inputs.pretrained.sha256}
    checkpoints.save(folder / IMAGE_TOWER, tensors, stated)
    for name, head in merged.heads.items():
        head.save(folder / HEADS / f"{name}.safetensors")
    if merged.coefficients:
        merged.coefficients.save(folder / COEFFICIENTS)
    if inputs.pretrained.text_tower:
        text = inputs.pretrained.text_tower
        export_open_clip(folder / OPEN_CLIP, architecture, pixels, tensors, text)
    if library := split_name(architecture):
        for name, head in merged.heads.items():
            own = folder / library[0] / ("" if inputs.recipe.head != OWN else name)
            if not own.exists():  # one that is shared is written once
                export_classifier(own, architecture, tensors, head)
    if is_clip_vit(architecture):
        export_transformers(folder / TRANSFORMERS, architecture, pixels, tensors)
    write_text(folder / RECIPE, json.dumps(facts, indent=2) + "\n")
    card = model_card(inputs, digest, merged)
    write_text(folder / "README.md", card)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_merged_folder(source: str | Path) -> bool:
    """Tell whether a path is a folder that write_merged_folder wrote."""
    return (Path(source) / RECIPE).is_file() and (Path(source) / IMAGE_TOWER).is_file()


def read_recipe(folder: str | Path) -> dict[str, str]:
    """Read `architecture` and `pretrained` of a merged folder's recipe.

    Raises InputError where it is broken.
    """
    path = Path(folder) / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        found = {key: recipe[key] for key in ("architecture", "pretrained")}
        if all(isinstance(value, str) for value in found.values()):
            return found
        raise TypeError
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: is no recipe of a merge; merge again") from error


def read_heads(folder: str | Path) -> dict[str, TaskHead]:
    """Read the heads of a merged folder, by task. Raises InputError where one is broken."""
    files = sorted((Path(folder) / HEADS).glob("*.safetensors"))
    return {file.stem: read_task_head(file) for file in files}


def read_merged_model(folder: str | Path) -> MultiTaskModel:
    """Open a merged folder for predictions, on the CPU.

    Raises InputError where a file of it is missing or broken, or its parts do not fit.
    """
    if not is_merged_folder(folder):
        raise InputError(
            f"{folder}: is no folder that `adamerge merge` wrote ({RECIPE} and {IMAGE_TOWER})"
        )
    recipe, heads = read_recipe(folder), read_heads(folder)
    architecture = recipe["architecture"]
    tower = in_float32(read_image_tower(Path(folder, IMAGE_TOWER), architecture=architecture))
    pixels = scaling_of(architecture, recipe["pretrained"])
    return MultiTaskModel(
        encoder_of(architecture, tower.tensors, tower.source, pixels),
        {task: head.module() for task, head in heads.items()},
        {task: head.classes.names for task, head in heads.items()},
        input_size(architecture),
    )
