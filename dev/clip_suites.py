"""`python -m dev.clip_suites` writes suites/clip-vit-*.yaml: the paper's setting, three models.

Of each with 8, 14 and 20 tasks, and three kinds of fine-tuned models.

Hyperparameters of fine-tuning: arXiv 2212.04089, appendix B (2,000 steps, batch 128, AdamW, 1e-5,
cosine with 200 steps of warm-up, weight decay 0.1). Of adaptation: arXiv 2310.02575 and its code.
"""

import sys
from pathlib import Path

from adamerge_core.atomic import atomic_write
from adamerge_core.vision.corruptions import CORRUPTIONS

SUITES = Path(__file__).parent.parent / "suites"

MODELS = {
    "b-32": ("ViT-B-32", "base-patch32"),
    "b-16": ("ViT-B-16", "base-patch16"),
    "l-14": ("ViT-L-14", "large-patch14"),
}
"""By the ending of the name: the architecture, and FusionBench's name of it."""

TASKS = {  # of the catalogue: FusionBench's name of the model, the TALL line's of the folder
    "sun397": ("sun397", "SUN397"),
    "stanford_cars": ("stanford-cars", "Cars"),
    "resisc45": ("resisc45", "RESISC45"),
    "eurosat": ("eurosat", "EuroSAT"),
    "svhn": ("svhn", "SVHN"),
    "gtsrb": ("gtsrb", "GTSRB"),
    "mnist": ("mnist", "MNIST"),
    "dtd": ("dtd", "DTD"),
    "oxford_flowers102": ("oxford_flowers102", "Flowers102"),
    "pcam": ("pcam", "PCAM"),
    "fer2013": ("fer2013", "FER2013"),
    "oxford_iiit_pet": ("oxford-iiit-pet", "OxfordIIITPet"),
    "stl10": ("stl10", "STL10"),
    "cifar100": ("cifar100", "CIFAR100"),
    "cifar10": ("cifar10", "CIFAR10"),
    "food101": ("food101", "Food101"),
    "fashion_mnist": ("fashion_mnist", "FashionMNIST"),
    "emnist": ("emnist_letters", "EMNIST"),
    "kmnist": ("kmnist", "KMNIST"),
    "rendered_sst2": ("rendered-sst2", "RenderedSST2"),
}
COUNTS = (8, 14, 20)
KINDS = ("finetune", "fusionbench", "local")

_TALL_NAMES = (  # data sets whose class names are others in the TALL line
    *("oxford_flowers102", "oxford_iiit_pet", "cifar100", "food101", "fashion_mnist", "kmnist"),
)


