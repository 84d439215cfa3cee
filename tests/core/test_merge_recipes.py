"""Merging checkpoints without a suite: the folder it writes, and what a recipe can get wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clip import (
    ADAPTATION,
    ARCHITECTURE,
    CLASSES,
    by_task,
    recipe_of,
    towers,
    write_images,
    written_material,
)

from adamerge_core import RULES, LearnedCoefficients, checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.class_lists import ClassList
from adamerge_core.vision.export import export_transformers
from adamerge_core.vision.image_files import find_images
from adamerge_core.vision.image_towers import read_image_tower
from adamerge_core.vision.merge_models import merge_models
from adamerge_core.vision.merge_recipes import MergeRecipe, open_inputs
from adamerge_core.vision.merged_folders import is_merged_folder, read_heads, read_merged_model
from adamerge_core.vision.predictions import predict
from adamerge_core.vision.pretrained import encoder_of, read_pretrained, scaling_of
from adamerge_core.vision.task_heads import TaskHead, head_path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with written_material(tmp_path_factory.mktemp("models")) as folder:
        yield folder


@pytest.fixture
def recipe(models: Path) -> MergeRecipe:
    return recipe_of(models)


def faults(recipe: MergeRecipe) -> str:
    with pytest.raises(InputError) as caught:
        open_inputs(recipe)
    return str(caught.value)


def test_a_rule_merges_as_the_registry_does(recipe: MergeRecipe, tmp_path: Path) -> None:
    rule = replace(recipe, method="task_arithmetic", settings={"scaling": 0.4}, images={})
    merged = merge_models(rule, tmp_path / "out")
    expected = RULES["task_arithmetic"](towers(recipe), scaling=0.4)
    written = checkpoints.load(tmp_path / "out/image_tower.safetensors")
    for name, tensor in expected.items():
        assert torch.equal(written[name], tensor)
    assert merged.coefficients is None
    assert merged.accuracies == {}
    assert not (tmp_path / "out.partial").exists()


def test_learned_coefficients_give_the_merged_model(recipe: MergeRecipe, tmp_path: Path) -> None:
    merged = merge_models(recipe, tmp_path / "out")
    learned = LearnedCoefficients.load(tmp_path / "out/coefficients.safetensors")
    assert learned.task_names == tuple(CLASSES)
    assert not torch.equal(learned.values, torch.full_like(learned.values, 0.3))
    expected = towers(recipe).merge(learned.values)
    for name, tensor in merged.tensors.items():
        assert torch.allclose(tensor, expected[name], atol=1e-6)
    assert merged.accuracies.keys() == {"pretrained", "individual", "merged"}
    assert merged.accuracies["merged"].keys() == {*CLASSES, "average"}


def test_open_clip_and_transformers_open_what_is_written(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    import open_clip

    out = tmp_path / "out"
    merged = merge_models(replace(recipe, method="weight_averaging", settings={}), out)
    pixels = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8)
    scaling = scaling_of(ARCHITECTURE, None)
    mean, deviation = (torch.tensor(values) for values in scaling)
    scaled = ((pixels - mean) / deviation).permute(0, 3, 1, 2)
    with torch.no_grad():
        ours = encoder_of(ARCHITECTURE, merged.tensors, "merged", scaling)(pixels)
        peer = open_clip.create_model(f"local-dir:{out}/open_clip").eval()
        assert torch.allclose(peer.visual(scaled), ours, atol=1e-5)
        transformers = pytest.importorskip("transformers")
        tower = transformers.CLIPVisionModelWithProjection.from_pretrained(out / "transformers")
        assert torch.allclose(tower(scaled).image_embeds, ours, atol=1e-5)


def test_the_heads_are_zero_shot_and_kept(recipe: MergeRecipe, tmp_path: Path) -> None:
    merge_models(replace(recipe, method="weight_averaging", settings={}), tmp_path / "out")
    assert is_merged_folder(tmp_path / "out")
    heads = read_heads(tmp_path / "out")
    for name, classes in CLASSES.items():
        assert heads[name].kind == "zero_shot"
        assert heads[name].classes.names == classes
        scale = checkpoints.load(recipe.pretrained)["logit_scale"].exp()
        assert torch.allclose(heads[name].weight.norm(dim=1), scale, rtol=1e-4)


def test_a_merged_folder_classifies_as_it_was_measured(recipe: MergeRecipe, tmp_path: Path) -> None:
    merged = merge_models(recipe, tmp_path / "out")
    model = read_merged_model(tmp_path / "out")
    for name, folder in recipe.images.items():
        files = find_images(folder).files
        found = predict(model, files, [name] * len(files))
        hits = [
            each.class_name == file.parent.name for each, file in zip(found, files, strict=True)
        ]
        assert 100 * sum(hits) / len(hits) == pytest.approx(merged.accuracies["merged"][name])
    with pytest.raises(InputError, match="is no folder that `adamerge merge` wrote"):
        read_merged_model(tmp_path)


def test_the_card_says_from_what_and_how(recipe: MergeRecipe, tmp_path: Path) -> None:
    merged = merge_models(recipe, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: unknown\n")
    for path in (recipe.pretrained, *recipe.finetuned.values()):
        tower = read_image_tower(path, architecture=ARCHITECTURE)
        assert tower.sha256 in card
        assert str(Path(path).parent) not in card
    assert "| steps | 3 |" in card
    assert f"{merged.accuracies['merged']['average']:.1f}" in card
    assert "blue, green, red" in card
    facts = json.loads((tmp_path / "out/recipe.json").read_text(encoding="utf-8"))
    assert facts["recipe"]["method"] == "layer_wise"
    assert facts["merged"] in card


@pytest.mark.parametrize("method", ["fisher_merging", "regmean"])
def test_rules_that_weigh_by_data_get_it(recipe: MergeRecipe, tmp_path: Path, method: str) -> None:
    chosen = replace(recipe, method=method, settings={})
    merged = merge_models(chosen, tmp_path / "out").tensors
    average = RULES["weight_averaging"](towers(recipe))
    assert any(not torch.allclose(merged[name], average[name]) for name in merged)
    assert "needs images of it" in faults(replace(chosen, images={}))


def test_what_stands_before_changes_the_task_vectors(recipe: MergeRecipe, tmp_path: Path) -> None:
    settings = {**ADAPTATION, "before": "trim_and_elect", "before.keep": 0.1}
    merged = merge_models(replace(recipe, settings=settings), tmp_path / "out")
    assert merged.coefficients is not None
    plain = towers(recipe).merge(merged.coefficients.values)
    assert any(not torch.allclose(merged.tensors[name], plain[name]) for name in plain)


def test_interrupted_work_goes_on_and_ends_at_the_same(recipe: MergeRecipe, tmp_path: Path) -> None:
    long = replace(recipe, settings={**ADAPTATION, "steps": 25})
    whole = merge_models(long, tmp_path / "whole")
    told = []

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("steps"):
            told.append(done)
            if len(told) == 15:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_models(long, tmp_path / "out", progress=stop)
    assert (tmp_path / "out.partial/adaptation.safetensors").is_file()
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="unfinished work of another recipe"):
        merge_models(recipe, tmp_path / "out")
    resumed = merge_models(long, tmp_path / "out", progress=stop)
    assert told[15] == 11  # the state is kept every ten steps
    assert resumed.coefficients is not None
    assert whole.coefficients is not None
    assert torch.equal(resumed.coefficients.values, whole.coefficients.values)
    assert not (tmp_path / "out.partial").exists()


def test_what_is_there_is_not_overwritten(recipe: MergeRecipe, tmp_path: Path) -> None:
    rule = replace(recipe, method="weight_averaging", settings={}, images={})
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(InputError, match="something is there already"):
        merge_models(rule, out)
    assert (out / "mine").read_text() == "mine"
    (out / "mine").unlink()
    merge_models(rule, out)  # an empty folder is filled
    with pytest.raises(InputError, match="must be the path of something new"):
        merge_models(rule, "")
    other = tmp_path / "new.partial"
    other.mkdir()
    (other / "mine").write_text("mine")
    with pytest.raises(InputError, match="holds mine"):
        merge_models(rule, tmp_path / "new")


def test_unlabeled_images_are_enough(recipe: MergeRecipe, models: Path, tmp_path: Path) -> None:
    flat = {}
    for name in CLASSES:
        flat[name] = str(tmp_path / name)
        Path(flat[name]).mkdir()
        for number, path in enumerate(sorted((models / "images" / name).rglob("*.png"))):
            (tmp_path / name / f"{number}.png").write_bytes(path.read_bytes())
    listed = tmp_path / "classes.txt"
    listed.write_text("blue\ngreen\nred\n", encoding="utf-8")
    unlabeled = replace(recipe, images=flat)
    assert "colours: has no head" in faults(unlabeled)
    sides = tmp_path / "sides.json"
    sides.write_text('["left", "right"]', encoding="utf-8")
    named = replace(unlabeled, classes={"colours": str(listed), "sides": str(sides)})
    merged = merge_models(named, tmp_path / "out")
    assert merged.accuracies == {}
    assert "no labels were known" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_a_model_of_transformers_is_merged_as_it_is_in_open_clips_names(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    """A folder without a projection, as FusionBench's; the projection is the pretrained one."""
    tower = checkpoints.load(recipe.finetuned["colours"])
    tower["proj"] = checkpoints.load(recipe.pretrained)["visual.proj"]
    checkpoints.save(tmp_path / "colours.safetensors", tower)
    folder = tmp_path / "vision"
    bare = {name: tensor for name, tensor in tower.items() if name != "proj"}
    export_transformers(folder, ARCHITECTURE, scaling_of(ARCHITECTURE, None), bare)
    rule = replace(recipe, method="weight_averaging", settings={}, images={})
    results = [
        merge_models(
            replace(rule, finetuned={**rule.finetuned, "colours": str(path)}), tmp_path / out
        )
        for out, path in (("a", tmp_path / "colours.safetensors"), ("b", folder))
    ]
    for name, tensor in results[0].tensors.items():
        assert torch.equal(tensor, results[1].tensors[name])
    card = (tmp_path / "b/README.md").read_text(encoding="utf-8")
    assert "the pretrained model's was taken" in card


