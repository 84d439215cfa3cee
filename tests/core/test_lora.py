"""LoRA adapters against W + (alpha / r) B A written out, and what is not that."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adamerge_core.checkpoints.lora import is_adapter, merge_adapter
from adamerge_core.errors import InputError

RANK, WIDTH = 4, 12
MODULES = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.v_proj")


def write(folder: Path, prefix: str = "base_model.model.", **settings: object) -> dict[str, object]:
    torch.manual_seed(0)
    tensors = {}
    for module in MODULES:
        tensors[f"{prefix}{module}.lora_A.weight"] = torch.randn(RANK, WIDTH)
        tensors[f"{prefix}{module}.lora_B.weight"] = torch.randn(WIDTH, RANK)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "bias": "none"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def base(prefix: str = "") -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    names = [f"{module}.{part}" for module in MODULES for part in ("weight", "bias")]
    return {
        prefix + name: torch.randn((WIDTH, WIDTH) if name.endswith("weight") else (WIDTH,))
        for name in names
    }


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@pytest.mark.parametrize("rslora", [False, True])
def test_it_is_w_plus_b_a(tmp_path: Path, prefix: str, rslora: bool) -> None:
    tensors, pretrained = write(tmp_path, use_rslora=rslora), base(prefix)
    assert is_adapter(tmp_path)
    merged = merge_adapter(pretrained, tmp_path)
    factor = 32 / RANK**0.5 if rslora else 32 / RANK
    for module in MODULES:
        down, up = (tensors[f"base_model.model.{module}.lora_{x}.weight"].double() for x in "AB")
        expected = pretrained[f"{prefix}{module}.weight"].double() + factor * up @ down
        assert torch.equal(merged[f"{prefix}{module}.weight"], expected.float())
        name = f"{prefix}{module}.bias"
        assert torch.equal(merged[name], pretrained[name])


def test_what_is_another_computation_is_refused(tmp_path: Path) -> None:
    write(tmp_path, use_dora=True, bias="all", peft_type="IA3", lora_alpha=None)
    with pytest.raises(InputError) as caught:
        merge_adapter(base(), tmp_path)
    for fault in ("use_dora = True", "bias = 'all'", "peft_type = 'IA3'", "lora_alpha: is missing"):
        assert fault in str(caught.value)


def test_tensors_that_fit_nothing_are_listed(tmp_path: Path) -> None:
    write(tmp_path)
    pretrained = base()
    del pretrained[f"{MODULES[0]}.weight"]
    pretrained[f"{MODULES[1]}.weight"] = torch.zeros(WIDTH, WIDTH + 1)
    with pytest.raises(InputError) as caught:
        merge_adapter(pretrained, tmp_path)
    assert f"{MODULES[0]}.lora_A.weight: fits no weight" in str(caught.value)
    assert f"(12, 4) times (4, 12) is not {MODULES[1]}.weight, (12, 13)" in str(caught.value)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="no adapter's configuration"):
        merge_adapter(base(), tmp_path)
