"""Numbers of a suite: each that no run could mean is refused, with its key, value and rule."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks.suite.schema import load_suite
from tests.attacks.cases import Case, FaultError, refused
from tests.attacks.suites.files import folder_entry, mini, put, write

WHOLE = (
    ("seeds", 0),
    ("compute", "threads"),
    ("compute", "micro_batch"),
    ("prepare", "image_size"),
    ("corrupt", "images"),
    ("corrupt", "seed"),
    ("corrupt", "severities", 0),
    ("pretrain", "steps"),
    ("pretrain", "captions_per_step"),
    ("pretrain", "warmup_steps"),
    ("pretrain", "seed"),
    ("finetune", "steps"),
    ("finetune", "batch_size"),
    ("finetune", "warmup_steps"),
    ("traditional_mtl", "steps"),
    ("statistics", "images"),
    ("statistics", "fisher_probes"),
    ("evaluate", "trajectory_images"),
    ("evaluate", "trajectory_points"),
    ("robustness", "severity"),
)
REAL = (
    ("pretrain", "learning_rate"),
    ("pretrain", "weight_decay"),
    ("finetune", "learning_rate"),
    ("finetune", "weight_decay"),
    ("finetune", "gradient_clip"),
    ("evaluate", "held_out_fraction"),
)
INF, NAN = float("inf"), float("nan")
NO_WHOLE = (True, -1, 10**30, 2.5, 3.0, INF, NAN, "7", None, [7], {"a": 7}, 2**63)
NO_REAL = (True, False, -1.0, 1e39, 10**30, INF, -INF, NAN, "0.1", "1e-3", None, [0.1], {})

SETTINGS = {
    "steps": (True, 0, -1, 2.5, "10", None, 10**30),
    "images_per_task": (True, 0, "8", 10**30),
    "batches_per_step": (False, 0, 1.5, 10**30),
    "learning_rate": (True, 0, -1, INF, NAN, "1e-3", 1e39),
    "start": (True, 2, -0.5, INF, NAN, "0.3", [0.3]),
    "unlabeled_share": (True, 0, 1.5, NAN),
    "held_out_share": (False, 1, -0.1, NAN),
    "measure_every": (True, 0, 10**30),
    "patience": (True, 0, 10**30),
}
"""Of an adaptation."""
RULES = {
    ("task_arithmetic", "scaling"): (True, INF, NAN, "0.3", None, [0.3], 1e39),
    ("ties_merging", "keep"): (True, 0, 20, -1, INF, NAN, "0.2"),
    ("ties_merging", "scaling"): (True, NAN, "x", 10**30, 1e39),
}
SOURCES = {
    "val_fraction": (True, 0, 1.5, -1, INF, NAN, "0.1", None),
    "seed": (True, -1, 1.5, "0", None),
    "pretrain_per_class": (True, -1, 2.5, "x"),
}
"""Of a user's own images."""


def _content() -> Any:
    return mini() | {"statistics": {"images": 100, "split": "val", "fisher_probes": 4}}


def _refused(place: tuple[Any, ...], value: Any, folder: Path) -> None:
    path = write(put(_content(), place, value))
    error = refused(lambda: load_suite(path), str(path), str(place[0]))
    if not any("=" in line and ": " in line for line in str(error).splitlines()):
        raise FaultError(f"tells no value and rule: {error}")


def _method(entry: dict[str, Any], key: str, value: Any, folder: Path) -> None:
    path = write(put(_content(), ("methods", "tried"), {**entry, key: value}))
    refused(lambda: load_suite(path), f"methods.tried.{key} = ")


def _chosen(entry: dict[str, Any], key: str, value: Any, folder: Path) -> None:
    kept = {k: v for k, v in entry.items() if k != key}
    choose = {key: [0.1, value], "by": "accuracy"}
    path = write(put(_content(), ("methods", "tried"), {**kept, "choose": choose}))
    refused(lambda: load_suite(path), f"methods.tried.choose.{key} = ")


def _source(key: str, value: Any, folder: Path) -> None:
    content = put(_content(), ("datasets", "birds"), folder_entry() | {key: value})
    refused(lambda: load_suite(write(content)), f"datasets.birds.{key} = ")


