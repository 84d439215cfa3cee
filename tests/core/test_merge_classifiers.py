"""Merging plain classifiers without a suite: heads of their own, folders for their libraries."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from small_classifiers import (
    TIMM,
    TORCHVISION,
    transformers_folder,
    write_classifiers,
)
from small_clip import CLASSES, by_task

from adamerge_core import RULES, TaskVectors, checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.classifier_architectures import classifier_input, create_classifier
from adamerge_core.vision.classifiers import split_state
from adamerge_core.vision.conversions import convert, open_conversion
from adamerge_core.vision.finetune_models import finetune_folder
from adamerge_core.vision.finetune_recipes import FinetuneRecipe
from adamerge_core.vision.folder_accuracy import EvaluationRecipe, folder_accuracies
from adamerge_core.vision.image_files import decoded, find_images
from adamerge_core.vision.inspections import inspect_checkpoints
from adamerge_core.vision.merge_models import merge_models
from adamerge_core.vision.merge_recipes import MergeRecipe, open_inputs
from adamerge_core.vision.merged_folders import read_merged_model
from adamerge_core.vision.pretrained import encoder_of, read_pretrained, scaling_of
from adamerge_core.vision.task_heads import read_task_head

SETTINGS = {"steps": 2, "images_per_task": 2, "batches_per_step": 1, "learning_rate": 0.01}


def recipe_of(architecture: str, folder: Path) -> MergeRecipe:
    files = write_classifiers(architecture, folder)
    return MergeRecipe(
        architecture,
        str(folder / "pretrained.safetensors"),
        files,
        "layer_wise",
        SETTINGS,
        by_task(folder / "images"),
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> MergeRecipe:
    return recipe_of(TIMM, tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def of_torchvision(tmp_path_factory: pytest.TempPathFactory) -> MergeRecipe:
    return recipe_of(TORCHVISION, tmp_path_factory.mktemp("torchvision"))


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory: pytest.TempPathFactory) -> MergeRecipe:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("transformers")
    return recipe_of(transformers_folder(folder / "vit"), folder)


def faults(recipe: MergeRecipe) -> str:
    with pytest.raises(InputError) as caught:
        open_inputs(recipe)
    return str(caught.value)


def reopened(architecture: str, folder: Path, classes: int) -> torch.nn.Module:
    """The model in a folder, as its library opens it."""
    library = architecture.partition(":")[0]
    if library == "timm":
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    if library == "torchvision":
        model = torchvision.models.get_model(architecture.split(":")[1], num_classes=classes)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["recipe", "of_torchvision", "of_transformers"])
def test_what_is_merged_opens_in_its_library_and_gives_the_same(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe: MergeRecipe = request.getfixturevalue(kind)
    merged = merge_models(recipe, tmp_path / "out")
    assert set(merged.accuracies) == {"pretrained", "individual", "merged"}
    architecture = recipe.architecture
    pixels = scaling_of(architecture, recipe.pretrained)
    encoder = encoder_of(architecture, merged.tensors, "merged", pixels)
    mean, deviation = (torch.tensor(values) for values in pixels)
    size = classifier_input(architecture).size
    for task, names in CLASSES.items():
        assert merged.heads[task].classes.names == names  # of the folders
        head = merged.heads[task].module()
        folder = tmp_path / "out" / architecture.partition(":")[0] / task
        model = reopened(architecture, folder, len(names)).eval()
        ((_, images),) = decoded(find_images(recipe.images[task]), size, 64, lambda *_: None)
        pixels_of = torch.from_numpy(images)
        scaled = ((pixels_of.float() - mean) / deviation).permute(0, 3, 1, 2)
        with torch.no_grad():
            found = model(scaled)
            found = found if isinstance(found, torch.Tensor) else found.logits
            assert torch.allclose(found, head(encoder(pixels_of)), atol=1e-5)
    opened = read_merged_model(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(opened.encoder(pixels_of), encoder(pixels_of))
    assert opened.classes == CLASSES
    row = folder_accuracies(EvaluationRecipe(str(tmp_path / "out"), recipe.images))
    assert row == merged.accuracies["merged"]


def test_a_rule_merges_encoders_and_leaves_the_heads(recipe: MergeRecipe, tmp_path: Path) -> None:
    rule = replace(recipe, method="task_arithmetic", settings={"scaling": 0.4}, images={})
    merged = merge_models(rule, tmp_path / "out")
    split = {n: split_state(checkpoints.load(p), "fc") for n, p in recipe.finetuned.items()}
    pretrained, _ = split_state(checkpoints.load(recipe.pretrained), "fc")
    vectors = TaskVectors.from_checkpoints(pretrained, {n: e for n, (e, _) in split.items()})
    expected = RULES["task_arithmetic"](vectors, scaling=0.4)
    states = [encoder for encoder, _ in split.values()]
    for name, tensor in expected.items():
        if "running" in name:
            tensor = torch.stack([state[name] for state in states]).mean(dim=0)
        assert torch.allclose(merged.tensors[name], tensor, atol=1e-6)
    for task, (_, head) in split.items():
        written = read_task_head(tmp_path / f"out/heads/{task}.safetensors")
        assert torch.equal(written.weight, head["weight"])
        assert written.classes.names == tuple(map(str, range(len(CLASSES[task]))))
        assert "by number" in written.classes.source or "head's file" in written.classes.source


def test_the_merged_model_converts_and_is_inspected(recipe: MergeRecipe, tmp_path: Path) -> None:
    source = recipe.finetuned["colours"]
    convert(open_conversion(source, "timm", TIMM), tmp_path / "folder")
    convert(open_conversion(source, "safetensors", TIMM), tmp_path / "file.safetensors")
    model = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    written = checkpoints.load(source)
    for name, tensor in load_file(tmp_path / "file.safetensors").items():
        assert torch.equal(tensor, written[name])
        assert torch.equal(tensor, model.state_dict()[name])
    (found,) = inspect_checkpoints([source], TIMM, recipe.pretrained).each
    assert found.tower is not None
    assert found.faults == ()
    assert len(found.tower.head["weight"]) == 3
    with pytest.raises(InputError, match="is timm's; give timm or safetensors"):
        open_conversion(source, "open_clip", TIMM)


def test_a_finetuned_classifier_is_one_file_with_its_head(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    settings = {"steps": 2, "batch_size": 2}
    tuning = FinetuneRecipe(
        TIMM, recipe.pretrained, recipe.images["colours"], held_out=0.25, settings=settings
    )
    made = finetune_folder(tuning, tmp_path / "mine.safetensors")
    assert made.head == made.checkpoint
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    model = timm.create_model("test_resnet", num_classes=3)
    model.load_state_dict(load_file(made.checkpoint))
    merged = replace(recipe, finetuned={**recipe.finetuned, "colours": str(made.checkpoint)})
    head = open_inputs(merged).tasks["colours"].head
    assert head is not None
    assert head.classes.names == ("blue", "green", "red")  # type: ignore[union-attr]
    with pytest.raises(InputError, match="has no text tower; give linear"):
        finetune_folder(replace(tuning, head="zero_shot"), tmp_path / "other.safetensors")


def test_a_folder_of_transformers_says_its_classes(
    of_transformers: MergeRecipe, tmp_path: Path
) -> None:
    """Under the names that transformers 5 gives files, which are not those of the model."""
    from transformers import AutoModelForImageClassification

    name = of_transformers.architecture.partition(":")[2]
    finetuned = {}
    for number, (task, names) in enumerate(CLASSES.items()):
        torch.manual_seed(number)
        model = AutoModelForImageClassification.from_pretrained(
            name,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={label: index for index, label in enumerate(names)},
            ignore_mismatched_sizes=True,
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / task)
        finetuned[task] = str(tmp_path / task)
    recipe = replace(of_transformers, pretrained=name, finetuned=finetuned)
    merged = merge_models(replace(recipe, method="weight_averaging", settings={}), tmp_path / "out")
    assert merged.heads["colours"].classes.names == CLASSES["colours"]
    config = json.loads((tmp_path / "out/transformers/sides/config.json").read_text())
    assert config["id2label"] == {"0": "left", "1": "right"}
    wrong = json.loads((tmp_path / "colours/config.json").read_text())
    (tmp_path / "colours/config.json").write_text(json.dumps(wrong | {"hidden_act": "relu"}))
    assert "config.json says hidden_act = 'relu'; the model's has 'gelu'" in faults(recipe)


def test_a_model_of_the_hub_is_an_architecture_and_a_checkpoint(
    of_transformers: MergeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub/models--org--vit"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("0" * 40)
    own = of_transformers.architecture.partition(":")[2]
    shutil.copytree(own, model / "snapshots" / ("0" * 40))
    named = replace(of_transformers, architecture="transformers:org/vit", pretrained="org/vit")
    inputs = open_inputs(named)
    assert inputs.pretrained.source == "org/vit"
    local = read_pretrained(own, of_transformers.architecture)
    assert inputs.pretrained.sha256 == local.sha256


def test_the_shipped_imagenet_weights_are_those_of_the_clip() -> None:
    found = read_pretrained("imagenet", "timm:tf_efficientnet_lite0")
    trunk = read_pretrained("imagenet", "efficientnet_lite0_clip").tensors
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, trunk[f"trunk.{name}"])
    assert found.head["weight"].shape == (1000, 1280)
    with pytest.raises(InputError, match="is of timm:tf_efficientnet_lite0, not of timm:resnet50"):
        read_pretrained("imagenet", "timm:resnet50")


# --- bad input ----------------------------------------------------------------------------------


def test_no_code_in_a_folder_of_transformers_is_run(
    of_transformers: MergeRecipe, tmp_path: Path
) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(of_transformers.architecture.partition(":")[2], folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    names = ("AutoConfig", "AutoModelForImageClassification")
    own = {"auto_map": dict.fromkeys(names, "evil.Evil")}
    text = json.dumps({**config, **own})
    (folder / "config.json").write_text(text)
    evil = replace(of_transformers, architecture=f"transformers:{folder}")
    open_inputs(evil)  # as the model that transformers has
    (folder / "config.json").write_text(text.replace('"vit"', '"evil"'))
    classifier_input.cache_clear()
    assert "is of no model that the installed transformers has" in faults(evil)
    assert not (tmp_path / "ran").exists()


def test_unknown_architectures_are_refused_with_those_alike(recipe: MergeRecipe) -> None:
    said = {
        "timm:resnett50": "known are timm:resnet50",
        "timm:resnet50.no_tag": "unknown to timm",
        "torchvision:resnet55": "known are torchvision:resnet50",
        "keras:resnet50": "and classifiers, as timm:resnet50",
    }
    for architecture, text in said.items():
        assert text in faults(replace(recipe, architecture=architecture))


def test_a_checkpoint_of_another_architecture_is_refused(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    other = create_classifier("timm:test_efficientnet", 3).state_dict()
    checkpoints.save(tmp_path / "other.safetensors", other)
    wrong = {**recipe.finetuned, "colours": str(tmp_path / "other.safetensors")}
    text = faults(replace(recipe, finetuned=wrong))
    assert re.search(r"is no timm:test_resnet: \d+ tensors are missing, \d+ extra", text)
    assert "is extra" in text


def test_a_class_list_must_fit_the_head(recipe: MergeRecipe, tmp_path: Path) -> None:
    listed = tmp_path / "classes.txt"
    listed.write_text("blue\ngreen\n", encoding="utf-8")
    text = faults(replace(recipe, classes={"colours": str(listed)}))
    assert "its head has 3 classes, and" in text
    assert "give the list that the head was made with" in text


def test_two_tasks_of_one_content_are_refused(recipe: MergeRecipe) -> None:
    one = dict.fromkeys(CLASSES, recipe.finetuned["colours"])
    rule = replace(recipe, finetuned=one, images={}, method="weight_averaging", settings={})
    assert "colours and sides: are the same model" in faults(rule)


def test_a_model_without_a_linear_classifier_is_refused(recipe: MergeRecipe) -> None:
    text = faults(replace(recipe, architecture="torchvision:squeezenet1_0"))
    assert "no linear classifier was found" in text


@pytest.mark.parametrize("part", ["fc.weight", "conv1.weight"])
def test_what_is_not_finite_is_refused(recipe: MergeRecipe, tmp_path: Path, part: str) -> None:
    state = checkpoints.load(recipe.finetuned["colours"])
    names = [name for name in state if name.endswith(".weight")]
    name = part if part in state else names[0]
    state[name].view(-1)[0] = torch.nan
    torch.save(state, tmp_path / "broken.pt")
    wrong = {**recipe.finetuned, "colours": str(tmp_path / "broken.pt")}
    assert "1 non-finite values" in faults(replace(recipe, finetuned=wrong))


def test_half_precision_is_widened_and_mixed_precision_refused(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    half = {}
    for name, path in {"pretrained": recipe.pretrained, **recipe.finetuned}.items():
        state = checkpoints.load(path)
        half[name] = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
        checkpoints.save(tmp_path / f"{name}.safetensors", half[name])
    wrong = {**recipe.finetuned, "colours": str(tmp_path / "colours.safetensors")}
    assert "torch.float16" in faults(replace(recipe, finetuned=wrong))
    whole = replace(
        recipe,
        pretrained=str(tmp_path / "pretrained.safetensors"),
        finetuned=by_task(tmp_path, ".safetensors"),
        method="weight_averaging",
        settings={},
        images={},
    )
    merged = merge_models(whole, tmp_path / "out")
    floats = {t.dtype for t in merged.tensors.values() if t.is_floating_point()}
    assert floats == {torch.float32}
    mixed = half["colours"] | {"fc.weight": half["colours"]["fc.weight"].float()}
    name = next(n for n in mixed if n != "fc.weight" and mixed[n].is_floating_point())
    mixed[name] = mixed[name].float()
    checkpoints.save(tmp_path / "mixed.safetensors", mixed)
    with pytest.raises(InputError, match=r"torch\.float16"):
        read_pretrained(str(tmp_path / "mixed.safetensors"), TIMM)


def test_a_checkpoint_without_a_head_asks_for_one(recipe: MergeRecipe, tmp_path: Path) -> None:
    encoder, _ = split_state(checkpoints.load(recipe.finetuned["colours"]), "fc")
    checkpoints.save(tmp_path / "encoder.safetensors", encoder)
    bare = {**recipe.finetuned, "colours": str(tmp_path / "encoder.safetensors")}
    text = faults(replace(recipe, finetuned=bare))
    assert "colours: no head can be made of the folders of" in text
    assert "give the file of a head" in text
