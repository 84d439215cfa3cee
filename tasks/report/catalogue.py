"""How methods are shown: their labels, their colours, and what the paper reports of them.

A method is known by its parts (rule or adaptation, what stands before and after, objective,
choice), not by the free name that a suite gives it.
"""

import csv
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.suite.fields import REFERENCES

if TYPE_CHECKING:
    from tasks.suite.methods import Method

PUBLISHED = Path(__file__).with_name("published_results.csv")
"""Average top-1 accuracies in percent by line of checkpoints, number of tasks, model and method,
each with its source."""

_PAPERS_LINE, _PAPERS_TASKS = "task_vectors", 8

_REFERENCES = {
    "pretrained": ("Zero-shot (pretrained)", "none"),
    "individual": ("Individual models", "none"),
    "traditional_mtl": ("Traditional MTL", "labels of training images"),
}
_OF_CLASSIFIERS = {"pretrained": ("Pretrained encoder, the tasks' heads", "none")}
_RULES = {
    "weight_averaging": "Weight averaging",
    "fisher_merging": "Fisher merging",
    "regmean": "RegMean",
    "task_arithmetic": "Task arithmetic",
    "ties_merging": "Ties-Merging",
    "dare": "DARE",
    "breadcrumbs": "Model Breadcrumbs",
    "consensus": "Consensus (TALL masks)",
    "lines": "LiNeS",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "iso_cts": "Iso-CTS",
    "wudi": "WUDI",
    "published_coefficients": "Published coefficients",
}
_GRANULARITIES = {
    "task_wise": "Task-wise",
    "layer_wise": "Layer-wise",
    "singular_components": "AdaRank",
}
_OBJECTIVES = {"self_labelling": "self-labelling", "cross_entropy": "true labels"}
_BEFORE = {
    "trim_and_elect": "Ties",
    "tsv_decorrelate": "TSV",
    "drop_and_rescale": "DARE",
    "mask_tails": "Model Breadcrumbs",
    "consensus_mask": "Consensus",
    "lines_scaling": "LiNeS",
}
"""Labels of parts; a part that is not here is shown by its name."""

_ENTROPY, _PLUS_PLUS = "entropy", "trim_and_elect"

# of the palettes of Okabe and Ito, and of Tol, which colour-blind readers can tell apart; by rule
# or adaptation, what stands before it, objective
_COLOURS: dict[tuple[str | None, str | None, str | None], str] = {
    ("task_arithmetic", None, None): "#56B4E9",
    ("ties_merging", None, None): "#009E73",
    ("task_wise", None, _ENTROPY): "#E69F00",
    ("task_wise", _PLUS_PLUS, _ENTROPY): "#D55E00",
    ("layer_wise", None, _ENTROPY): "#0072B2",
    ("layer_wise", _PLUS_PLUS, _ENTROPY): "#CC79A7",
    ("layer_wise", None, "self_labelling"): "#882255",
    ("layer_wise", "tsv_decorrelate", _ENTROPY): "#117733",
    ("layer_wise", "tsv_decorrelate", "self_labelling"): "#999933",
    ("layer_wise", None, "cross_entropy"): "#000000",
    ("singular_components", None, _ENTROPY): "#332288",
}
_OTHER_COLOURS = ("#88CCEE", "#DDCC77", "#CC6677", "#AA4499", "#44AA99", "#661100", "#6699CC")


@dataclass(frozen=True)
class Look:
    """How a method is shown."""

    label: str
    data: str
    """What it used beside the fine-tuned models: none, unlabeled images, or labels."""
    reference: bool
    """Whether no merged model competes with it: it merges nothing, or it learned from the true
    labels of test images."""
    colour: str | None
    """The same in every figure; None for a rule that no figure tells apart by colour."""
    paper: str | None
    """Its name in the paper's table."""