def _all_at_once(folder: Path) -> None:
    content = _content()
    for place in WHOLE + REAL:
        put(content, place, True)
    error = refused(lambda: load_suite(write(content)))
    told = [place for place in WHOLE + REAL if ".".join(map(str, place)) + " = True" in str(error)]
    if len(told) < len(WHOLE + REAL):
        raise FaultError(f"tells only {told} of {error}")


def _huge_list(place: tuple[Any, ...], folder: Path) -> None:
    """A list of 100,000 values: one fault, quickly, in a message that can be read."""
    values = [n if place == ("seeds",) else f"n{n}" for n in range(100_000)]
    content = put(_content(), place, values)
    error = refused(lambda: load_suite(write(content)), "at most 200")
    if len(str(error)) > 20_000:
        raise FaultError(f"{len(str(error))} characters")


def _huge_methods(folder: Path) -> None:
    many = {f"m{n}": {"rule": "weight_averaging"} for n in range(20_000)}
    refused(lambda: load_suite(write(put(_content(), ["methods"], many))), "at most 200")


def _huge_text(folder: Path) -> None:
    content = put(_content(), ("compute", "threads"), "x" * 10**6)
    error = refused(lambda: load_suite(write(content)), "compute.threads = ")
    if len(str(error)) > 2000:
        raise FaultError(f"{len(str(error))} characters")


def _accepted(place: tuple[Any, ...], value: Any, folder: Path) -> None:
    load_suite(write(put(_content(), place, value)))


def _exponent(folder: Path) -> None:
    """1e-3 is a number, to DVC as well: YAML 1.1 took it for text."""
    text = write(_content()).read_text(encoding="utf-8")
    Path("suite.yaml").write_text(
        text.replace('"gradient_clip": 1.0', '"gradient_clip": 1e-3'), "utf-8"
    )
    if load_suite(Path("suite.yaml")).finetune.gradient_clip != 0.001:
        raise FaultError("another value")


def _each(tried: Callable[[Any, Path], None], values: tuple[Any, ...], folder: Path) -> int:
    """Try each value; the fault names it."""
    faults = []
    for value in values:
        try:
            tried(value, folder)
        except (FaultError, ArithmeticError) as fault:
            faults.append(f"{value!r}: {fault}")
    if faults:
        raise FaultError("\n".join(faults))
    return len(values)


def _batch(name: str, tried: Callable[[Any, Path], None], values: tuple[Any, ...]) -> Case:
    return Case(f"number: {name}", partial(_each, tried, values))


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    for places, values in ((WHOLE, NO_WHOLE), (REAL, NO_REAL)):
        for place in places:
            yield _batch(".".join(map(str, place)), partial(_refused, place), values)
    for key, values in SETTINGS.items():
        tried = partial(_method, {"adapt": "layer_wise"}, key)
        yield _batch(f"an adaptation's {key}", tried, values)
    for (rule, key), values in RULES.items():
        yield _batch(f"{rule}'s {key}", partial(_method, {"rule": rule}, key), values)
        yield _batch(f"{rule}'s {key} to choose", partial(_chosen, {"rule": rule}, key), values)
    for key, values in SOURCES.items():
        yield _batch(f"a folder's {key}", partial(_source, key), values)
    yield Case("number: all fields true at once", _all_at_once, "low")
    for place in (("tasks",), ("seeds",), ("corrupt", "tasks"), ("pretrain", "datasets")):
        name = f"number: 100,000 values in {'.'.join(place)}"
        yield Case(name, partial(_huge_list, place), "high", seconds=20)
    yield Case("number: 20,000 methods", _huge_methods, "high", seconds=20)
    yield Case("number: a text of a million characters", _huge_text, "low")
    yield Case("number: 1e-3", _exponent)
    for place, value in (
        (("finetune", "learning_rate"), 1),
        (("finetune", "weight_decay"), 0),
        (("pretrain", "warmup_steps"), 0),
        (("seeds", 0), 2**32 - 1),
        (("compute", "threads"), 1024),
    ):
        yield Case(f"number: {place[1]} = {value} is taken", partial(_accepted, place, value))
