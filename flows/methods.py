"""`adamerge methods`: what there is to merge by. Nothing here imports torch or pydantic."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adamerge_core.errors import InputError
from tasks.suite import rules
from tasks.suite.rules import Rule

_WIDTH = 100
_NAMES = 27  # columns of the names, with two before

_IMAGES = "unlabeled test images"


@dataclass(frozen=True)
class _Entry:
    """One method, or what a method is made of."""

    name: str
    summary: str
    source: str
    data: str
    """What it reads beside the models; empty where that is nothing to say."""
    parameters: Mapping[str, Any]
    """Defaults by name."""
    doc: str
    """All there is to read about it."""
    in_a_suite: str = ""
    """An entry of params.yaml, section merge."""


def show(name: str | None) -> int:
    """Prints every method with a line or two; with a name all about that one."""
    groups = _groups()
    if name is None:
        print("\n\n".join(_listed(title, entries) for title, entries in groups.items()))
        print("\nall about one: adamerge methods NAME; how to add one: docs/methods.md")
        return 0
    known = [entry for entries in groups.values() for entry in entries]
    found = [entry for entry in known if entry.name == name]
    if not found:
        names = ", ".join(entry.name for entry in known)
        raise InputError(f"method {name!r}: unknown; known are {names}")
    print("\n\n".join(_described(entry) for entry in found))
    return 0


# --- what there is ------------------------------------------------------------------------------


def _groups() -> dict[str, list[_Entry]]:
    merging = [_of_rule(rule) for rule in rules.merge_rules().values()]
    return {
        "references: rows of every table, no merged models": _references(),
        "merge rules without data": [entry for entry in merging if entry.data == "no data"],
        "merge rules that weigh by data (section statistics of the suite)": [
            entry for entry in merging if entry.data != "no data"
        ],
        "adaptations: learn merging parameters on unlabeled images": _adaptations(),
        "presets: settings of an adaptation by name": _presets(),
        "preprocessings: what an adaptation does to the task vectors first": [
            _of_preprocessing(rule) for rule in rules.preprocessings().values()
        ],
        "objectives: what an adaptation minimises": [
            _of_objective(rule) for rule in rules.objectives().values()
        ],
    }


def _references() -> list[_Entry]:
    texts = {
        "pretrained": "The pretrained model on every task, zero-shot: what merging starts from.",
        "individual": "Each task's own fine-tuned model: K models, the upper reference.",
        "traditional_mtl": "One model trained on the union of the K training sets.",
    }
    data = {"traditional_mtl": "labeled training images of all tasks"}
    return [
        _Entry(name, text, "arXiv 2310.02575, section 4", data.get(name, "no data"), {}, text)
        for name, text in texts.items()
    ]


def _of_rule(rule: Rule) -> _Entry:
    parameters = {key: each.default for key, each in rule.parameters.items()}
    line = f"{rule.name}: {_flow(parameters)}"
    if "scaling" in parameters:
        others = {key: value for key, value in parameters.items() if key != "scaling"}
        line += f"\n{rule.name}_best: {_flow({'scalings': [0.1, 0.3, 1.0], **others})}"
    data = f"{rule.needs} of unlabeled images, per task" if rule.needs else "no data"
    return _Entry(rule.name, rule.summary, rule.source, data, parameters, rule.doc, line)


def _of_preprocessing(rule: Rule) -> _Entry:
    parameters = {key: each.default for key, each in rule.parameters.items()}
    chosen = {**rules.required_of_adaptations(), "start": rule.start}
    if not 0 < rule.start < 1:  # a clamp would keep coefficients from going up
        chosen["clamp"] = "none"
    chosen |= {"preprocessing": rule.name, "preprocessing_parameters": parameters}
    line = f"layer_wise_{rule.name}: {_flow(chosen)}"
    return _Entry(rule.name, rule.summary, rule.source, "", parameters, rule.doc, line)


def _of_objective(rule: Rule) -> _Entry:
    data = {
        "experts": f"{_IMAGES}, the individual models' predictions",
        "labels": "test images with their labels: a reference",
        None: _IMAGES,
    }[rule.needs]
    chosen = {**rules.required_of_adaptations(), "objective": rule.name}
    line = f"layer_wise_{rule.name}: {_flow(chosen)}"
    return _Entry(rule.name, rule.summary, rule.source, data, {}, rule.doc, line)


def _adaptations() -> list[_Entry]:
    paper = "arXiv 2310.02575, section 3.2"
    masks = "Layer-wise coefficients, and which singular components of each layer stay."
    options = {key: each.default for key, each in rules.mask_options().items()}
    keep = rules.preprocessings()["trim_and_elect"].parameters["keep"].default
    return [
        _adaptation("task_wise_adamerging", "One coefficient a task.", paper),
        _adaptation("task_wise_adamerging_pp", "The same over trim_and_elect.", paper, keep=keep),
        _adaptation("layer_wise_adamerging", "One coefficient a layer and task.", paper),
        _adaptation("layer_wise_adamerging_pp", "The same over trim_and_elect.", paper, keep=keep),
        _adaptation("adarank", masks, "arXiv 2503.22178", **rules.presets()["adarank"], **options),
    ]


def _adaptation(name: str, summary: str, source: str, **more: Any) -> _Entry:
    chosen = {**rules.required_of_adaptations(), **more}
    rows = [
        (key, f"{_value(each.default)}. {each.doc}")
        for key, each in rules.adaptation_options().items()
        if key not in chosen
    ]
    doc = "\n".join(
        [
            summary,
            "",
            "Any entry with `steps` or `preset` is an adaptation; task_wise at the beginning of",
            "its name says the granularity. It may have a `preprocessing` with",
            "`preprocessing_parameters`, and with these defaults:",
            "",
            *(_row(key, text) for key, text in rows),
        ]
    )
    return _Entry(name, summary, source, _IMAGES, chosen, doc, f"{name}: {_flow(chosen)}")


def _presets() -> list[_Entry]:
    texts = {
        "paper": ("AdaMerging as published.", "arXiv 2310.02575"),
        "fast": (
            "The experts' labels, many small steps: a fifth of its images.",
            "docs/presets.md",
        ),
        "adarank": ("AdaRank as published for task arithmetic, eight tasks.", "arXiv 2503.22178"),
    }
    return [_preset(name, values, *texts[name]) for name, values in rules.presets().items()]


def _preset(name: str, values: Mapping[str, Any], summary: str, source: str) -> _Entry:
    doc = "\n".join(
        [
            summary,
            "",
            "Its values stand for what an entry with `preset` leaves out; what the entry says",
            "counts. The entry's name is free.",
        ]
    )
    line = f"layer_wise_{name}: {_flow({'preset': name})}"
    return _Entry(name, summary, source, "", values, doc, line)


# --- how it is shown ----------------------------------------------------------------------------


def _listed(title: str, entries: Iterable[_Entry]) -> str:
    lines = [title]
    for entry in entries:
        lines += [_row(entry.name, entry.summary), _row("", _facts(entry))]
    return "\n".join(lines)


def _described(entry: _Entry) -> str:
    parts = [entry.name, _wrapped(_facts(entry)), "", entry.doc]
    if entry.in_a_suite:
        parts += ["", "In params.yaml, section merge:", ""]
        parts += [_wrapped(line, "  ", "    ") for line in entry.in_a_suite.splitlines()]
    return "\n".join(parts)


def _wrapped(text: str, first: str = "", others: str = "") -> str:
    """On lines of at most 100 columns, with these indents."""
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=others))


def _facts(entry: _Entry) -> str:
    parameters = ", ".join(f"{key} = {_value(each)}" for key, each in entry.parameters.items())
    return "; ".join(filter(None, [entry.source, entry.data, parameters]))


def _row(name: str, text: str) -> str:
    """A name and the text beside it, on as many lines as it takes."""
    indent = " " * _NAMES
    return f"  {name}".ljust(_NAMES) + _wrapped(text, indent, indent)[_NAMES:]


def _flow(values: Mapping[str, Any]) -> str:
    """As YAML has a mapping on one line."""
    shown = (
        f"{key}: {_flow(value) if isinstance(value, Mapping) else _value(value)}"
        for key, value in values.items()
    )
    return "{" + ", ".join(shown) + "}"


def _value(value: Any) -> str:
    """As YAML has it; it reads 1e-05 as text."""
    if value is None:
        return "null"
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        return repr(value).replace("e", ".0e")
    return str(value)