def looks(methods: Mapping[str, "Method"], classifier: bool = False) -> dict[str, Look]:
    """Say how the references and these methods are shown, by name.

    classifier: whether the model is one, whose pretrained encoder has no zero-shot heads. Where
    methods are made of the same parts, their labels carry their names too.
    """
    labels = {name: label(method) for name, method in methods.items()}
    shared = Counter(labels.values())
    taken: set[str | None] = set()
    found = {
        name: Look(text, data, reference=True, colour=None, paper=name)
        for name, (text, data) in (_REFERENCES | (_OF_CLASSIFIERS if classifier else {})).items()
    }
    for name, method in methods.items():
        text = labels[name] if shared[labels[name]] == 1 else f"{labels[name]} ({name})"
        colour = _colour(method)
        if method.adapts and (colour is None or colour in taken):
            colour = _OTHER_COLOURS[zlib.crc32(name.encode()) % len(_OTHER_COLOURS)]
        taken.add(colour)
        found[name] = Look(text, method.data, method.supervised, colour, _in_the_paper(method))
    return found


def label(method: "Method") -> str:
    """Name a method for people, by its parts."""
    parts = method.parts
    named = _RULES if parts.rule else _GRANULARITIES
    kind = str(parts.rule or parts.adapt)
    text = named.get(kind, _words(kind))
    pure = parts.objective == _ENTROPY and parts.before in (None, _PLUS_PLUS)
    if pure and parts.adapt in ("task_wise", "layer_wise"):
        text += " AdaMerging++" if parts.before else " AdaMerging"
    else:
        if parts.before:
            text += f" over {_BEFORE.get(parts.before, _words(parts.before))}"
        if parts.objective and parts.objective != _ENTROPY:
            text += f", {_OBJECTIVES.get(parts.objective, _words(parts.objective))}"
    if parts.after:
        text += f", then {_words(parts.after)}"
    if method.choose:
        parameter = _words(method.choose.parameter.rpartition(".")[2])
        by_labels = parts.choose == "accuracy"
        text += f", best {parameter}" if by_labels else f", {parameter} chosen by {parts.choose}"
    return text


@dataclass(frozen=True)
class Published:
    """Figures of one line of checkpoints, model and number of tasks: those of no other stand
    beside them."""

    line: str
    model: str
    tasks: int
    averages: dict[str, float]
    """By method of the paper's table, or by rule."""
    sources: tuple[str, ...]


def published(line: str | None, architecture: str, tasks: int) -> Published:
    """Read what was published of a line of checkpoints; of no line (None) what the paper reports,
    of its model that the architecture is, or its first.
    """
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    models = list(dict.fromkeys(row["model"] for row in rows))
    model = next((name for name in models if architecture.startswith(name)), models[0])
    if line is None:
        line, tasks = _PAPERS_LINE, _PAPERS_TASKS
    found = [r for r in rows if (r["line"], r["model"], int(r["tasks"])) == (line, model, tasks)]
    averages = {row["method"]: float(row["average"]) for row in found}
    return Published(line, model, tasks, averages, tuple({row["source"]: None for row in found}))


def published_label(name: str) -> str:
    """Name a method of a published table for people."""
    if name in REFERENCES:
        return _REFERENCES[name][0]
    if name in _RULES:
        return _RULES[name]
    granularity = "Task-wise" if name.startswith("task_wise") else "Layer-wise"
    return f"{granularity} AdaMerging{'++' if name.endswith('_pp') else ''}"


def is_task_arithmetic(method: "Method") -> bool:
    """Tell whether a method is task arithmetic with a given scaling, the paper's baseline."""
    return method.parts.rule == "task_arithmetic" and _in_the_paper(method) is not None


def is_layer_wise_adamerging(method: "Method") -> bool:
    """Tell whether a method is the paper's layer-wise AdaMerging."""
    return _in_the_paper(method) == "layer_wise_adamerging"


def _colour(method: "Method") -> str | None:
    parts = method.parts
    return _COLOURS.get((parts.rule or parts.adapt, parts.before, parts.objective))


def _in_the_paper(method: "Method") -> str | None:
    """Its name in the paper's table, if it is one of the methods there."""
    parts = method.parts
    if parts.after or parts.choose:
        return None
    if parts.rule:
        return None if parts.before else parts.rule
    if parts.objective != _ENTROPY or parts.before not in (None, _PLUS_PLUS):
        return None
    return f"{parts.adapt}_adamerging{'_pp' if parts.before else ''}"


def _words(name: str) -> str:
    return name.replace("_", " ")
