"""One head for several tasks of one label set, without a suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from small_classifiers import TIMM, write_classifiers
from small_clip import ARCHITECTURE, CLASSES, written_material

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList, check_same_classes
from adamerge_core.vision.clip import tokenizer
from adamerge_core.vision.heads import zero_shot_weight
from adamerge_core.vision.merge_models import merge_models
from adamerge_core.vision.merge_recipes import MergeRecipe, open_inputs
from adamerge_core.vision.pretrained import read_pretrained, whole_clip
from adamerge_core.vision.task_heads import TaskHead, shared_head

NAMES = ("red", "green")


def head(seed: int, names: tuple[str, ...] = NAMES, bias: bool = True) -> TaskHead:
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(names), 4, generator=rng)
    return TaskHead(
        weight, torch.ones(len(names)) * seed if bias else None, ClassList(names, names), "test"
    )


def test_equal_heads_are_one_and_others_are_named() -> None:
    assert torch.equal(
        shared_head({"a": head(0), "b": head(0)}, average=False).weight, head(0).weight
    )
    with pytest.raises(InputError, match="b: its head is not that of a"):
        shared_head({"a": head(0), "b": head(1)}, average=False)
    bias = replace(head(0), bias=torch.ones(2))
    with pytest.raises(InputError, match="b: its head is not that of a"):
        shared_head({"a": head(0), "b": bias}, average=False)


def test_the_average_is_the_mean_of_weights_and_biases() -> None:
    found = shared_head({"a": head(0), "b": head(1)}, average=True)
    assert torch.allclose(found.weight, (head(0).weight + head(1).weight) / 2)
    assert found.bias is not None
    assert torch.equal(found.bias, torch.full((2,), 0.5))
    bare = shared_head({"a": head(0, bias=False), "b": head(1, bias=False)}, average=True)
    assert bare.kind == "zero_shot"


def test_heads_of_two_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="b: its head is zero_shot and takes 4 features"):
        shared_head({"a": head(0), "b": head(0, bias=False)}, average=True)


def test_the_first_difference_of_class_names_is_shown() -> None:
    check_same_classes({"a": NAMES, "b": list(NAMES)}, "heads")
    with pytest.raises(InputError) as caught:
        check_same_classes({"a": NAMES, "b": ("green", "red"), "c": ("red",)}, "heads")
    assert "class 0 is 'red' in a and 'green' in b" in str(caught.value)
    assert "class 1 is 'green' in a and missing in c" in str(caught.value)


@pytest.fixture
def recipe(tmp_path: Path) -> MergeRecipe:
    """Two domains of the three colours: one folder of images, two classifiers with a head each."""
    write_classifiers(TIMM, tmp_path)
    state = checkpoints.load(tmp_path / "colours.safetensors")
    torch.manual_seed(9)
    moved = {n: t + 0.01 if n.endswith("weight") else t for n, t in state.items()}
    checkpoints.save(tmp_path / "sketches.safetensors", moved)
    tasks = ("colours", "sketches")
    return MergeRecipe(
        TIMM,
        str(tmp_path / "pretrained.safetensors"),
        {task: str(tmp_path / f"{task}.safetensors") for task in tasks},
        "weight_averaging",
        images=dict.fromkeys(tasks, str(tmp_path / "images/colours")),
        head="shared",
    )


def test_a_merge_shares_the_head_that_all_checkpoints_have(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="sketches: its head is not that of colours"):
        open_inputs(recipe)
    states = {task: checkpoints.load(path) for task, path in recipe.finetuned.items()}
    mean = (states["colours"]["fc.weight"] + states["sketches"]["fc.weight"]) / 2
    averaged = merge_models(replace(recipe, head="average"), tmp_path / "averaged")
    assert torch.allclose(averaged.heads["sketches"].weight, mean)
    one = states["sketches"] | {n: states["colours"][n] for n in ("fc.weight", "fc.bias")}
    checkpoints.save(recipe.finetuned["sketches"], one)
    merged = merge_models(recipe, tmp_path / "out")
    assert torch.equal(merged.heads["sketches"].weight, states["colours"]["fc.weight"])
    model = timm.create_model(f"local-dir:{tmp_path / 'out/timm'}", pretrained=True)
    assert torch.equal(model.fc.weight, states["colours"]["fc.weight"])
    assert merged.heads["colours"].classes.names == CLASSES["colours"]
    assert "| heads | shared |" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_a_clips_shared_head_is_made_of_the_prompts_of_all(tmp_path: Path) -> None:
    with written_material(tmp_path) as folder:
        prompts = {"colours": "a photo of {}.\n", "sketches": "a sketch of {}.\n"}
        for task, text in prompts.items():
            (folder / f"{task}.txt").write_text(text, encoding="utf-8")
        (folder / "sides.safetensors").rename(folder / "sketches.safetensors")
        recipe = MergeRecipe(
            ARCHITECTURE,
            str(folder / "clip.safetensors"),
            {task: str(folder / f"{task}.safetensors") for task in prompts},
            "weight_averaging",
            images=dict.fromkeys(prompts, str(folder / "images/colours")),
            templates={task: str(folder / f"{task}.txt") for task in prompts},
            head="shared",
        )
        merged = merge_models(recipe, tmp_path / "out")
        clip = whole_clip(ARCHITECTURE, read_pretrained(recipe.pretrained, ARCHITECTURE))
        both = ["a photo of {}.", "a sketch of {}."]
        wanted = zero_shot_weight(clip, tokenizer(ARCHITECTURE), CLASSES["colours"], both)
        for head in merged.heads.values():
            assert torch.allclose(head.weight, wanted, atol=1e-6)


def test_other_classes_and_words_are_refused(recipe: MergeRecipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="head = 'ours': must be one of own, shared, average"):
        open_inputs(replace(recipe, head="ours"))
    listed = tmp_path / "classes.txt"
    listed.write_text("blue\ngreen\ncrimson\n", encoding="utf-8")
    images = {"colours": recipe.images["colours"]}
    other = replace(recipe, images=images, classes={"sketches": str(listed)})
    with pytest.raises(InputError, match="class 2 is 'red' in colours and 'crimson' in sketches"):
        open_inputs(other)
