"""Plain classifiers of timm, torchvision and transformers by name: made, and what images they take.

An architecture is called LIBRARY:NAME: `timm:resnet50`, `torchvision:resnet50`, and of transformers
`transformers:FOLDER`, a folder or a model of the hub that holds its configuration.
"""

import difflib
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import (
    TIMM,
    TORCHVISION,
    TRANSFORMERS,
    PixelScaling,
    split_name,
)
from adamerge_core.vision.classifiers import classifier_name, feature_encoder
from adamerge_core.vision.hub_models import TRANSFORMERS_CONFIG, hub_folder
from adamerge_core.vision.pixels import in_pixels, scale_pixels

PREPROCESSING = "preprocessor_config.json"
"""Where transformers keeps how images are scaled."""


@dataclass(frozen=True)
class ClassifierInput:
    """The images that a classifier takes."""

    size: int
    """Pixels of a side."""
    fixed: bool
    """Whether it takes no other size."""
    pixels: PixelScaling
    """(mean, deviation) of red, green and blue, pixels in 0 to 255."""


@cache
def classifier_input(architecture: str) -> ClassifierInput:
    """Say which images a classifier takes, as its library's definition has it.

    Raises InputError for an unknown architecture, with those of a similar name.
    """
    library, name = _split(architecture)
    return _INPUTS[library](architecture, name)


