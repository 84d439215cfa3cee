"""The arguments of `adamerge merge`, `evaluate`, `inspect`, `convert` and `finetune`.

What they call is imported when it is called.
"""

import argparse
from collections.abc import Callable
from typing import Any

_Adder = Callable[..., argparse.ArgumentParser]

_SOURCES = """\
A checkpoint is a path, or the name of a model of the Hugging Face hub: then it is read from the
hub's cache, and fetched only where HF_HUB_OFFLINE=0 is set. No suite and no project is needed."""

_MERGE = f"""\
Merges models that were fine-tuned from one pretrained model. --method is a merge rule (`adamerge
methods`), or task_wise, layer_wise or singular_components (AdaRank): learned on the unlabeled
images of --images. --choose tries several values of a parameter, and keeps the best by the
criterion --by on these images.
{_SOURCES}

--out becomes a folder with the image tower, the heads, a model card, what open_clip and
transformers open (of a classifier, what its library opens, a folder a task), and the coefficients.
A classifier's checkpoint brings its own head. A folder of images <class>/<image> has labels, and
the result is measured on it; other folders do not. Interrupted work is in OUT.partial, and the same
command goes on from it.

  adamerge merge --model ViT-B-32-quickgelu --pretrained openai \\
    --finetuned mnist=mnist.safetensors svhn=svhn.safetensors --classes mnist=mnist svhn=svhn \\
    --method task_arithmetic --set scaling=0.4 --out merged
  adamerge merge --model efficientnet_lite0_clip --pretrained imagenet \\
    --finetuned signs=signs.safetensors mnist=mnist.safetensors \\
    --images signs=images/signs/test mnist=images/mnist/test \\
    --method layer_wise --set preset=fast --out merged --dry-run"""

_EVALUATE = f"""\
Top-1 accuracy of a checkpoint on folders of images <class>/<image>, by task, and the average.
{_SOURCES}

CHECKPOINT may be the folder that `adamerge merge` wrote, which has its heads. Of others give
--heads, or --classes (names of classes, for a zero-shot head) with the text tower of --pretrained;
without either the names of the folders are those of the classes.

  adamerge evaluate merged --images signs=images/signs/test mnist=images/mnist/test
  adamerge evaluate mnist.safetensors --images mnist=images/mnist/test \\
    --heads mnist=mnist.head.safetensors"""

_INSPECT = f"""\
Says of each checkpoint what it is: format, size, dtypes, text tower, whether all is finite. With
--pretrained: whether it fits that model, the length of its task vector, and the cosines between
task vectors.
{_SOURCES}

  adamerge inspect mnist.safetensors signs.safetensors --pretrained imagenet"""

_CONVERT = f"""\
Writes a checkpoint as a folder that open_clip opens (a whole CLIP), a folder that transformers
opens (a ViT's image tower), or a safetensors file in open_clip's names (an image tower). A
classifier is written whole: as a folder for its library, or a file in its own names.
{_SOURCES}

  adamerge convert openai/clip-vit-base-patch32 --model ViT-B-32-quickgelu --to open_clip --out b32
  adamerge convert mnist.pt --model ViT-B-32-quickgelu --to safetensors --out mnist.safetensors"""

_FINETUNE = f"""\
Fine-tunes the image tower on a folder of images <class>/<image>, under a frozen head, and prints
the accuracy on images held out. {_SOURCES}

The head is zero-shot, of the class names, where the pretrained model has a text tower; else
linear: fitted on the pretrained features before the tower is trained. It is written beside OUT,
as NAME.head.safetensors, where `adamerge merge` finds it; a classifier's file has it in it.

  adamerge finetune --model efficientnet_lite0_clip --pretrained imagenet \\
    --images images/signs/train --out signs.safetensors
  adamerge finetune --model ViT-B-32-quickgelu --pretrained openai --images cars/train \\
    --classes stanford_cars --set steps=2000 --out cars.safetensors --dry-run"""


def add_model_commands(commands: Any, add: _Adder) -> None:
    """Add the commands that need no suite to those of `adamerge`; `add` adds one, as flows.cli."""
    _merge(commands, add)
    _evaluate(commands, add)
    _inspect(commands, add)
    _convert(commands, add)
    _finetune(commands, add)


