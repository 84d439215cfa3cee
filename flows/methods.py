"""`adamerge methods`: what methods are made of, as the core's registries have it."""

import inspect
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adamerge_core import parameters
from adamerge_core.adamerging.adarank import SingularMasks
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.settings import PRESETS, AdaptationSettings
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import AFTER, BEFORE, CRITERIA, RULES, Entry
from adamerge_core.parameters import Parameter

_WIDTH = 100
_NAMES = 27  # columns of the names, with two before
_SCALINGS = [0.1, 0.3, 1.0]

_PAPER = "arXiv 2310.02575, section 3.2"
_IMAGES = "unlabeled test images"


@dataclass(frozen=True)
class _Shown:
    """A method, or what a method is made of, as it is printed."""

    name: str
    summary: str
    source: str
    data: str
    """What it reads beside the models; empty where that is nothing to say."""
    parameters: Mapping[str, Any]
    """Defaults by name."""
    doc: str
    """All there is to read about it."""
    in_a_suite: Mapping[str, Mapping[str, Any]]
    """Entries of params.yaml, section methods, by name."""


def show(name: str | None) -> int:
    """Print all that methods are made of, a line or two each; with a name all about that."""
    groups = _groups()
    if name is None:
        print("\n\n".join(_listed(title, shown) for title, shown in groups.items() if shown))
        print("\nall about one: adamerge methods NAME; how to add one: docs/methods.md")
        return 0
    known = [shown for group in groups.values() for shown in group]
    found = [shown for shown in known if shown.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(shown.name for shown in known))
        raise InputError(f"method {name!r}: unknown; known are {names}")
    print("\n\n".join(_described(shown) for shown in found))
    return 0


# --- what there is ------------------------------------------------------------------------------


def _groups() -> dict[str, list[_Shown]]:
    return {
        "references: rows of every table, no merged models": _references(),
        "rule, without data": [_rule(each) for each in RULES.values() if not each.needs],
        "rule, weighing by data (section statistics of the suite)": [
            _rule(each) for each in RULES.values() if each.needs
        ],
        "adapt: learn merging parameters on unlabeled images": _adaptations(),
        "preset: settings of an adaptation by name": _presets(),
        "objective: what an adaptation minimises": [_objective(o) for o in OBJECTIVES.values()],
        "before: what a rule or an adaptation merges in place of the task vectors": [
            _before(each) for each in BEFORE.values()
        ],
        "after: what becomes of the merged model": [_after(each) for each in AFTER.values()],
        "choose by: what the value of a parameter is chosen by, on validation images": [
            _criterion(each) for each in CRITERIA.values()
        ],
    }


def _references() -> list[_Shown]:
    texts = {
        "pretrained": "The pretrained model on every task, zero-shot or, of a classifier, with the "
        "tasks' heads: what merging starts from.",
        "individual": "Each task's own fine-tuned model: K models, the upper reference.",
        "traditional_mtl": "One model trained on the union of the K training sets.",
    }
    data = {"traditional_mtl": "labeled training images of all tasks"}
    source = "arXiv 2310.02575, section 4"
    return [
        _Shown(name, text, source, data.get(name, "no data"), {}, text, {})
        for name, text in texts.items()
    ]


def _registered(entry: Entry, data: str, in_a_suite: Mapping[str, Mapping[str, Any]]) -> _Shown:
    defaults = _defaults(entry.parameters)
    return _Shown(entry.name, entry.summary, entry.source, data, defaults, entry.doc, in_a_suite)


def _rule(entry: Entry) -> _Shown:
    values = _defaults(entry.parameters)
    suite = {entry.name: {"rule": entry.name, **values}}
    if "scaling" in values:
        others = {key: value for key, value in values.items() if key != "scaling"}
        choose = {"scaling": _SCALINGS, "by": "accuracy"}
        suite[f"{entry.name}_best"] = {"rule": entry.name, **others, "choose": choose}
    return _registered(entry, _statistics(entry, "no data"), suite)


def _statistics(entry: Entry, otherwise: str) -> str:
    return f"{entry.needs} of unlabeled images, per task" if entry.needs else otherwise


def _before(entry: Entry) -> _Shown:
    chosen: dict[str, Any] = {"adapt": "layer_wise", "before": _part(entry), "start": entry.start}
    if not 0 < entry.start < 1:  # a clamp would keep coefficients from going up
        chosen["clamp"] = "none"
    return _registered(entry, "", {f"layer_wise_{entry.name}": chosen})


def _after(entry: Entry) -> _Shown:
    chosen = {"rule": "task_arithmetic", "after": _part(entry)}
    return _registered(entry, _statistics(entry, ""), {f"task_arithmetic_{entry.name}": chosen})


def _part(entry: Entry) -> Any:
    values = _defaults(entry.parameters)
    return {"name": entry.name, **values} if values else entry.name


def _objective(entry: Entry) -> _Shown:
    data = {
        "experts": f"{_IMAGES}, the individual models' predictions",
        "labels": "test images with their labels: a reference",
        None: _IMAGES,
    }[entry.needs]
    chosen = {"adapt": "layer_wise", "objective": entry.name}
    return _registered(entry, data, {f"layer_wise_{entry.name}": chosen})


