"""Files in the form of task_vectors' and tall_masks' published ones, around any tensors.

Their classes exist no more: stand-ins of the same names and places are made for the time of the
dump, so that the pickles name what the published ones name, the 28 globals, and no other.
"""

import io
import pickle
import pickletools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode

GLOBALS = frozenset(
    {
        "__builtin__.set",
        "collections.OrderedDict",
        "torch.FloatStorage",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "src.modeling.ImageEncoder",
        "open_clip.model.CLIP",
        "open_clip.model.VisualTransformer",
        "open_clip.model.Transformer",
        "open_clip.model.ResidualAttentionBlock",
        "open_clip.model.LayerNorm",
        "open_clip.model.QuickGELU",
        "open_clip.transform._convert_to_rgb",
        "torch.nn.modules.activation.MultiheadAttention",
        "torch.nn.modules.container.ModuleList",
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.linear.Identity",
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.linear.NonDynamicallyQuantizableLinear",
        "torch.nn.modules.sparse.Embedding",
        "torchvision.transforms.functional.InterpolationMode",
        "torchvision.transforms.transforms.Compose",
        "torchvision.transforms.transforms.Resize",
        "torchvision.transforms.transforms.CenterCrop",
        "torchvision.transforms.transforms.RandomResizedCrop",
        "torchvision.transforms.transforms.ToTensor",
        "torchvision.transforms.transforms.Normalize",
    }
)
"""That the published encoders name, as the scanner of the hub lists them."""

SIX = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
)
"""Tensors of the text tower that the encoders kept."""


def encoder_pickle(whole: Mapping[str, Tensor], *, plain: int | None = None) -> bytes:
    """Pickle a CLIP's image tower, and the six, as task_vectors' ImageEncoder.

    whole: a CLIP's state dict. plain: the protocol of pickle.dump, in place of torch.save.
    """
    with stand_ins() as made:
        return _dumped(_encoder(made, whole), plain)


def head_pickle(
    weight: Tensor, module: str = "src.modeling", *, plain: int | None = None, **attributes: Any
) -> bytes:
    """Pickle a ClassificationHead with a bias of zeros."""
    with stand_ins() as made:
        head = made[f"{module}.ClassificationHead"](weight.shape[1], len(weight))
        head.weight = nn.Parameter(weight)
        head.bias = nn.Parameter(torch.zeros(len(weight)))
        head.normalize = True
        vars(head).update(attributes)
        return _dumped(head, plain)


def tall_masks_state(whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as tall_masks' plain state dicts do."""
    return {f"model.{name}": whole[name] for name in _kept(whole)}


def names_of(pickled: bytes) -> set[str]:
    """List what a pickle of protocol 2 names."""
    return {
        argument.replace(" ", ".")
        for opcode, argument, _ in pickletools.genops(pickled)
        if opcode.name == "GLOBAL"
    }


def _kept(whole: Mapping[str, Tensor]) -> list[str]:
    visual = [name for name in whole if name.startswith("visual.")]
    return [*SIX[:3], *visual, *SIX[3:]]


def _dumped(module: nn.Module, protocol: int | None) -> bytes:
    buffer = io.BytesIO()
    if protocol is None:
        torch.save(module, buffer)
    else:
        pickle.dump(module, buffer, protocol)
    return buffer.getvalue()


@contextmanager
def stand_ins() -> Iterator[dict[str, Any]]:
    """Put classes of these names where pickle looks for them."""
    places: dict[str, dict[str, Any]] = {
        "src": {},
        "src.models": {},
        "src.modeling": {"ImageEncoder": nn.Module, "ClassificationHead": nn.Linear},
        "src.models.modeling": {"ClassificationHead": nn.Linear},
        "open_clip": {},
        "open_clip.model": {
            "CLIP": nn.Module,
            "VisualTransformer": nn.Module,
            "Transformer": nn.Module,
            "ResidualAttentionBlock": nn.Module,
            "LayerNorm": nn.LayerNorm,
            "QuickGELU": nn.Module,
        },
        "open_clip.transform": {},
    }
    modules, made = {}, {}
    for place, classes in places.items():
        modules[place] = ModuleType(place)
        for name, base in classes.items():
            made[f"{place}.{name}"] = type(name, (base,), {"__module__": place})
            setattr(modules[place], name, made[f"{place}.{name}"])

    def _convert_to_rgb(image: Any) -> Any:
        return image

    _convert_to_rgb.__module__, _convert_to_rgb.__qualname__ = (
        "open_clip.transform",
        "_convert_to_rgb",
    )
    modules["open_clip.transform"]._convert_to_rgb = _convert_to_rgb  # type: ignore[attr-defined]
    made["open_clip.transform._convert_to_rgb"] = _convert_to_rgb
    with patch.dict(sys.modules, modules):
        yield made


def _encoder(made: Mapping[str, Any], whole: Mapping[str, Tensor]) -> nn.Module:
    def module(name: str, *arguments: Any) -> Any:
        return made[f"open_clip.model.{name}"](*arguments)

    width = len(whole["visual.proj"])
    clip, visual, transformer = module("CLIP"), module("VisualTransformer"), module("Transformer")
    blocks = {n.split(".")[3] for n in whole if n.startswith("visual.transformer.resblocks.")}
    transformer.resblocks = nn.ModuleList()
    for _ in blocks:
        block = module("ResidualAttentionBlock")
        block.ln_1, block.ln_2 = module("LayerNorm", width), module("LayerNorm", width)
        block.attn = nn.MultiheadAttention(width, 1)
        block.ln_attn = nn.Identity()
        block.mlp = nn.Sequential()
        block.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        block.mlp.add_module("gelu", module("QuickGELU"))
        block.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        transformer.resblocks.append(block)
    kernel = whole["visual.conv1.weight"].shape
    visual.conv1 = nn.Conv2d(3, width, kernel[2], stride=kernel[2], bias=False)
    for name in ("class_embedding", "positional_embedding", "proj"):
        setattr(visual, name, nn.Parameter(torch.empty(whole[f"visual.{name}"].shape)))
    visual.ln_pre, visual.ln_post = module("LayerNorm", width), module("LayerNorm", width)
    visual.transformer = transformer
    clip.visual = visual
    for name in SIX[:3]:
        setattr(clip, name, nn.Parameter(torch.empty(whole[name].shape)))
    clip.token_embedding = nn.Embedding(*whole["token_embedding.weight"].shape)
    clip.ln_final = module("LayerNorm", len(whole["ln_final.weight"]))
    clip.register_buffer("attn_mask", torch.zeros(3, 3), persistent=False)
    clip.load_state_dict({name: whole[name] for name in _kept(whole)})
    encoder = made["src.modeling.ImageEncoder"]()
    encoder.model = clip
    encoder.train_preprocess = _preprocess(
        made, transforms.RandomResizedCrop(224, (0.9, 1.0), interpolation=_BICUBIC)
    )
    encoder.val_preprocess = _preprocess(
        made, transforms.Resize(224, interpolation=_BICUBIC), transforms.CenterCrop(224)
    )
    encoder.cache_dir = None
    return encoder


_BICUBIC = InterpolationMode.BICUBIC


def _preprocess(made: Mapping[str, Any], *first: Any) -> transforms.Compose:
    normalize = transforms.Normalize((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    to_rgb = made["open_clip.transform._convert_to_rgb"]
    return transforms.Compose([*first, to_rgb, transforms.ToTensor(), normalize])


def write(path: Path, content: bytes) -> Path:
    """Write a file, and give its path."""
    path.write_bytes(content)
    return path
