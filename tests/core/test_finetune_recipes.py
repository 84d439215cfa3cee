"""Fine-tuning, evaluating, inspecting and converting checkpoints without a suite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_pickles import head_pickle, write
from small_clip import ARCHITECTURE, CLASSES, by_task, moved, write_images, written_material

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList, read_classes, read_templates
from adamerge_core.vision.conversions import convert, open_conversion
from adamerge_core.vision.finetune_models import finetune_folder
from adamerge_core.vision.finetune_recipes import FinetuneRecipe, open_finetune_inputs
from adamerge_core.vision.folder_accuracy import (
    EvaluationRecipe,
    folder_accuracies,
    open_evaluation,
)
from adamerge_core.vision.inspections import inspect_checkpoints
from adamerge_core.vision.linear_probes import PENALTY
from adamerge_core.vision.merge_models import merge_models
from adamerge_core.vision.merge_recipes import MergeRecipe
from adamerge_core.vision.pretrained import read_pretrained
from adamerge_core.vision.task_heads import (
    TaskHead,
    head_path,
    linear_probe,
    read_task_head,
)

SETTINGS = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with written_material(tmp_path_factory.mktemp("models")) as folder:
        yield folder


@pytest.fixture
def recipe(models: Path) -> FinetuneRecipe:
    return FinetuneRecipe(
        ARCHITECTURE,
        str(models / "clip.safetensors"),
        str(models / "images/colours"),
        held_out=0.25,
        settings=SETTINGS,
    )


@pytest.fixture
def tower(models: Path) -> Path:
    """The image tower of the pretrained model, without its text tower."""
    whole = checkpoints.load(models / "clip.safetensors")
    path = models / "tower.safetensors"
    if not path.exists():
        named = {n.removeprefix("visual."): t for n, t in whole.items() if n.startswith("visual.")}
        checkpoints.save(path, named)
    return path


# --- fine-tuning ----------------------------------------------------------------------------------


def test_a_checkpoint_and_its_head_are_written(recipe: FinetuneRecipe, tmp_path: Path) -> None:
    found = finetune_folder(recipe, tmp_path / "colours.safetensors")
    assert found.held_out == 3
    state = checkpoints.load(found.checkpoint)
    whole = checkpoints.load(recipe.pretrained)
    assert {f"visual.{name}" for name in state} == {n for n in whole if n.startswith("visual.")}
    assert any(not torch.equal(state[name], whole[f"visual.{name}"]) for name in state)
    assert checkpoints.read_metadata(found.checkpoint)["architecture"] == ARCHITECTURE
    head = read_task_head(found.head)
    assert head.kind == "zero_shot"
    assert head.classes.names == CLASSES["colours"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "colours.head.safetensors",
        "colours.safetensors",
    ]


def test_without_a_text_tower_the_head_is_a_linear_probe(
    recipe: FinetuneRecipe, tower: Path, tmp_path: Path
) -> None:
    longer = {**SETTINGS, "steps": 30}
    probe = replace(recipe, pretrained=str(tower), settings=longer)
    found = finetune_folder(probe, tmp_path / "colours.safetensors")
    assert read_task_head(found.head).kind == "linear"
    assert found.finetuned == 100
    with pytest.raises(InputError, match="has no text tower; give linear"):
        open_finetune_inputs(replace(probe, head="zero_shot"))


def test_a_linear_probe_minimises_its_loss() -> None:
    """Its gradient, written naively, is zero at the end."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(40, 5, generator=generator) * 3 + 2
    labels = torch.arange(40) % 3
    found[range(40), labels] += 2
    names = ("a", "b", "c")
    head = linear_probe(found, labels, ClassList(names, names))
    assert head.bias is not None
    deviation = found.std(dim=0)
    standard = (found - found.mean(dim=0)) / deviation
    weight = head.weight * deviation
    surplus = head.module()(found).softmax(dim=1) - torch.eye(3)[labels]
    penalty = PENALTY * len(labels) * weight
    assert torch.allclose(surplus.T @ standard + penalty, torch.zeros(3, 5), atol=1e-2)
    assert surplus.sum(dim=0).abs().max() < 1e-2