def _criterion(entry: Entry) -> _Shown:
    data = {
        "experts": "unlabeled validation images, the individual models' predictions",
        "labels": "validation images with their labels",
        None: "unlabeled validation images",
    }[entry.needs]
    choose = {"scaling": _SCALINGS, "by": entry.name}
    chosen = {"rule": "task_arithmetic", "choose": choose}
    text = f"{data}; {entry.better} is better"
    return _registered(entry, text, {f"task_arithmetic_by_{entry.name}": chosen})


def _adaptations() -> list[_Shown]:
    masks = "Layer-wise coefficients, and which singular components of each layer stay (AdaRank)."
    options = _defaults(parameters.of_function(SingularMasks.__init__, positional=2))
    return [
        _adaptation("task_wise", "One coefficient a task (AdaMerging).", _PAPER),
        _adaptation("layer_wise", "One coefficient a layer and task (AdaMerging).", _PAPER),
        _adaptation("singular_components", masks, "arXiv 2503.22178", **options),
    ]


def _adaptation(name: str, summary: str, source: str, **more: Any) -> _Shown:
    settings = _defaults(parameters.of_dataclass(AdaptationSettings))
    values = {key: value for key, value in settings.items() if key != "granularity"} | more
    if name == "singular_components":
        values["clamp"] = "none"
    about = inspect.getdoc(AdaptationSettings) or ""
    if more:
        about += "\n\n" + (inspect.getdoc(SingularMasks) or "")
    over = {"adapt": name, "before": {"name": "trim_and_elect", "keep": 0.2}}
    suite = {name: {"adapt": name, **values}, f"{name}_pp": over}
    return _Shown(name, summary, source, _IMAGES, values, f"{summary}\n\n{about}", suite)


def _presets() -> list[_Shown]:
    texts = {
        "paper": ("AdaMerging as published.", "arXiv 2310.02575"),
        "fast": (
            "The experts' labels, many small steps: a fifth of its images.",
            "docs/presets.md",
        ),
        "adarank": ("AdaRank as published for task arithmetic, eight tasks.", "arXiv 2503.22178"),
    }
    return [_preset(name, *texts.get(name, ("", ""))) for name in PRESETS]


def _preset(name: str, summary: str, source: str) -> _Shown:
    published = _defaults(parameters.of_dataclass(AdaptationSettings))
    settings = vars(PRESETS[name])
    values = {k: v for k, v in settings.items() if v != published[k] or name == "paper"}
    granularity = values.pop("granularity", "layer_wise")
    doc = (
        f"{summary}\n\nIts values stand for what an entry with `preset` leaves out; what the entry "
        "says\ncounts. Other settings are as published."
    )
    suite = {f"{granularity}_{name}": {"adapt": granularity, "preset": name}}
    return _Shown(name, summary, source, "", values, doc, suite)


def _defaults(known: Mapping[str, Parameter]) -> dict[str, Any]:
    return {name: each.default for name, each in known.items()}


# --- how it is shown ----------------------------------------------------------------------------


def _listed(title: str, group: Iterable[_Shown]) -> str:
    lines = [title]
    for shown in group:
        lines += [_row(shown.name, shown.summary), _row("", _facts(shown))]
    return "\n".join(lines)


def _described(shown: _Shown) -> str:
    parts = [shown.name, _wrapped(_facts(shown)), "", shown.doc]
    if shown.in_a_suite:
        parts += ["", "In params.yaml, section methods:", ""]
        entries = (f"{name}: {_flow(entry)}" for name, entry in shown.in_a_suite.items())
        parts += [_wrapped(entry, "  ", "    ") for entry in entries]
        parts += ["", "In `adamerge merge`:", ""]
        parts += [_wrapped(options(each), "  ", "    ") for each in shown.in_a_suite.values()]
    return "\n".join(parts)


def options(entry: Mapping[str, Any]) -> str:
    """Write an entry of a suite as options of `adamerge merge`."""
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key in ("before", "after") and isinstance(value, Mapping):
            values[key] = value["name"]
            values |= {f"{key}.{name}": v for name, v in value.items() if name != "name"}
        elif key not in ("rule", "adapt", "choose"):
            values[key] = value
    words = [f"--method {entry.get('rule') or entry['adapt']}"]
    if values:
        words += ["--set", *(f"{key}={_value(value)}" for key, value in values.items())]
    if choose := dict(entry.get("choose", {})):
        by = choose.pop("by")
        (name, tried), *_ = choose.items()
        words += ["--choose", f"{name}={','.join(map(_value, tried))}", "--by", by]
    return " ".join(words)


def _wrapped(text: str, first: str = "", others: str = "") -> str:
    """On lines of at most 100 columns, with these indents."""
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=others))


def _facts(shown: _Shown) -> str:
    values = ", ".join(f"{key} = {_value(each)}" for key, each in shown.parameters.items())
    return "; ".join(filter(None, [shown.source, shown.data, values]))


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
