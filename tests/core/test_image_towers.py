"""Image towers from every format: the same tensors to the bit, or an error that says why."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clip_checkpoints import (
    NAME,
    QUICK,
    SIDE,
    VIT_B_32,
    in_all_formats,
    merged_by_hand,
    refused,
    same,
    save_adapter,
    tower_of,
    whole_clip,
)
from published_pickles import (
    tall_masks_state,
    write,
)
from safetensors.torch import save_file
from torch import Tensor

from adamerge_core.checkpoints.hugging_face import to_hugging_face
from adamerge_core.errors import InputError
from adamerge_core.vision import openai_files
from adamerge_core.vision.checkpoint_formats import FORMATS
from adamerge_core.vision.image_towers import (
    check_different,
    read_image_tower,
    require_text_tower,
)

pytestmark = pytest.mark.usefixtures("tiny")


# --- the same tensors ---


def all_formats_agree(folder: Path, pretrained: dict[str, Tensor], architecture: str) -> None:
    adapter = save_adapter(
        folder / "lora",
        width=len(pretrained["visual.class_embedding"]),
        layers=max(int(n.split(".")[3]) + 1 for n in pretrained if "visual.transformer" in n),
    )
    whole = merged_by_hand(pretrained, adapter)
    paths = in_all_formats(folder, whole) | {"LoRA": folder / "lora"}
    base = tower_of(pretrained)
    towers = {
        name: read_image_tower(path, base, architecture=architecture)
        for name, path in paths.items()
    }
    for name, found in towers.items():
        assert same(found.tensors, tower_of(whole)), name
        assert found.has_projection
        assert found.source == str(paths[name])
    assert len({found.sha256 for found in towers.values()}) == 1
    assert len({found.format for found in towers.values()}) == 6


def test_all_formats_give_the_same_tensors(tmp_path: Path) -> None:
    all_formats_agree(tmp_path, whole_clip(1), QUICK)


@pytest.mark.slow
def test_all_formats_give_the_same_vit_b_32(tmp_path: Path) -> None:
    """In the shapes and counts of the published files: 302 tensors, of which 152 are visual."""
    whole = whole_clip(0, VIT_B_32)
    assert len(whole) == 302
    assert len(tower_of(whole)) == 152
    assert len(tall_masks_state(whole)) == 158
    all_formats_agree(tmp_path, whole, "ViT-B-32-quickgelu")


@pytest.mark.slow
def test_no_file_is_held_twice(tmp_path: Path) -> None:
    """The peak of memory, of a ViT-B/32 in a process of its own, against the file's bytes."""
    whole = whole_clip(0, VIT_B_32)
    tower = {n: t for n, t in tower_of(whole).items() if n != "proj"}
    torch.save(tower_of(whole), tmp_path / "pretrained.pt")
    torch.save(to_hugging_face(tower), tmp_path / "hugging_face.bin")
    paths = in_all_formats(tmp_path, whole) | {"bin": tmp_path / "hugging_face.bin"}
    script = (
        "import sys; from pathlib import Path\n"
        "from adamerge_core import checkpoints\n"
        "from adamerge_core.vision.image_towers import read_image_tower\n"
        "def kilobytes():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(each.split()[1]) for each in lines if each.startswith('VmHWM'))\n"
        "pretrained = checkpoints.load(sys.argv[1])\n"
        "Path('/proc/self/clear_refs').write_text('5'); before = kilobytes()\n"
        "read_image_tower(sys.argv[2], pretrained, architecture='ViT-B-32-quickgelu')\n"
        "print(kilobytes() - before)"
    )
    for name, path in paths.items():
        command = [sys.executable, "-c", script, str(tmp_path / "pretrained.pt"), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        file = path / "model.safetensors" if path.is_dir() else path
        assert int(done.stdout) * 1024 < 1.4 * file.stat().st_size, name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_torch_state_dicts_are_read_whatever_their_names(
    tmp_path: Path, whole: dict[str, Tensor], key: str | None, suffix: str, legacy: bool
) -> None:
    path = tmp_path / f"model{suffix}"
    content = {key: whole, "epoch": 3} if key else whole
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_image_tower(path, architecture=QUICK).tensors, tower_of(whole))