def _merge(commands: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.merge import merge

        return merge(options)

    short = "merge checkpoints of yours, without a suite"
    parser = add(commands, "merge", short, _MERGE, call, in_project=False)
    _add_model(parser, required=True)
    _by_task(parser, "finetuned", "CHECKPOINT", "the fine-tuned models", required=True)
    _by_task(parser, "images", "DIR", "folders of unlabeled images")
    _add_heads(parser)
    parser.add_argument(
        "--head",
        default="own",
        metavar="KIND",
        help="own (the default): one a task; shared: one for all; average: the mean of theirs",
    )
    parser.add_argument("--method", required=True, metavar="NAME", help="rule or adaptation")
    _add_settings(parser, "a parameter of the method, as scaling=0.4, steps=100 or preset=fast")
    parser.add_argument(
        "--choose", metavar="NAME=VALUES", help="a parameter's values to try, as scaling=0.1,0.3"
    )
    parser.add_argument(
        "--by",
        metavar="CRITERION",
        help="what --choose goes by on --images: entropy, agreement, or accuracy of their labels",
    )
    _add_run(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")


def _evaluate(commands: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.evaluate import evaluate

        return evaluate(options)

    short = "measure a checkpoint on folders of images"
    parser = add(commands, "evaluate", short, _EVALUATE, call, in_project=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    _add_model(parser)
    _by_task(parser, "images", "DIR", "folders <class>/<image>", required=True)
    _add_heads(parser)
    _add_device(parser)
    _add_dry_run(parser)


def _inspect(commands: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.checkpoints import inspect

        return inspect(options)

    short = "say what checkpoints are, and how they compare"
    parser = add(commands, "inspect", short, _INSPECT, call, in_project=False)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    _add_model(parser)
    _add_dry_run(parser)


def _convert(commands: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.checkpoints import convert

        return convert(options)

    short = "write a checkpoint in another form"
    parser = add(commands, "convert", short, _CONVERT, call, in_project=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    _add_model(parser)
    parser.add_argument(
        "--to",
        required=True,
        metavar="FORM",
        help="open_clip, transformers, timm, torchvision or safetensors",
    )
    parser.add_argument("--out", required=True, metavar="PATH", help="a new folder or file")
    _add_dry_run(parser)


def _finetune(commands: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.finetune import finetune

        return finetune(options)

    short = "fine-tune the pretrained model on a folder of images"
    parser = add(commands, "finetune", short, _FINETUNE, call, in_project=False)
    _add_model(parser, required=True)
    parser.add_argument("--images", required=True, metavar="DIR", help="a folder <class>/<image>")
    parser.add_argument("--classes", metavar="FILE", help="class names; default: the folders'")
    parser.add_argument("--templates", metavar="FILE", help="prompts, one a line, with {} in each")
    parser.add_argument(
        "--head", default="auto", metavar="KIND", help="zero_shot, linear or auto (the default)"
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of each class, measured on and not trained on; default: %(default)s",
    )
    _add_settings(parser, "steps, batch_size, learning_rate, warmup_steps, weight_decay, …")
    _add_run(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="a new .safetensors file")


# --- what they share ----------------------------------------------------------------------------


def _add_model(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    stated = "" if required else "; default: what the checkpoint states"
    parser.add_argument(
        "--model",
        required=required,
        metavar="ARCH",
        help="one of open_clip's, efficientnet_lite0_clip, or a classifier: timm:NAME, "
        f"torchvision:NAME, transformers:FOLDER{stated}",
    )
    parser.add_argument(
        "--pretrained",
        required=required,
        metavar="P",
        help="a checkpoint, a tag of open_clip's (openai), or imagenet",
    )


def _by_task(
    parser: argparse.ArgumentParser, name: str, what: str, about: str, *, required: bool = False
) -> None:
    parser.add_argument(
        f"--{name}",
        nargs="+",
        action="extend",
        default=[],
        required=required,
        metavar=f"TASK={what}",
        help=about,
    )


def _add_heads(parser: argparse.ArgumentParser) -> None:
    _by_task(parser, "heads", "FILE", "heads; default: CHECKPOINT's NAME.head.safetensors")
    _by_task(
        parser, "classes", "FILE", "class names, one a line, or a name of `adamerge data list`"
    )
    _by_task(parser, "templates", "FILE", "prompts, one a line, with {} for the class name")


def _add_settings(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=about
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    _add_device(parser)
    _add_dry_run(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", metavar="D", help="cpu, cuda, or auto (the default)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of a CPU; fewer where others are at work on it"
    )


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, say what is read and written, memory and time; write nothing",
    )
