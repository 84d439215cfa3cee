"""What a suite needs, said before anything is fetched."""

from __future__ import annotations

import pytest
from conftest import ROOT

from flows import needs
from tasks.suite.schema import load_suite

VISUAL = {"ViT-B-32": 87_849_216, "ViT-B-16": 86_192_640, "ViT-L-14": 303_966_208}
"""Parameters of the image towers with their projections, as open_clip counts them."""


@pytest.mark.parametrize("architecture", VISUAL)
def test_parameters_are_counted_from_the_configuration(architecture: str) -> None:
    tower = needs._Tower.of(architecture)
    assert tower is not None
    assert tower.parameters == VISUAL[architecture]


def said(name: str) -> dict[str, str]:
    lines = needs.needs(load_suite(ROOT / "suites" / f"{name}.yaml", name))
    return {line.split()[0]: line for line in lines if not line.startswith(" ")}


def test_imported_models_need_no_training_images_and_no_hours_of_training() -> None:
    here, imported = said("clip-vit-b-32-8-finetune"), said("clip-vit-b-32-8-fusionbench")
    assert "sun397, whose size is not known" in here["download"]
    disk = [float(each["disk"].split()[2]) for each in (here, imported)]
    hours = [float(each["time"].split()[2]) for each in (here, imported)]
    images = 19850 + 8041 + 6300 + 2700 + 26032 + 12630 + 10000 + 1880
    assert disk[1] == pytest.approx(2 * images * 224**2 * 3 / 1e9, abs=0.1)
    assert disk[0] > 2 * disk[1]
    assert 0 < hours[1] < hours[0]


def test_a_miniature_says_its_disk_alone() -> None:
    assert list(said("mini")) == ["disk"]
