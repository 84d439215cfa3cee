"""`adamerge experiment`: the experiments there are, and running them on a suite."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adamerge_core.errors import InputError
from flows.suites import file_of, keep_changes, with_seeds, write
from tasks import wiring
from tasks.graph.dvc_yaml import Stage
from tasks.graph.params_yaml import read_params
from tasks.report.reads import PAGES
from tasks.suite.experiments.sections import EXPERIMENTS, settings_for
from tasks.suite.schema import Suite, checked, load_params, parse_suite
from tasks.suite.yaml_files import PARAMS_YAML, load_yaml, parse_yaml, read_text

FOLDER = Path("experiments")
_SECTION = "experiments"
_CORRUPTED = "corruptions"


def list_all() -> int:
    """Print the experiments and what they ask, those of the active suite marked."""
    active, width = read_params().get(_SECTION) or {}, max(map(len, EXPERIMENTS))
    for name in EXPERIMENTS:
        print(f"{'*' if name in active else ' '} {name:<{width}}  {PAGES[name].QUESTION}")
    print("\n* is in params.yaml; run one with `adamerge experiment run NAME`")
    return 0


def show(name: str) -> int:
    """Print what an experiment asks, its settings, and the number of its stages."""
    _check([name])
    active = read_params()
    settings, where = _settings(name, active.get(_SECTION) or {}, active.get("suite"))
    print(f"{name}: {PAGES[name].QUESTION}\n\n{where}:\n")
    print(read_text(_file(name)) if where == str(_file(name)) else _dumped(settings))
    if os.path.lexists(PARAMS_YAML):
        content = load_params().raw
        content[_SECTION] = content.get(_SECTION, {}) | {name: settings}
        suite = checked(content, where)
        print(f"{len(_stages(suite, name))} stages on the active suite, {suite.name}")
    return 0


def run(
    names: Sequence[str],
    suite: str | None,
    seeds: list[int] | None,
    severities: list[int] | None,
    changes: Sequence[str],
) -> int:
    """Put experiments into the active suite, or make `suite` the active one with them; run it.

    severities: those at which `corruptions` measures; None leaves its setting. changes: settings,
    KEY=VALUE or NAME.KEY=VALUE. Raises InputError listing what is wrong with them, or where
    params.yaml has changes of the user's that another suite would overwrite.
    """
    from flows.commands import run as run_pipeline
    from flows.run_parameters import RunParameters

    _put(names, suite, seeds, severities, changes)
    made = load_params()
    counts = [f"{name} {len(_stages(made, name))}" for name in dict.fromkeys(names)]
    print(f"stages of the experiments: {', '.join(counts)}", flush=True)
    reason = f"experiment {', '.join(names)}"
    return run_pipeline(RunParameters.read({"reason": reason}), None)


def _put(
    names: Sequence[str],
    suite: str | None,
    seeds: list[int] | None,
    severities: list[int] | None,
    changes: Sequence[str],
) -> None:
    """Write params.yaml and dvc.yaml."""
    _check(names)
    if severities is not None and _CORRUPTED not in names:
        given = " ".join(map(str, severities))
        raise InputError(f"--severity {given}: is of {_CORRUPTED} alone, which is not run; name it")
    path = _base(suite)
    text = read_text(path)
    content = parse_yaml(text, path) or {}
    there = content.get(_SECTION) or {}
    found = {name: _settings(name, there, content.get("suite")) for name in dict.fromkeys(names)}
    for name, (_, where) in found.items():
        print(f"settings of {name}: {where}")
    chosen = _changed({name: settings for name, (settings, _) in found.items()}, changes)
    if severities is not None:
        chosen[_CORRUPTED]["severities"] = severities
    text = _with_section(text, {**there, **chosen}, path)
    if seeds is not None:
        text = with_seeds(text, seeds, path)
    write(text, parse_suite(text, path, suite))


def _base(suite: str | None) -> Path:
    """Find the file to begin with: params.yaml where no other suite is asked for."""
    if suite is None:
        if not os.path.lexists(PARAMS_YAML):
            raise InputError("no suite is active: name one with --suite, for example --suite mini")
        return PARAMS_YAML
    path = file_of(suite)
    keep_changes()
    return PARAMS_YAML if read_params().get("suite") == suite else path


def _check(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        known = f"is none; known are {', '.join(EXPERIMENTS)}"
        raise InputError.listing("experiments", [f"{name!r}: {known}" for name in unknown])


def _file(name: str) -> Path:
    return FOLDER / f"{name}.yaml"


def _settings(name: str, there: Mapping[str, Any], suite: Any) -> tuple[dict[str, Any], str]:
    """An experiment's settings, those `there` before those that its file has for a suite, and where
    they are from.
    """
    path = _file(name)
    if name in there:
        return dict(there[name]), f"{PARAMS_YAML}, {_SECTION}.{name}"
    return settings_for(suite, load_yaml(path)), str(path)


def _changed(settings: dict[str, dict[str, Any]], changes: Sequence[str]) -> dict[str, Any]:
    """Give settings by experiment other values. Raises InputError listing what cannot be set."""
    changed = copy.deepcopy(settings)
    faults = []
    for change in changes:
        key, found, value = change.partition("=")
        parts = key.split(".")
        name = parts.pop(0) if parts[0] in changed else next(iter(changed))
        place: Any = changed[name]
        for part in parts[:-1]:
            place = place.get(part) if isinstance(place, dict) else None
        if not found or not parts:
            faults.append(f"{change!r}: must be KEY=VALUE, for example images=100")
        elif len(changed) > 1 and key.split(".")[0] not in changed:
            faults.append(f"{change!r}: several are run; write {' or '.join(changed)} before it")
        elif not isinstance(place, dict):
            faults.append(f"{change!r}: {name} has no setting {'.'.join(parts[:-1])} to be within")
        else:
            place[parts[-1]] = parse_yaml(value, Path(f"--set {change}"))
    if faults:
        raise InputError.listing("--set", faults)
    return changed


def _dumped(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100)


def _with_section(text: str, entries: Mapping[str, Any], path: Path) -> str:
    """Put the experiments into a suite's text, at its end or in their place; comments stay.

    Raises InputError where they stand so that this cannot be done.
    """
    section = _dumped({_SECTION: dict(entries)})
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith(f"{_SECTION}:")]
    if starts:
        start = end = starts[0] + 1
        while end < len(lines) and lines[end].startswith((" ", "\n")):
            end += 1
        changed = "".join([*lines[: start - 1], section, *lines[end:]])
    else:
        changed = f"{text.rstrip()}\n\n{section}"
    wanted = {**parse_yaml(text, path), _SECTION: dict(entries)}
    if parse_yaml(changed, path) != wanted:
        raise InputError(
            f"{path}: its section {_SECTION} does not stand as one block that ends the file; "
            "write it so, or take it out"
        )
    return changed


def _stages(suite: Suite, name: str) -> list[Stage]:
    """List an experiment's own stages."""
    return [stage for stage in wiring.stages(suite).values() if stage.phase == name]