def test_an_interrupted_fine_tuning_ends_at_the_same(
    recipe: FinetuneRecipe, tmp_path: Path
) -> None:
    long = replace(recipe, settings={**SETTINGS, "steps": 45})
    finetune_folder(long, tmp_path / "whole.safetensors")
    told = []

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("steps"):
            told.append(done)
            if len(told) == 30:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_folder(long, tmp_path / "out.safetensors", progress=stop)
    finetune_folder(long, tmp_path / "out.safetensors", progress=stop)
    assert told[30] == 21
    whole, resumed = (
        checkpoints.load(tmp_path / f"{name}.safetensors") for name in ("whole", "out")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_same_seed_holds_the_same_images_out(recipe: FinetuneRecipe) -> None:
    inputs = open_finetune_inputs(recipe)
    train, held_out = inputs.rows()
    assert sorted([*train, *held_out]) == list(range(12))
    assert np.bincount(inputs.labels[held_out]).tolist() == [1, 1, 1]
    assert np.array_equal(open_finetune_inputs(recipe).rows()[1], held_out)


def test_faults_of_a_fine_tuning_are_listed_at_once(recipe: FinetuneRecipe, tmp_path: Path) -> None:
    settings = {"steps": 0, "learning_rate": 0.0, "speed": 1, "batch_size": "many"}
    wrong = replace(recipe, head="big", held_out=1.0, settings=settings, architecture="x")
    with pytest.raises(InputError) as caught:
        open_finetune_inputs(wrong)
    for part in (
        "head = 'big': must be one of auto, zero_shot, linear",
        "held_out = 1.0: must be above 0 and below 1",
        "steps = 0: must be at least 1",
        "learning_rate = 0.0: must be above 0",
        "speed: is no parameter",
        "batch_size = 'many': must be a whole number",
        "model.architecture = 'x': unknown",
    ):
        assert part in str(caught.value)
    write_images(tmp_path, count=1)
    lonely = replace(recipe, images=str(tmp_path / "colours"), pretrained=str(tmp_path / "none"))
    with pytest.raises(InputError) as caught:
        open_finetune_inputs(lonely)
    assert "class 'blue': has 1 images; must have at least 2" in str(caught.value)
    assert "none" in str(caught.value)


def test_a_checkpoint_is_not_overwritten(recipe: FinetuneRecipe, tmp_path: Path) -> None:
    path = tmp_path / "colours.safetensors"
    head_path(path).write_text("mine")
    with pytest.raises(InputError, match="something is there already"):
        finetune_folder(recipe, path)
    with pytest.raises(InputError, match="must end in"):
        finetune_folder(recipe, tmp_path / "colours.pt")


# --- measuring ------------------------------------------------------------------------------------


def test_a_merged_folder_is_measured_by_its_own_heads(models: Path, tmp_path: Path) -> None:
    images = by_task(models / "images")
    merge = MergeRecipe(
        ARCHITECTURE,
        str(models / "clip.safetensors"),
        by_task(models, ".safetensors"),
        "weight_averaging",
        images=images,
    )
    merged = merge_models(merge, tmp_path / "out")
    measured = folder_accuracies(EvaluationRecipe(str(tmp_path / "out"), images))
    assert measured == merged.accuracies["merged"]
    for broken in ("{}", "[", '{"recipe": {"architecture": 1, "pretrained": null}}'):
        (tmp_path / "out/recipe.json").write_text(broken)
        with pytest.raises(InputError, match="is no recipe of a merge"):
            open_evaluation(EvaluationRecipe(str(tmp_path / "out"), images))
    one = {"colours": str(models / "colours.safetensors")}
    named = EvaluationRecipe(
        one["colours"], {"colours": images["colours"]}, ARCHITECTURE, merge.pretrained
    )
    individual = folder_accuracies(named)["colours"]
    assert individual == merged.accuracies["individual"]["colours"]


def test_faults_of_a_measurement(models: Path, tmp_path: Path) -> None:
    path = str(models / "colours.safetensors")
    images = by_task(models / "images")

    def said(recipe: EvaluationRecipe) -> str:
        with pytest.raises(InputError) as caught:
            open_evaluation(recipe)
        return str(caught.value)

    assert "does not say of which architecture" in said(EvaluationRecipe(path, images))
    assert "no head can be made of class names" in said(
        EvaluationRecipe(path, images, ARCHITECTURE)
    )
    assert "images: names no folder" in said(EvaluationRecipe(path, {}))
    write_images(tmp_path)
    for name in CLASSES["colours"]:
        (tmp_path / "colours" / name / "0.png").rename(tmp_path / f"{name}.png")
    flat = {"colours": str(tmp_path)}
    clip = str(models / "clip.safetensors")
    listed = tmp_path / "classes.txt"
    listed.write_text("blue\ngreen\nred\n", encoding="utf-8")
    text = said(EvaluationRecipe(path, flat, ARCHITECTURE, clip, {"colours": str(listed)}))
    assert "accuracy needs labels" in text


# --- inspecting -----------------------------------------------------------------------------------


def test_task_vectors_are_compared(models: Path, tmp_path: Path) -> None:
    sources = [str(models / f"{name}.safetensors") for name in CLASSES]
    found = inspect_checkpoints(sources, ARCHITECTURE, str(models / "clip.safetensors"))
    assert found.comparison is not None
    whole = checkpoints.load(models / "clip.safetensors")
    vectors = []
    for source in sources:
        state = checkpoints.load(source)
        parts = [(t - whole[f"visual.{n}"]).double().reshape(-1) for n, t in state.items()]
        vectors.append(torch.cat(parts))
    norms = [float(vector.norm()) for vector in vectors]
    assert found.comparison.norms.tolist() == pytest.approx(norms)
    cosine = float(vectors[0] @ vectors[1]) / norms[0] / norms[1]
    assert float(found.comparison.cosines[0, 1]) == pytest.approx(cosine, abs=1e-6)
    assert found.comparison.changed == (len(state), len(state))
    assert found.each[0].parameters == sum(len(vector) for vector in vectors) // 2
    assert found.each[0].dtypes == "float32"


def test_what_does_not_fit_is_said_and_others_are_compared(models: Path, tmp_path: Path) -> None:
    good = str(models / "colours.safetensors")
    state = moved(checkpoints.load(good))
    state["proj"][0, 0] = math.nan
    checkpoints.save(tmp_path / "nan.safetensors", state)
    sources = [good, str(tmp_path / "nan.safetensors"), str(tmp_path / "nothing")]
    for pretrained in (str(models / "clip.safetensors"), None):
        found = inspect_checkpoints(sources, ARCHITECTURE, pretrained)
        assert found.each[0].faults == ()
        assert "non-finite" in found.each[1].faults[0]
        assert "nothing" in found.each[2].faults[0]
        assert (found.comparison is None) == (pretrained is None)
    with pytest.raises(InputError, match="is named twice"):
        inspect_checkpoints([good, good], ARCHITECTURE)


# --- converting -----------------------------------------------------------------------------------


def test_an_image_tower_becomes_a_whole_clip(models: Path, tmp_path: Path) -> None:
    import open_clip

    source, clip = str(models / "colours.safetensors"), str(models / "clip.safetensors")
    convert(open_conversion(source, "open_clip", ARCHITECTURE, clip), tmp_path / "whole")
    peer = open_clip.create_model(f"local-dir:{tmp_path}/whole")
    state, whole = checkpoints.load(source), checkpoints.load(clip)
    for name, tensor in peer.state_dict().items():
        changed = state[name.removeprefix("visual.")] if name.startswith("visual.") else whole[name]
        assert torch.equal(tensor, changed)


def test_conversions_round_trip(models: Path, tmp_path: Path) -> None:
    source = str(models / "clip.safetensors")
    convert(open_conversion(source, "safetensors", ARCHITECTURE), tmp_path / "tower")
    assert checkpoints.read_metadata(tmp_path / "tower")["architecture"] == ARCHITECTURE
    convert(open_conversion(source, "transformers", ARCHITECTURE), tmp_path / "folder")
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    with pytest.raises(InputError, match="something is there already"):
        convert(open_conversion(source, "safetensors", ARCHITECTURE), tmp_path / "tower")


def test_faults_of_a_conversion(models: Path, tower: Path) -> None:
    def said(*arguments: str) -> str:
        with pytest.raises(InputError) as caught:
            open_conversion(*arguments)
        return str(caught.value)

    text = said(str(tower), "onnx")
    assert "to = 'onnx': must be one of open_clip, transformers, safetensors" in text
    assert "does not say of which architecture" in text
    assert "has no text tower; give the CLIP" in said(str(tower), "open_clip", ARCHITECTURE)
    assert f"{ARCHITECTURE} is a CLIP; give open_clip" in said(str(tower), "timm", ARCHITECTURE)
    shipped = tower.with_name("imagenet.safetensors")
    checkpoints.save(shipped, read_pretrained("imagenet", "efficientnet_lite0_clip").tensors)
    assert "transformers knows no other" in said(
        str(shipped), "transformers", "efficientnet_lite0_clip"
    )


# --- lists of names -------------------------------------------------------------------------------


def test_class_lists_are_read_in_each_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()  # a folder of images, which is no list
    path = tmp_path / "classes.txt"
    path.write_text("n01\ttench\n\nn02\tgoldfish\n", encoding="utf-8")
    listed = read_classes(str(path))
    assert listed.names == ("tench", "goldfish")
    assert [listed.label(name) for name in ("n02", "tench", "n03")] == [1, 0, None]
    assert read_classes("mnist").names[0] == "0"
    assert len(read_classes("mnist").templates) == 1
    path = tmp_path / "classes.json"
    path.write_text('["a", "b"]', encoding="utf-8")
    assert read_classes(str(path)).names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.txt", b"a\na\n", "class 'a': stands twice"),
        ("x.txt", b"\n\n", "holds no class name"),
        ("x.txt", b"\xff\xfe", "is not UTF-8"),
        ("x.json", b"{}", "must be a JSON list of texts"),
        ("x.json", b"[", "is no JSON"),
    ],
)
def test_broken_class_lists_are_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_classes(str(tmp_path / name))