PREFIXES = [
    "",
    "visual.",
    "model.",
    "module.",
    "model.visual.",
    "module.model.visual.",
    "_orig_mod.module.visual.",
    "image_encoder.model.visual.",
    "module._orig_mod.image_encoder.module.model.visual._orig_mod.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_any_nesting_are_taken_off(
    tmp_path: Path, tower: dict[str, Tensor], prefix: str
) -> None:
    save_file({prefix + n: t for n, t in tower.items()}, tmp_path / "model")
    assert same(read_image_tower(tmp_path / "model", architecture=QUICK).tensors, tower)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_a_whole_clip_gives_its_text_tower(
    tmp_path: Path, whole: dict[str, Tensor], prefix: str
) -> None:
    save_file({prefix + n: t for n, t in whole.items()}, tmp_path / "model")
    found = read_image_tower(tmp_path / "model", architecture=QUICK)
    text = {n: t for n, t in whole.items() if not n.startswith("visual.")}
    assert same(require_text_tower(found), text)
    assert found.remarks == ()


def test_names_that_wrappers_make_one_are_refused(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    save_file({**tower, "module.proj": tower["proj"].clone()}, tmp_path / "model")
    refused(tmp_path / "model", "proj", "module.proj", "but for wrappers")


def test_prefixes_without_end_are_no_tower(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    save_file({"model." * 10_000 + n: t for n, t in tower.items()}, tmp_path / "model")
    refused(tmp_path / "model", "no image tower of a CLIP")


def test_compiled_blocks_are_read(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    compiled = {n.replace("resblocks.0.", "resblocks.0._orig_mod."): t for n, t in tower.items()}
    save_file(compiled, tmp_path / "model")
    assert same(read_image_tower(tmp_path / "model", architecture=QUICK).tensors, tower)


def test_a_classification_head_beside_the_encoder_is_left_out_and_said_so(
    tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    state = {f"image_encoder.{n}": t for n, t in tall_masks_state(whole).items()}
    save_file(state | {"classification_head.weight": torch.ones(3, 16)}, tmp_path / "model")
    found = read_image_tower(tmp_path / "model", architecture=QUICK)
    assert same(found.tensors, tower_of(whole))
    assert any("classification_head.weight" in remark for remark in found.remarks)


class Published(torch.nn.Module):
    """Holds tensors by any names, and can be scripted."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *parents, last = name.split(".")
            place: torch.nn.Module = self
            for parent in parents:
                if parent not in dict(place.named_children()):
                    place.add_module(parent, torch.nn.Module())
                place = place.get_submodule(parent)
            place.register_buffer(last, tensor.half() if tensor.is_floating_point() else tensor)

    def forward(self) -> int:
        return 0


def test_openais_archive_is_read_if_openai_published_it(
    tmp_path: Path, whole: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"input_resolution": SIDE, "context_length": 8, "vocab_size": 64}
    published = Published(whole | {name: torch.tensor(n) for name, n in numbers.items()})
    path = tmp_path / "ViT.pt"
    with pytest.warns(FutureWarning):
        torch.jit.script(published).save(str(path))
    refused(path, "none of those that OpenAI published")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    monkeypatch.setattr(openai_files, "_published_sha256", lambda: {digest})
    refused(path, "trained with quick_gelu", architecture=NAME)
    found = read_image_tower(path, architecture=QUICK)
    assert same(found.tensors, {n: t.half().float() for n, t in tower_of(whole).items()})
    assert len(require_text_tower(found)) == len(whole) - len(tower_of(whole))


# --- what does not fit ---


def test_all_that_does_not_fit_is_in_one_error(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    wrong = {name: tensor.clone() for name, tensor in tower.items()}
    wrong["konv1.weight"] = wrong.pop("conv1.weight")
    wrong["ln_post.bias"] = wrong["ln_post.bias"].half()
    wrong["ln_post.weight"][3] = torch.nan
    wrong["class_embedding"][3] = torch.inf
    save_file(wrong, tmp_path / "model")
    for pretrained in (tower, None):
        refused(
            tmp_path / "model",
            "conv1.weight is missing",
            "konv1.weight is extra",
            "ln_post.bias, torch.float16 in place of torch.float32",
            "ln_post.weight has 1 non-finite",
            "class_embedding has 1 non-finite",
            pretrained=pretrained,
        )


def test_half_precision_is_not_mixed_with_full(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in tower.items()}
    save_file(half, tmp_path / "half")
    save_file(tower, tmp_path / "full")
    for path, pretrained in (("half", tower), ("full", half)):
        refused(tmp_path / path, "torch.float16", "in one dtype", pretrained=pretrained)
    assert same(read_image_tower(tmp_path / "half", half, architecture=QUICK).tensors, half)
    assert same(read_image_tower(tmp_path / "half", architecture=QUICK).tensors, half)


def test_the_shapes_say_which_architecture_it_is(tmp_path: Path) -> None:
    with torch.device("meta"):
        large = {
            "conv1.weight": torch.zeros(1024, 3, 14, 14),
            "positional_embedding": torch.zeros(257, 1024),
            "proj": torch.zeros(1024, 768),
            "class_embedding": torch.zeros(1024),
            **{f"transformer.resblocks.{n}.ln_1.bias": torch.zeros(1024) for n in range(24)},
        }
    save_file({n: torch.zeros(t.shape) for n, t in large.items()}, tmp_path / "model")
    for asked in ("ViT-B-32-quickgelu", QUICK):
        refused(tmp_path / "model", "looks like ViT-L-14-quickgelu", architecture=asked)
    refused(tmp_path / "model", "looks like ViT-L-14 or", architecture="ViT-B-32")
    refused(tmp_path / "model", "ViT-B-99", architecture="ViT-B-99")


def test_a_missing_text_tower_is_said(tmp_path: Path, tower: dict[str, Tensor]) -> None:
    save_file(tower, tmp_path / "model")
    with pytest.raises(InputError, match="has no whole text tower"):
        require_text_tower(read_image_tower(tmp_path / "model", architecture=QUICK))


def test_a_text_tower_of_another_architecture_is_left_out(
    tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    save_file(whole | {"text_projection": torch.zeros(3, 3)}, tmp_path / "model")
    found = read_image_tower(tmp_path / "model", architecture=QUICK)
    assert found.text_tower == {}
    assert "shapes are not those" in found.remarks[0]


@pytest.mark.parametrize("content", [b"", b"GIF89a" * 30, b"PK\x03\x04", b"<html>"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(write(tmp_path / "model.safetensors", content), str(tmp_path / "model.safetensors"))


def test_folders_and_paths_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "a folder without a checkpoint", "adapter_config.json")
    refused(tmp_path / "none.pt", "no such file")
    refused("nothing at all", "no such file")


def test_two_tasks_with_the_same_content_are_named(
    tmp_path: Path, whole: dict[str, Tensor]
) -> None:
    torch.save(tower_of(whole), tmp_path / "svhn.pt")
    save_file(whole, tmp_path / "mnist.safetensors")
    save_file(whole_clip(5), tmp_path / "cars.safetensors")
    names = {"mnist": "mnist.safetensors", "cars": "cars.safetensors", "svhn": "svhn.pt"}
    towers = {
        task: read_image_tower(tmp_path / file, architecture=QUICK) for task, file in names.items()
    }
    with pytest.raises(InputError, match=r"mnist and svhn: are the same model") as caught:
        check_different(towers)
    assert "cars" not in str(caught.value)
    del towers["svhn"]
    check_different(towers)


def test_no_file_is_of_two_formats() -> None:
    assert len(FORMATS) == 6
    assert all(each.module.startswith("adamerge_core.vision") for each in FORMATS.values())
