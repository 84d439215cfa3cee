"""Whole classifiers, encoder and head, in their library's own names and folders."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError
from adamerge_core.vision.architectures import TIMM, TRANSFORMERS, split_name
from adamerge_core.vision.classifier_architectures import (
    PREPROCESSING,
    create_classifier,
    quiet_transformers,
    require_transformers,
    transformers_folder,
)
from adamerge_core.vision.classifiers import classifier_name
from adamerge_core.vision.task_heads import TaskHead


def whole_classifier(
    architecture: str, encoder: Mapping[str, Tensor], head: TaskHead
) -> dict[str, Tensor]:
    """Put an encoder and a head together: the state dict of a classifier, in its own names.

    Raises InputError where the model's classifier has no bias and the head has one.
    """
    return dict(_loaded(architecture, encoder, head).state_dict())


def _loaded(architecture: str, encoder: Mapping[str, Tensor], head: TaskHead) -> nn.Module:
    model = create_classifier(architecture, len(head.weight))
    name = classifier_name(model)
    state = {**encoder, f"{name}.weight": head.weight}
    if f"{name}.bias" in model.state_dict():
        state[f"{name}.bias"] = head.weight.new_zeros(len(head.weight))
        if head.bias is not None:
            state[f"{name}.bias"] = head.bias
    elif head.bias is not None and head.bias.any():
        raise InputError(
            f"{architecture}: its classifier has no bias, and the head ({head.source}) has one; "
            "give a head without"
        )
    state = {key: tensor.cpu() for key, tensor in state.items()}
    checkpoints.check_same_architecture(model.state_dict(), {"the merged model": state})
    model.load_state_dict(state)
    return model.eval()


def save_classifier(
    path: Path,
    architecture: str,
    encoder: Mapping[str, Tensor],
    head: TaskHead,
    stated: Mapping[str, str],
) -> None:
    """Write a whole classifier to a safetensors file, with its class names; stated: more metadata.

    read_image_tower reads it, and so does load_state_dict of the library's model.
    """
    tensors = whole_classifier(architecture, encoder, head)
    checkpoints.save(path, tensors, {**stated, **head.metadata()})


def export_classifier(
    folder: Path, architecture: str, encoder: Mapping[str, Tensor], head: TaskHead
) -> None:
    """Write a folder that the classifier's library opens.

    timm: create_model("local-dir:FOLDER", pretrained=True). transformers: from_pretrained(FOLDER).
    torchvision has no folders: model.safetensors is for load_state_dict of
    get_model(NAME, num_classes=N).
    """
    library, name = split_name(architecture) or ("", "")
    if library == TIMM:
        from timm.models import save_for_hf

        labels = {"label_names": list(head.classes.names)}
        model = _loaded(architecture, encoder, head)
        save_for_hf(model, str(folder), model_config=labels, safe_serialization=True)
    elif library == TRANSFORMERS:
        _export_transformers(folder, name, _loaded(architecture, encoder, head), head)
    else:
        stated = {"architecture": architecture}
        save_classifier(folder / "model.safetensors", architecture, encoder, head, stated)


def _export_transformers(folder: Path, name: str, model: nn.Module, head: TaskHead) -> None:
    names = head.classes.names
    model.config.id2label = dict(enumerate(names))  # type: ignore[union-attr]
    model.config.label2id = {label: number for number, label in enumerate(names)}  # type: ignore[union-attr]
    with quiet_transformers(require_transformers()):
        model.save_pretrained(folder)  # type: ignore[operator]
    scaling = (transformers_folder(name) / PREPROCESSING).read_bytes()
    (folder / PREPROCESSING).write_bytes(scaling)
