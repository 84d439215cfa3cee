"""What is known of any model by the name of its architecture, a CLIP's or a classifier's."""

from adamerge_core.vision.architectures import ARCHITECTURES, configuration, is_classifier
from adamerge_core.vision.classifier_architectures import classifier_input, classifier_width


def check_architecture(architecture: str) -> None:
    """Raise InputError for an unknown architecture, with those of a similar name."""
    if is_classifier(architecture):
        classifier_input(architecture)
    else:
        configuration(architecture)


def image_size(architecture: str) -> int | None:
    """Return the pixels of a side of the images that a model takes; None for one that takes any, as
    this project's own do. Raises InputError for an unknown architecture.
    """
    if is_classifier(architecture):
        found = classifier_input(architecture)
        return found.size if found.fixed else None
    return None if architecture in ARCHITECTURES else input_size(architecture)


def input_size(architecture: str) -> int:
    """Return the side of the images that the architecture is made for, in pixels.

    Raises InputError for an unknown architecture.
    """
    if is_classifier(architecture):
        return classifier_input(architecture).size
    return int(configuration(architecture)["vision_cfg"]["image_size"])


def feature_width(architecture: str) -> int:
    """Return D, how many features the image encoder of an architecture gives.

    Raises InputError for an unknown architecture.
    """
    if is_classifier(architecture):
        return classifier_width(architecture)
    return int(configuration(architecture)["embed_dim"])
