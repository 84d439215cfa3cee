"""Methods of `adamerge merge` beside rules and coefficients: AdaRank, and what is chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_clip import ADAPTATION, ARCHITECTURE, recipe_of, towers, written_material

from adamerge_core import RULES
from adamerge_core.errors import InputError
from adamerge_core.vision import plans
from adamerge_core.vision.image_files import decoded, find_images
from adamerge_core.vision.merge_models import merge_models
from adamerge_core.vision.merge_recipes import MergeRecipe, open_inputs
from adamerge_core.vision.pretrained import encoder_of, scaling_of


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


def test_the_value_of_a_parameter_is_chosen(recipe: MergeRecipe, tmp_path: Path) -> None:
    """By the criterion on the images, and what is made of it is the rule at that value."""
    chosen = replace(
        recipe,
        method="task_arithmetic",
        settings={},
        choose={"scaling": [0.0, 0.5, 1.0], "by": "entropy"},
    )
    merged = merge_models(chosen, tmp_path / "out")
    averages = {row["scaling"]: row["average"] for row in merged.choice}
    best = min(averages, key=lambda value: averages[value])
    expected = RULES["task_arithmetic"](towers(recipe), scaling=best)
    for name, tensor in expected.items():
        assert torch.equal(merged.tensors[name], tensor)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert f"| scaling | {best} |" in card
    assert "| scaling | criterion | colours | sides | average |" in card
    facts = json.loads((tmp_path / "out/recipe.json").read_text(encoding="utf-8"))
    assert [row["scaling"] for row in facts["choice"]] == [0.0, 0.5, 1.0]


def test_the_entropy_of_a_choice_is_that_of_the_predictions(
    recipe: MergeRecipe, tmp_path: Path
) -> None:
    choose = {"scaling": [0.3], "by": "entropy"}
    rule = replace(recipe, method="task_arithmetic", settings={}, choose=choose)
    merged = merge_models(rule, tmp_path / "out")
    pixels = scaling_of(ARCHITECTURE, None)
    encoder = encoder_of(ARCHITECTURE, merged.tensors, "merged", pixels)
    for task, folder in recipe.images.items():
        ((_, images),) = decoded(find_images(folder), 32, 64, lambda *_: None)
        with torch.no_grad():
            logits = merged.heads[task].module()(encoder(torch.from_numpy(images))).double()
        probabilities = logits.softmax(dim=1)
        entropy = -(probabilities * probabilities.log()).sum(dim=1).mean()
        assert merged.choice[0][task] == pytest.approx(float(entropy), rel=1e-5)


def test_an_adaptation_is_chosen_among_settings(recipe: MergeRecipe, tmp_path: Path) -> None:
    choose = {"learning_rate": [0.01, 0.1], "by": "agreement"}
    settings = {key: value for key, value in ADAPTATION.items() if key != "learning_rate"}
    merged = merge_models(replace(recipe, settings=settings, choose=choose), tmp_path / "out")
    averages = [row["average"] for row in merged.choice]
    rate = (0.01, 0.1)[averages.index(max(averages))]
    alone = replace(recipe, settings={**settings, "learning_rate": rate})
    expected = merge_models(alone, tmp_path / "alone")
    assert merged.coefficients is not None
    assert expected.coefficients is not None
    assert torch.equal(merged.coefficients.values, expected.coefficients.values)


def test_adarank_merges_without_a_suite(recipe: MergeRecipe, tmp_path: Path) -> None:
    settings = {**ADAPTATION, "rank_share": 0.5}
    masked = replace(recipe, method="singular_components", settings=settings)
    merged = merge_models(masked, tmp_path / "out")
    assert merged.coefficients is not None
    whole = towers(recipe).merge(merged.coefficients.values)
    matrix = "transformer.resblocks.0.mlp.c_fc.weight"
    assert torch.allclose(merged.tensors["ln_pre.bias"], whole["ln_pre.bias"], atol=1e-6)
    assert not torch.allclose(merged.tensors[matrix], whole[matrix], atol=1e-4)
    assert "rank_share | 0.5" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_the_plan_counts_every_value_that_is_tried(
    recipe: MergeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = plans._Speed(decode=0.0, forward=0.0, backward=1.0)
    monkeypatch.setattr(plans, "_speed", lambda *_: speed)
    settings = {key: value for key, value in ADAPTATION.items() if key != "steps"}
    choose = {"steps": [3, 5], "by": "entropy"}
    inputs = open_inputs(replace(recipe, settings=settings, choose=choose))
    images = len(recipe.finetuned) * ADAPTATION["images_per_task"]
    assert plans.plan_merge(inputs, "cpu").seconds == (3 + 5) * images


@pytest.mark.parametrize(
    ("choose", "said"),
    [
        ({"scaling": [0.1, 0.3]}, "by = None: must be one of"),
        ({"scaling": [], "by": "entropy"}, "must be the values of one parameter to try"),
        ({"scaling": [0.1], "keep": [0.1], "by": "entropy"}, "of one parameter to try"),
        ({"scaling": [0.1, 0.1], "by": "entropy"}, "each must stand once"),
        ({"scaling": [0.1, "much"], "by": "entropy"}, "scaling = 'much': must be a finite number"),
        ({"speed": [1], "by": "entropy"}, "speed: is no parameter"),
        ({"keep": [0.2], "by": "entropy"}, "keep: has a value and is chosen too"),
    ],
)
def test_faults_of_a_choice(recipe: MergeRecipe, choose: dict[str, object], said: str) -> None:
    rule = replace(recipe, method="ties_merging", settings={"keep": 0.1}, choose=choose)
    assert said in faults(rule)


def test_a_choice_needs_images_and_by_accuracy_their_labels(
    recipe: MergeRecipe, models: Path, tmp_path: Path
) -> None:
    choose = {"scaling": [0.1, 0.3], "by": "accuracy"}
    rule = replace(recipe, method="task_arithmetic", settings={}, choose=choose)
    assert "needs images of it" in faults(replace(rule, images={}))
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((models / "images/colours").rglob("*.png"))):
        (flat / f"{number}.png").write_bytes(path.read_bytes())
    listed = tmp_path / "classes.txt"
    listed.write_text("blue\ngreen\nred\n", encoding="utf-8")
    images = {**rule.images, "colours": str(flat)}
    bare = replace(rule, images=images, classes={"colours": str(listed)})
    assert "colours: its images have no labels, and task_arithmetic needs them" in faults(bare)
    by_entropy = {"scaling": [0.1, 0.3], "by": "entropy"}
    assert open_inputs(replace(bare, choose=by_entropy)).method.choose is not None