def test_models_of_the_hub_are_merged_by_their_names(
    recipe: MergeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub/models--org--colours"
    snapshot = model / "snapshots" / ("0" * 40)
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("0" * 40)
    tower = checkpoints.load(recipe.finetuned["colours"])
    export_transformers(snapshot, ARCHITECTURE, scaling_of(ARCHITECTURE, None), tower)
    rule = replace(recipe, method="weight_averaging", settings={}, images={})
    named = replace(rule, finetuned={**rule.finetuned, "colours": "org/colours"})
    merged = merge_models(named, tmp_path / "out")
    expected = RULES["weight_averaging"](towers(recipe))
    for name, tensor in expected.items():
        assert torch.equal(merged.tensors[name], tensor)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "base_model:\n- org/colours\nbase_model_relation: merge\n---\n" in card
    text = faults(replace(rule, finetuned={**rule.finetuned, "colours": "org/unknown"}))
    assert "allow the download with HF_HUB_OFFLINE=0" in text


def test_half_precision_is_widened_and_mixed_precision_refused(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    paths = {"clip": recipe.pretrained, **recipe.finetuned}
    for name, path in paths.items():
        half = {n: tensor.half() for n, tensor in checkpoints.load(path).items()}
        checkpoints.save(tmp_path / f"{name}.safetensors", half)
    whole = replace(recipe, pretrained=str(tmp_path / "clip.safetensors"))
    assert "are of another dtype" in faults(whole)
    whole = replace(whole, finetuned=by_task(tmp_path, ".safetensors"))
    merged = merge_models(whole, tmp_path / "out")
    assert {tensor.dtype for tensor in merged.tensors.values()} == {torch.float32}
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "is in half precision" in card


# --- what a stranger's command line and files can get wrong ---------------------------------------


def test_all_faults_of_a_recipe_are_listed_at_once(recipe: MergeRecipe) -> None:
    wrong = replace(
        recipe,
        architecture="ViT-B-33",
        method="layer_wise",
        settings={"steps": 0, "speed": 1, "before": "magic"},
        images={"moon": "x"},
        seed=-1,
    )
    text = faults(wrong)
    for part in (
        "model.architecture = 'ViT-B-33': unknown",
        "'moon' is no task of finetuned",
        "steps = 0: must be at least 1",
        "speed: is no parameter",
        "before = 'magic': must be one of",
        "seed = -1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("magic", {}, "method = 'magic': must be one of task_wise, layer_wise"),
        ("task_arithmetic", {"scaling": "much"}, "scaling = 'much': must be a finite number"),
        ("ties_merging", {"keep": 3.0}, "keep = 3.0"),
        ("layer_wise", {"preset": "slow"}, "preset = 'slow': must be one of paper"),
        ("layer_wise", {"before.keep": 0.2}, "before names no function"),
        ("layer_wise", {"objective": "magic"}, "objective = 'magic': must be one of"),
    ],
)
def test_faults_of_a_method(
    recipe: MergeRecipe, method: str, settings: dict[str, object], said: str
) -> None:
    assert said in faults(replace(recipe, method=method, settings=settings))


def test_faults_of_all_files_are_listed_at_once(
    recipe: MergeRecipe, models: Path, tmp_path: Path
) -> None:
    broken = checkpoints.load(recipe.finetuned["colours"])
    broken["proj"][0, 0] = math.nan
    broken["strange"] = torch.zeros(1)
    del broken["ln_post.bias"]
    checkpoints.save(tmp_path / "colours.safetensors", broken)
    finetuned = {
        "colours": str(tmp_path / "colours.safetensors"),
        "sides": str(tmp_path / "nothing.safetensors"),
    }
    images = {"colours": str(tmp_path / "nowhere"), "sides": str(tmp_path)}
    text = faults(replace(recipe, finetuned=finetuned, images=images))
    for part in (
        "tensor ln_post.bias is missing",
        "strange",
        "non-finite",
        "nothing.safetensors",
        "nowhere: no such folder",
        "holds no image",
    ):
        assert part in text


def test_two_tasks_of_one_content_are_refused(recipe: MergeRecipe) -> None:
    one = dict.fromkeys(CLASSES, recipe.finetuned["colours"])
    assert "colours and sides" in faults(replace(recipe, finetuned=one))


def test_a_class_list_must_fit_folders_and_head(
    recipe: MergeRecipe, models: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "classes.txt"
    listed.write_text("blue\nyellow\n", encoding="utf-8")
    text = faults(replace(recipe, classes={"colours": str(listed)}))
    assert "folder 'green': is no class of" in text
    assert "folder 'red': is no class of" in text
    head = TaskHead(torch.ones(3, 16), None, ClassList(("a", "b", "c"), ("a", "b", "c")), "test")
    head.save(tmp_path / "head.safetensors")
    text = faults(
        replace(
            recipe,
            classes={"colours": str(listed)},
            heads={"colours": str(tmp_path / "head.safetensors")},
        )
    )
    assert "has other classes than" in text
    checkpoints.save(tmp_path / "bare.safetensors", {"weight": torch.ones(3, 16)})
    bare = {"colours": str(tmp_path / "bare.safetensors")}
    text = faults(replace(recipe, classes={"colours": str(listed)}, heads=bare))
    assert "has 3 classes" in text
    checkpoints.save(tmp_path / "narrow.safetensors", {"weight": torch.ones(2, 7)})
    narrow = {"colours": str(tmp_path / "narrow.safetensors")}
    listed.write_text("blue\ngreen\n", encoding="utf-8")
    text = faults(
        replace(recipe, classes={"colours": str(listed)}, heads=narrow, images=by_task(tmp_path))
    )
    assert "no such folder" in text


def test_a_head_of_another_width_is_refused(recipe: MergeRecipe, tmp_path: Path) -> None:
    names = CLASSES["colours"]
    TaskHead(torch.ones(3, 7), None, ClassList(names, names), "test").save(tmp_path / "head")
    text = faults(replace(recipe, heads={"colours": str(tmp_path / "head")}))
    assert "takes 7 features, the image tower gives 16" in text


def test_without_a_text_tower_a_head_is_asked_for(
    recipe: MergeRecipe, models: Path, tmp_path: Path
) -> None:
    whole = checkpoints.load(recipe.pretrained)
    tower = {n.removeprefix("visual."): t for n, t in whole.items() if n.startswith("visual.")}
    checkpoints.save(tmp_path / "tower.safetensors", tower)
    bare = replace(recipe, pretrained=str(tmp_path / "tower.safetensors"))
    assert "has no text tower; give the file of a head" in faults(bare)


def test_a_head_beside_its_checkpoint_is_taken(recipe: MergeRecipe, tmp_path: Path) -> None:
    names = CLASSES["colours"]
    path = tmp_path / "colours.safetensors"
    checkpoints.save(path, checkpoints.load(recipe.finetuned["colours"]))
    TaskHead(torch.ones(3, 16), torch.zeros(3), ClassList(names, names), "test").save(
        head_path(path)
    )
    inputs = open_inputs(replace(recipe, finetuned={**recipe.finetuned, "colours": str(path)}))
    head = inputs.tasks["colours"].head
    assert isinstance(head, TaskHead)
    assert head.kind == "linear"


def test_a_checkpoint_that_says_it_is_from_other_weights_is_refused(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    path = tmp_path / "colours.safetensors"
    stated = {"pretrained_sha256": "0" * 64}
    checkpoints.save(path, checkpoints.load(recipe.finetuned["colours"]), stated)
    finetuned = {**recipe.finetuned, "colours": str(path)}
    assert "was fine-tuned from weights of sha256 0000" in faults(
        replace(recipe, finetuned=finetuned)
    )


def test_unreadable_images_are_listed(recipe: MergeRecipe, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    for name, content in {"red/cut.jpg": b"\xff\xd8\xff\xe0cut", "blue/empty.png": b""}.items():
        (tmp_path / "images/colours" / name).write_bytes(content)
    broken = replace(recipe, images=by_task(tmp_path / "images"))
    with pytest.raises(InputError) as caught:
        merge_models(broken, tmp_path / "out")
    assert "red/cut.jpg" in str(caught.value)
    assert "blue/empty.png: is empty" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_the_shipped_weights_are_the_same_each_time() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = read_pretrained("imagenet", "efficientnet_lite0_clip")
    assert torch.equal(torch.get_rng_state(), before)
    assert read_pretrained("imagenet", "efficientnet_lite0_clip").sha256 == first.sha256
    assert not first.text_tower
    with pytest.raises(InputError, match="is of efficientnet_lite0_clip, not of ViT-B-32"):
        read_pretrained("imagenet", "ViT-B-32")


def test_files_beside_images_are_counted_and_splits_refused(models: Path, tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "sides/left/notes.txt").write_text("x")
    (tmp_path / "sides/left/.hidden.png").write_text("x")
    found = find_images(tmp_path / "sides")
    assert len(found.files) == 8
    assert "1 files are no images" in str(found.remarks[0])
    labels = found.labels(ClassList(("right", "left"), ("right", "left")))
    assert labels is not None
    assert np.bincount(labels).tolist() == [4, 4]
    (tmp_path / "sides").rename(tmp_path / "colours/train")
    for name in CLASSES["colours"]:
        (tmp_path / "colours" / name).rename(tmp_path / "colours/train" / name)
    with pytest.raises(InputError, match="holds the splits train; give one of them"):
        find_images(tmp_path / "colours")
