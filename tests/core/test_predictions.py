"""Predictions of a model of several tasks, and images as callers give them."""

import base64
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from adamerge_core.errors import InputError
from adamerge_core.vision.classifiers import LinearHead
from adamerge_core.vision.decoding import decode, fit_pixels
from adamerge_core.vision.given_images import image_pixels
from adamerge_core.vision.predictions import MultiTaskModel, predict

SIZE = 4


class Means(nn.Module):
    """An encoder whose features are the mean red, green and blue: [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255))

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(1, 2)) * self.scale


def model(*tasks: str) -> MultiTaskModel:
    """Heads that say red, green or blue, and light or dark; a task's name is free."""
    colours = LinearHead(10 * torch.eye(3), None)
    light = LinearHead(torch.tensor([[1.0, 1, 1], [-1, -1, -1]]), torch.tensor([-1.5, 1.5]))
    known = {"keys": (colours, ("red", "green", "blue")), "shade": (light, ("light", "dark"))}
    chosen = {name: known[name] for name in tasks or known}
    heads = {name: head for name, (head, _) in chosen.items()}
    return MultiTaskModel(Means(), heads, {name: each for name, (_, each) in chosen.items()}, SIZE)


def plain(*colour: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_predictions_are_in_the_order_of_the_images() -> None:
    images = [plain(255, 0, 0), plain(250, 250, 250), plain(0, 0, 255), plain(9, 9, 9)]
    found = predict(model(), images, ["keys", "shade", "keys", "shade"])
    assert [each.class_name for each in found] == ["red", "light", "blue", "dark"]
    assert [each.label for each in found] == [0, 0, 2, 1]
    red = found[0]
    weights = [math.exp(10), 1.0, 1.0]
    expected = [weight / sum(weights) for weight in weights]
    assert red.probabilities == pytest.approx(expected, rel=1e-6)
    assert red.probability == max(red.probabilities)
    assert red.entropy == pytest.approx(-sum(p * math.log(p) for p in expected), rel=1e-5)


def test_more_images_than_a_batch_are_all_classified() -> None:
    images = [plain(255, 0, 0) if n % 3 else plain(0, 255, 0) for n in range(150)]
    found = predict(model("keys"), images, [None] * 150)
    assert [each.class_name == "red" for each in found] == [bool(n % 3) for n in range(150)]


def test_the_module_gives_logits() -> None:
    images = torch.from_numpy(np.stack([plain(255, 0, 0), plain(0, 0, 255)]))
    logits = model()(images, "keys")
    torch.testing.assert_close(logits, torch.tensor([[10.0, 0, 0], [0, 0, 10]]))


def test_all_faults_are_said_at_once() -> None:
    images = [plain(1, 2, 3), plain(1, 2, 3)[..., :2], b"", object(), plain(1, 2, 3)]
    with pytest.raises(InputError) as caught:
        predict(model(), images, ["keys", "keys", "shade", "nothing", None])
    assert caught.value.lines == [
        "image 2: is an array uint8 [4, 4, 2]: must be uint8 [H, W, 3], RGB",
        "image 3: is empty; replace it",
        "image 4: task 'nothing': must be one of keys, shade",
        "image 4: is object: give an array uint8 [H, W, 3], the bytes of an image file, their "
        "base64 text or a path",
        "image 5: no task is given: must be one of keys, shade",
    ]
    with pytest.raises(InputError, match="1 images and 2 tasks"):
        predict(model(), [plain(0, 0, 0)], ["keys", "keys"])
    with pytest.raises(InputError, match=r"task 3: must be text"):
        predict(model(), [plain(0, 0, 0)], [3])


def test_no_class_is_the_likeliest_of_what_is_not_finite() -> None:
    broken = model()
    with torch.no_grad():
        broken.get_parameter("encoder.scale").fill_(math.nan)
    with pytest.raises(InputError, match="keys: the logits are not finite"):
        predict(broken, [plain(0, 0, 0)], ["keys"])


def test_heads_and_class_names_must_fit() -> None:
    head = LinearHead(torch.eye(3), None)
    with pytest.raises(InputError) as caught:
        MultiTaskModel(Means(), {"a": head, "b": head}, {"a": ("x",), "c": ("x",)}, SIZE)
    assert caught.value.lines == [
        "a: a head of 3 classes, and 1 class names",
        "b: a head of 3 classes, and None class names",
        "c: a head of None classes, and 1 class names",
    ]
    with pytest.raises(InputError, match="has no head"):
        MultiTaskModel(Means(), {}, {}, SIZE)


# images as they are given


def test_every_form_of_an_image_is_the_same_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    content = png(pixels)
    file = tmp_path / "an image.png"
    file.write_bytes(content)
    text = base64.b64encode(content).decode()
    expected = decode(content, 8).pixels
    folded = "\n".join(text[n : n + 76] for n in range(0, len(text), 76))
    forms = [
        *(pixels, pixels.tolist(), content, bytearray(content), memoryview(content)),
        *(text, folded, f"data:image/png;base64,{text}", file, str(file)),
    ]
    for form in forms:
        np.testing.assert_array_equal(image_pixels(form, 8, paths=True), expected)


def test_an_array_is_fitted_as_a_file_is() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(fit_pixels(pixels, 8), pixels)
    with pytest.raises(InputError, match="is 1 x 60 pixels: the longer side may be at most 50"):
        fit_pixels(plain(0, 0, 0, height=60, width=1), 8)


@pytest.mark.parametrize("given", ["/etc/hostname", Path("/etc/hostname")])
def test_a_server_reads_no_files(given: object) -> None:
    with pytest.raises(InputError) as caught:
        image_pixels(given, 8, paths=False)
    said = str(caught.value)
    assert "paths are not read here" in said or "is PosixPath: give an array" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[[1, 2], [3]]], "lists of several lengths"),
        ([[[1, 2, 256]]], "integers 0 to 255"),
        ([[[0.5, 0.5, 0.5]]], "lists of float64"),
        ("no base64!", "names no file, and is no base64"),
        (base64.b64encode(b"text").decode(), "is no whole image of PNG"),
        (Path("/nowhere/x.png"), "no such file"),
        (Path("/"), "is a folder"),
    ],
)
def test_what_is_no_image_is_said(given: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        image_pixels(given, 8, paths=True)