def create_classifier(architecture: str, classes: int | None = None) -> nn.Module:
    """Make a classifier with random weights, always the same, apart from the process's own ones.

    classes: how many; None takes the library's default. Raises InputError for an unknown
    architecture, and one that does not end in a linear classifier.
    """
    library, name = _split(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _MAKERS[library](architecture, name, classes)
    classifier_name(model)
    return model


def classifier_encoder(architecture: str, pixels: PixelScaling) -> nn.Module:
    """Make the encoder of a classifier, with random weights: images uint8 [N, H, W, 3] to features
    float32 [N, D]; `pixels` says how it scales them. Always in evaluation mode.
    """
    encoder = feature_encoder(create_classifier(architecture))
    encoder.to(memory_format=torch.channels_last)
    mean, deviation = pixels
    encoder.register_forward_pre_hook(partial(scale_pixels, mean=mean, deviation=deviation))
    return encoder


@cache
def classifier_width(architecture: str) -> int:
    """Return D, how many features the classifier of an architecture takes."""
    model = create_classifier(architecture)
    return int(model.get_submodule(classifier_name(model)).weight.shape[1])  # type: ignore[index]


def _split(architecture: str) -> tuple[str, str]:
    found = split_name(architecture)
    if found is None:
        raise InputError(
            f"model.architecture = {architecture!r}: is no classifier's, LIBRARY:NAME as "
            "timm:resnet50"
        )
    return found


def _unknown(architecture: str, name: str, known: Sequence[str]) -> InputError:
    library = architecture.partition(":")[0]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
    listed = ", ".join(f"{library}:{each}" for each in near) or "none of a similar name"
    return InputError(
        f"model.architecture = {architecture!r}: unknown to {library}; known are {listed}"
    )


# --- timm ---------------------------------------------------------------------------------------


def _timm_input(architecture: str, name: str) -> ClassifierInput:
    import timm

    try:
        known = timm.is_model(name)
        config = timm.get_pretrained_cfg(name) if known else None
    except RuntimeError:  # of another tag
        config = None
    if config is None:
        raise _unknown(architecture, name, [*timm.list_models(), *timm.list_pretrained()])
    pixels = in_pixels(config.mean, config.std)
    return ClassifierInput(int(config.input_size[-1]), bool(config.fixed_input_size), pixels)


def _timm_model(architecture: str, name: str, classes: int | None) -> nn.Module:
    import timm

    _timm_input(architecture, name)
    model: nn.Module = timm.create_model(name, num_classes=classes)
    return model


# --- torchvision --------------------------------------------------------------------------------

_ONE_SIZE = ("vit_", "maxvit_")
"""How the names of torchvision's models begin that take images of one size."""


def _torchvision_input(architecture: str, name: str) -> ClassifierInput:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(architecture, name, known)
    images = models.get_model_weights(name).DEFAULT.transforms()
    pixels = in_pixels(images.mean, images.std)
    return ClassifierInput(int(images.crop_size[0]), name.startswith(_ONE_SIZE), pixels)


def _torchvision_model(architecture: str, name: str, classes: int | None) -> nn.Module:
    from torchvision import models

    _torchvision_input(architecture, name)
    model: nn.Module = models.get_model(
        name, **({} if classes is None else {"num_classes": classes})
    )
    return model


# --- transformers -------------------------------------------------------------------------------


def transformers_folder(name: str) -> Path:
    """Find the folder of a model of transformers: a folder, or one of the hub's cache."""
    return Path(name) if Path(name).is_dir() else hub_folder(name)


def require_transformers() -> Any:
    """Import transformers, which no extra brings. Raises InputError where it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "package transformers: not installed, and models called transformers:… need it; "
            "pip install transformers"
        ) from error


def transformers_config(name: str) -> Any:
    """Read the configuration of a model of transformers. Raises InputError where there is none."""
    transformers = require_transformers()
    folder = transformers_folder(name)
    if not (folder / TRANSFORMERS_CONFIG).is_file():
        raise InputError(
            f"model.architecture = 'transformers:{name}': {folder} holds no {TRANSFORMERS_CONFIG}; "
            "give the folder that save_pretrained wrote"
        )
    with quiet_transformers(transformers):
        try:
            return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise InputError(
                f"model.architecture = 'transformers:{name}': its {TRANSFORMERS_CONFIG} is of no "
                f"model that the installed transformers has ({str(error).splitlines()[0][:150]})"
            ) from error


def _transformers_input(architecture: str, name: str) -> ClassifierInput:
    config, path = transformers_config(name), transformers_folder(name) / PREPROCESSING
    try:
        images = json.loads(path.read_text(encoding="utf-8"))
        pixels = in_pixels(images["image_mean"], images["image_std"])
        fixed = getattr(config, "image_size", None)
        size = _side(images) if fixed is None else _square(fixed)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"model.architecture = {architecture!r}: {path} does not say how images are scaled "
            "(image_mean, image_std, size); write it with the model's image processor, "
            "save_pretrained"
        ) from error
    return ClassifierInput(size, fixed is not None, pixels)


def _square(size: int | list[int]) -> int:
    """Read the side of a square. Raises ValueError for another rectangle."""
    (side,) = {size} if isinstance(size, int) else set(size)
    return int(side)


def _side(images: dict[str, Any]) -> int:
    """Read the side of the images that a preprocessor gives."""
    size = images.get("crop_size") or images["size"]
    return int(size if isinstance(size, int) else size.get("height") or size["shortest_edge"])


def _transformers_model(architecture: str, name: str, classes: int | None) -> nn.Module:
    config = transformers_config(name)
    if classes is not None:
        config.num_labels = classes
    transformers = require_transformers()
    with quiet_transformers(transformers):
        try:
            model: nn.Module = transformers.AutoModelForImageClassification.from_config(
                config, trust_remote_code=False
            )
        except ValueError as error:
            raise InputError(
                f"model.architecture = {architecture!r}: a {config.model_type} of transformers is "
                "no image classifier; give a folder of a …ForImageClassification"
            ) from error
    return model


@contextmanager
def quiet_transformers(transformers: Any) -> Iterator[None]:
    """Keep progress bars and reports of transformers off the log."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_INPUTS: dict[str, Callable[[str, str], ClassifierInput]] = {
    TIMM: _timm_input,
    TORCHVISION: _torchvision_input,
    TRANSFORMERS: _transformers_input,
}
_MAKERS: dict[str, Callable[[str, str, int | None], nn.Module]] = {
    TIMM: _timm_model,
    TORCHVISION: _torchvision_model,
    TRANSFORMERS: _transformers_model,
}