def main() -> int:
    """Write every suite's file."""
    for name, text in suites().items():
        with atomic_write(SUITES / f"{name}.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def suites() -> dict[str, str]:
    """Make the text of each suite's file, by the suite's name."""
    return {
        f"clip-vit-{ending}-{count}-{kind}": suite(ending, count, kind)
        for ending in MODELS
        for count in COUNTS
        for kind in KINDS
    }


def suite(ending: str, count: int, kind: str) -> str:
    """Make the text of one suite's file."""
    tasks = list(TASKS)[:count]
    line = _line(count, kind)
    return "\n".join(
        [
            *_heading(ending, count, kind),
            f"suite: clip-vit-{ending}-{count}-{kind}",
            "seeds: [0]",
            "",
            *_COMPUTE,
            f"tasks: [{', '.join(tasks)}]",
            "",
            "datasets:",
            *(f"  {task}: {_dataset(task, line, kind)}" for task in tasks),
            "",
            *_DATA,
            *_model(ending, line),
            *(_FINETUNE if kind == "finetune" else _checkpoints(ending, tasks, line)),
            *_methods(ending, line, count),
            "",
        ]
    )


def _line(count: int, kind: str) -> str:
    if kind == "local":
        return "task_vectors" if count == 8 else "tall"
    return {"finetune": "own", "fusionbench": "fusionbench"}[kind]


def _heading(ending: str, count: int, kind: str) -> list[str]:
    architecture = MODELS[ending][0]
    said = {
        "finetune": ["fine-tuned here."],
        "fusionbench": ["FusionBench's fine-tuned models, from the hub."],
        "local": [
            "fine-tuned models from a local folder: put the files that",
            "task_vectors (8 tasks) or tall_masks (14 and 20) published below checkpoints/.",
        ],
    }[kind]
    lines = [f"CLIP {architecture} with OpenAI's weights, {count} tasks, {said[0]}", *said[1:]]
    return [*(f"# {line}" for line in lines), "# Written by `python -m dev.clip_suites`.", ""]


def _dataset(task: str, line: str, kind: str) -> str:
    only = "" if kind == "finetune" else ", test_only: true"
    if task == "emnist" and line == "tall":  # of this line the digits, which no hub is known for
        return f"{{source: local_copy, dataset: emnist_digits, path: torchvision{only}}}"
    named = {"emnist": "emnist_letters"}.get(task, task)
    names = ", line: tall" if line == "tall" and task in _TALL_NAMES else ""
    return f"{{source: hub, dataset: {named}{names}{only}}}"


def _methods(ending: str, line: str, count: int) -> list[str]:
    """With the authors' own coefficients where these are of the suite's models."""
    if (line, count) != ("task_vectors", 8):
        return _METHODS
    model = MODELS[ending][0]
    published = [
        f"  published_{kind}_wise: {{rule: published_coefficients, model: {model}, "
        f"learned: {kind}_wise_adamerging}}"
        for kind in (("task", "layer") if model != "ViT-L-14" else ("layer",))
    ]
    last = next(n for n, text in enumerate(_METHODS) if text.startswith("evaluate:")) - 1
    return [*_METHODS[:last], *published, *_METHODS[last:]]


def _model(ending: str, line: str) -> list[str]:
    return [
        "model:",
        f"  name: clip-vit-{ending}-{line.replace('_', '-')}   # its folder holds one line",
        f"  architecture: {MODELS[ending][0]}-quickgelu   # OpenAI's weights need QuickGELU",
        "  weights: {tag: openai}",
        "",
    ]


def _checkpoints(ending: str, tasks: list[str], line: str) -> list[str]:
    entries = [f"    {task}: {_checkpoint(ending, task, line)}" for task in tasks]
    # FER2013's rows stand in another order in this line's head, which its model was trained against
    heads = f"{{fer2013: {{file: {_tall(ending)}/head_FER2013Val.pt}}}}"
    return [
        "checkpoints:",
        f"  line: {line}",
        "  finetuned:",
        *entries,
        f"  heads: {heads if line == 'tall' and 'fer2013' in tasks else '{}'}",
        "",
    ]


def _checkpoint(ending: str, task: str, line: str) -> str:
    published, folder = TASKS[task]
    architecture, patch = MODELS[ending]
    if line == "fusionbench":
        return f"{{hub: tanganke/clip-vit-{patch}_{published}, revision: main}}"
    if line == "task_vectors":
        return f"{{file: checkpoints/{architecture}/{folder}/finetuned.pt}}"
    return f"{{file: {_tall(ending)}/{folder}Val/nonlinear_finetuned.pt}}"


def _tall(ending: str) -> str:
    """The folder of a model; that of B/16 is spelled so."""
    architecture = MODELS[ending][0]
    return f"checkpoints/single_task/{'VIT-B-16' if architecture == 'ViT-B-16' else architecture}"


_COMPUTE = """\
compute:
  device: cuda
  threads: 8
  micro_batch: 16
  precision: float32             # docs/pipeline.md says what the others gain and change

""".splitlines()

_CORRUPTIONS = "\n".join(f"    - {name}" for name in CORRUPTIONS)

_DATA = """\
prepare:
  image_size: 224
  unreadable: fail

corrupt:
  tasks: [stanford_cars, eurosat, resisc45, gtsrb]
  corruptions:
{CORRUPTIONS}
  severities: [5]
  images: 2000
  seed: 0

""".replace("{CORRUPTIONS}", _CORRUPTIONS).splitlines()

_FINETUNE = """\
finetune:                        # arXiv 2212.04089, appendix B
  steps: 2000
  batch_size: 128
  learning_rate: 1.0e-5
  warmup_steps: 200
  weight_decay: 0.1
  gradient_clip: 1.0

""".splitlines()

_METHODS = """\
methods:
  weight_averaging: {rule: weight_averaging}
  task_arithmetic: {rule: task_arithmetic, scaling: 0.3}
  ties_merging: {rule: ties_merging, scaling: 0.3, keep: 0.2}
  tsv_m: {rule: tsv_m}
  iso_cts: {rule: iso_cts}
  task_wise_adamerging: {adapt: task_wise}
  task_wise_adamerging_pp: {adapt: task_wise, before: {name: trim_and_elect, keep: 0.2}}
  layer_wise_adamerging: {adapt: layer_wise}
  layer_wise_adamerging_pp: {adapt: layer_wise, before: {name: trim_and_elect, keep: 0.2}}

evaluate:
  held_out_fraction: 0.5
  trajectory_images: 500
  trajectory_points: 11

registry:                        # docs/pipeline.md, "The registry"
  average_tolerance: 0.2
  task_tolerance: 1.0

robustness:
  corruptions:
    - clean
{CORRUPTIONS}
  severity: 5
  methods:
    task_arithmetic: {rule: task_arithmetic, scaling: 0.3}
    layer_wise_adamerging: {adapt: layer_wise}
""".replace("{CORRUPTIONS}", _CORRUPTIONS).splitlines()
"""Adaptations take the published settings, which are the defaults."""


if __name__ == "__main__":
    sys.exit(main())
