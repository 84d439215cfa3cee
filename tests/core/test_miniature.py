"""The eight miniature tasks: determinism, disjoint splits, balance, errors at the border."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from adamerge_core.vision import miniature
from adamerge_core.vision.miniature import glyphs, mnist, photos


def make(
    task_name: str, split: str, count: int, seed: int = 0
) -> tuple[list[np.ndarray], list[int]]:
    pairs = list(miniature.images(task_name, split, count, seed))
    return [pixels for pixels, _ in pairs], [label for _, label in pairs]


def digests(pictures: list[np.ndarray]) -> list[str]:
    return [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in pictures]


@pytest.mark.parametrize("task_name", miniature.TASK_NAMES)
def test_every_class_is_drawn_as_64_pixel_rgb_with_balanced_labels(task_name: str) -> None:
    classes = len(miniature.class_names(task_name))
    pictures, labels = make(task_name, "train", 3 * classes + 2)
    assert all(pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8 for pixels in pictures)
    assert all(int(pixels.max()) > int(pixels.min()) for pixels in pictures)
    assert all(type(label) is int for label in labels)
    counts = Counter(labels)
    assert sorted(counts) == list(range(classes))
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("task_name", miniature.TASK_NAMES)
def test_an_image_depends_on_seed_split_and_index_alone(task_name: str) -> None:
    pictures, labels = make(task_name, "val", 24, seed=3)
    again, same_labels = make(task_name, "val", 24, seed=3)
    assert digests(pictures) == digests(again)
    assert labels == same_labels
    shorter, _ = make(task_name, "val", 9, seed=3)
    assert digests(shorter) == digests(pictures)[:9]
    assert len(set(digests(pictures))) == 24
    other, _ = make(task_name, "val", 24, seed=4)
    assert digests(other) != digests(pictures)


@pytest.mark.parametrize("task_name", miniature.TASK_NAMES)
def test_no_two_splits_share_an_image(task_name: str) -> None:
    found = {
        split: set(digests(make(task_name, split, 40, seed)[0]))
        for seed, split in enumerate(miniature.SPLITS)
    }
    for first, second in itertools.combinations(miniature.SPLITS, 2):
        assert not found[first] & found[second]


@pytest.mark.parametrize("photo", photos.PHOTOS, ids=lambda photo: photo.name)
def test_the_cells_of_a_photograph_do_not_touch(photo: photos.Photo) -> None:
    with Image.open(photos.photo_path(photo)) as opened:
        owners = np.zeros((opened.height, opened.width), np.int64)
    drawn = 0
    for number, split in enumerate(miniature.SPLITS, start=1):
        for left, top, right, bottom in photos.cells(photo, split):
            assert 0 <= left < right <= owners.shape[1]
            assert 0 <= top < bottom <= owners.shape[0]
            around = owners[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2]
            assert not around.any(), "a cell overlaps or touches another one"
            owners[top:bottom, left:right] = number
            drawn += 1
    assert drawn == 24


def test_a_crop_takes_its_pixels_from_the_cells_of_its_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    white, black = Image.new("L", (8, 8), 255), Image.new("L", (8, 8), 0)
    split_cells = {split: photos._cut(0, split) for split in miniature.SPLITS}
    marked = {
        split: tuple((white if split == "test" else black).resize(cell.size) for cell in own)
        for split, own in split_cells.items()
    }
    monkeypatch.setattr(photos, "_cut", lambda label, split: marked[split])
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert np.asarray(photos._crop(rng, 0, "test")).min() == 255
        assert np.asarray(photos._crop(rng, 0, "train")).max() == 0


def test_the_digits_are_partitioned_into_the_splits() -> None:
    rows = [
        row
        for split in miniature.SPLITS
        for label in range(10)
        for row in mnist.members(split, label)
    ]
    assert sorted(rows) == list(range(5000))


@pytest.mark.parametrize("split", miniature.SPLITS)
def test_more_digits_than_exist_are_refused_at_once(split: str) -> None:
    supply = mnist.SUPPLY[split]
    with pytest.raises(ValueError, match=f"count is {supply + 1}.*holds {supply} images"):
        miniature.images("mnist", split, supply + 1, 0)
    if split == "val":
        assert len(set(digests(make("mnist", split, supply)[0]))) == supply


def test_all_faults_of_a_request_are_named_in_one_error() -> None:
    with pytest.raises(ValueError, match="task_name is 'cars'") as caught:
        miniature.images("cars", "dev", -1, True)
    message = str(caught.value)
    assert "it must be one of photos, vehicles" in message
    assert "split is 'dev'; it must be one of pretrain, train, val, test" in message
    assert "count is -1; it must be an integer >= 0" in message
    assert "seed is True; it must be an integer >= 0" in message


def test_an_unknown_task_has_no_names_and_no_templates() -> None:
    for ask in (miniature.class_names, miniature.templates):
        with pytest.raises(ValueError, match="task_name is 'cars'; it must be one of"):
            ask("cars")


@pytest.mark.parametrize("task_name", miniature.TASK_NAMES)
def test_names_make_distinct_prompts(task_name: str) -> None:
    names, templates = miniature.class_names(task_name), miniature.templates(task_name)
    assert 1 <= len(templates) <= 3
    prompts = {template.format(name) for template in templates for name in names}
    assert len(prompts) == len(names) * len(templates)


@pytest.mark.parametrize("font", glyphs.FONTS)
def test_each_font_draws_36_different_glyphs(font: str) -> None:
    masks = {
        (mask.size, mask.tobytes())
        for mask in (
            glyphs.glyph(font, text, 32) for text in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        )
    }
    assert len(masks) == 36


def test_importing_and_drawing_needs_no_torch() -> None:
    program = (
        "import sys; from adamerge_core.vision import miniature as m\n"
        "assert not {'matplotlib', 'skimage', 'sklearn', 'mlxtend'} & set(sys.modules)\n"
        "[list(m.images(task, 'val', 1, 0)) for task in m.TASK_NAMES]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
