"""What the pickled modules that the field published are made of, as `module name`.

The encoders of task_vectors name 28 globals: these and, of every state dict, set, OrderedDict,
FloatStorage and the two functions that rebuild tensors and parameters. Read off the pickles'
listings; the classes are not looked up, and most of them exist no more.
"""

_MODULES = {
    "src.modeling": ("ImageEncoder",),
    "open_clip.model": (
        "CLIP",
        "VisualTransformer",
        "Transformer",
        "ResidualAttentionBlock",
        "LayerNorm",
        "QuickGELU",
    ),
    "open_clip.transform": ("_convert_to_rgb",),
    "torch.nn.modules.activation": ("MultiheadAttention",),
    "torch.nn.modules.container": ("ModuleList", "Sequential"),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.linear": ("Identity", "Linear", "NonDynamicallyQuantizableLinear"),
    "torch.nn.modules.sparse": ("Embedding",),
    "torchvision.transforms.functional": ("InterpolationMode",),
    "torchvision.transforms.transforms": (
        "Compose",
        "Resize",
        "CenterCrop",
        "RandomResizedCrop",
        "ToTensor",
        "Normalize",
    ),
}

HEADS = frozenset({"src.modeling ClassificationHead", "src.models.modeling ClassificationHead"})
"""The classification heads of task_vectors, and of tall_masks."""

QUICK_GELU = "open_clip.model QuickGELU"

PUBLISHED_CLASSES = HEADS | {
    f"{module} {name}" for module, names in _MODULES.items() for name in names
}
"""All that a published module may name beyond a state dict's."""