def test_prompts_need_one_place_for_the_name(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a photo of a {}.\n{} and {}\nno place\n{name}\n", encoding="utf-8")
    with pytest.raises(InputError, match="3 faults"):
        read_templates(str(path))
    path.write_text("a photo of a {}.\na drawing of a {}.\n", encoding="utf-8")
    assert read_templates(str(path)) == ("a photo of a {}.", "a drawing of a {}.")


def test_a_published_head_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a", "b")
    classes = ClassList(names, names)
    weight = torch.randn(2, 3)
    for normalize, kind in ((True, "zero_shot"), (False, "linear")):
        path = write(tmp_path / f"head_{kind}.pt", head_pickle(weight, normalize=normalize))
        head = read_task_head(path, classes)
        assert head.kind == kind
        assert torch.equal(head.weight, weight)
    both = (weight, torch.ones(2), True)
    monkeypatch.setattr("adamerge_core.vision.task_heads.read_head", lambda _: both)
    with pytest.raises(InputError, match="normalises features and has a bias"):
        read_task_head(path, classes)


def test_a_broken_head_is_refused(tmp_path: Path) -> None:
    names = ("a", "b")
    path = tmp_path / "head.safetensors"
    for tensors, said in (
        ({"weight": torch.ones(2, 3), "scale": torch.ones(1)}, "must hold weight"),
        ({"weight": torch.ones(2)}, r"must be floats \[classes, D\]"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(3)}, r"2 classes need \[2\]"),
        ({"weight": torch.full((2, 3), math.nan)}, "non-finite"),
        ({"weight": torch.ones(2, 3)}, "names no classes"),
    ):
        checkpoints.save(path, tensors)
        with pytest.raises(InputError, match=said):
            read_task_head(path)
    checkpoints.save(path, {"weight": torch.ones(2, 3)}, {"head": "{}"})
    with pytest.raises(InputError, match="its entry `head` is broken"):
        read_task_head(path)
    TaskHead(torch.ones(2, 3), torch.ones(2), ClassList(names, names), "x").save(path)
    assert read_task_head(path).kind == "linear"
