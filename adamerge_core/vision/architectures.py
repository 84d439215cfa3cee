"""Plain tables of the CLIP models that can be made; to read them takes no torch."""

from typing import Any

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "efficientnet_lite0_clip": {
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": {"context_length": 24, "width": 128, "heads": 4, "layers": 2},
    },
}
"""open_clip model configurations by name."""

PIXEL_SCALING: dict[str, tuple[float, float]] = {"efficientnet_lite0_clip": (127.0, 128.0)}
"""By architecture (mean, divisor): the tower sees (pixel - mean) / divisor, pixels in 0 to 255."""
