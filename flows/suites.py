"""`adamerge suite`: the suites there are, and which one is active."""

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Any

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub_files import fetching
from adamerge_core.vision.datasets.user_files import tree_faults
from flows.needs import needs
from tasks import wiring
from tasks.graph.dvc_yaml import DVC_YAML
from tasks.graph.params_yaml import read_params
from tasks.suite.schema import SUITES, Suite, load_params, load_suite, parse_suite
from tasks.suite.yaml_files import PARAMS_YAML, load_yaml, parse_yaml, read_text

_NAMED = 8
"""Tasks that the list names."""

_NEAR = 4
"""Suites that a message names, in place of one that is unknown."""


def list_all() -> int:
    """Print the suites, the active one marked."""
    active, faults = read_params().get("suite"), []
    for path in _files().values():
        try:
            suite = load_suite(path, path.stem)
        except InputError as error:  # one must not hide the others
            faults.append(str(error))
            continue
        mark = "*" if suite.name == active else " "
        more = "" if len(suite.tasks) <= _NAMED else f", and {len(suite.tasks) - _NAMED} more"
        tasks = ", ".join(suite.tasks[:_NAMED]) + more
        print(f"{mark} {suite.name:<28} {len(suite.methods)} merging methods, tasks {tasks}")
    print("\n* is active (params.yaml); choose with `adamerge suite use NAME`")
    if faults:
        raise InputError("\n".join(["not listed are suites with faults", *faults]))
    return 0


def show(name: str | None) -> int:
    """Print a suite's file, the active one's without a name; on stderr, what it needs.

    Raises InputError listing the faults of a file that is no suite, after it is printed.
    """
    path = file_of(name) if name else PARAMS_YAML
    if not os.path.lexists(path):
        raise InputError("no suite is active: choose one with `adamerge suite use NAME`")
    text = read_text(path)
    print(text, end="")
    for line in needs(parse_suite(text, path)):
        print(line, file=sys.stderr)
    return 0


def use(name: str | None, seeds: list[int] | None, *, force: bool) -> int:
    """Make a suite the active one."""
    activate(name, seeds, force=force)
    print("next: adamerge run")
    return 0


def activate(name: str | None, seeds: list[int] | None, *, force: bool) -> None:
    """Write params.yaml and dvc.yaml; without a name the present params.yaml is kept.

    Raises InputError if the suite has faults, or params.yaml has changes of the user's and not
    `force`.
    """
    if name is None:
        if not os.path.lexists(PARAMS_YAML):
            known = ", ".join(_files())
            raise InputError(f"no suite is active yet: name one, of {known}")
        path = PARAMS_YAML
    else:
        path = file_of(name)
        if not force:
            keep_changes()
    text = read_text(path)
    if seeds is not None:
        text = with_seeds(text, seeds, path)
    suite = parse_suite(text, path, name)
    write(text, suite)
    count = len(wiring.stages(suite))
    print(f"{suite.name} is active: {count} stages, seeds {', '.join(map(str, suite.seeds))}")


def check() -> Suite:
    """Check the active suite and return it.

    Raises InputError if it has faults, dvc.yaml does not fit it, a rule does not take its
    parameters, or a folder of images is missing.
    """
    suite = load_params()
    faults = wiring.misfits(suite)
    if faults:
        shown = [*faults[:5], *([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])]
        fault = InputError.listing(f"{DVC_YAML} does not fit {PARAMS_YAML} and the code", shown)
        raise InputError(f"{fault}\nwrite it anew: adamerge suite use")
    _check_files(suite)
    return suite


def _check_files(suite: Suite) -> None:
    """See that a user's files are there and end: DVC would wait for a named pipe among them."""
    faults = [
        f"datasets.{name}: {path} {source.absent(path)}"
        for name, source in suite.sources.items()
        for path in source.files()
        if not path.exists()
    ]
    faults += [
        f"{key}: {path} does not exist; bring it there, or mend its path"
        for key, path in suite.model_files.items()
        if not path.exists()
    ]
    faults += [
        f"{key}: {path} does not exist; {fetching()}"
        for key, path in suite.model_pins.items()
        if not path.exists()
    ]
    faults = faults or [
        *(
            f"datasets.{name}: {fault}"
            for name, source in suite.sources.items()
            for fault in source.file_faults()
        ),
        *(f"{key}: {f}" for key, path in suite.model_files.items() for f in tree_faults(path)),
    ]
    if faults:
        raise InputError.listing(str(PARAMS_YAML), faults, shown=20)


def write(text: str, suite: Suite) -> None:
    """Write params.yaml, and dvc.yaml with its graph. Raises InputError where one is a folder."""
    folders = [
        f"{path} is a folder; move it away" for path in (PARAMS_YAML, DVC_YAML) if path.is_dir()
    ]
    if folders:
        raise InputError.listing(str(Path.cwd()), folders)
    with atomic_write(PARAMS_YAML) as params:
        params.write_text(text, encoding="utf-8")
        with atomic_write(DVC_YAML) as pipeline:
            pipeline.write_text(wiring.dvc_yaml(suite), encoding="utf-8")


def with_seeds(text: str, seeds: list[int], path: Path) -> str:
    """Put other seeds into a suite's text, whose comments stay.

    Raises InputError where they stand so that this cannot be done.
    """
    line = f"seeds: [{', '.join(map(str, seeds))}]"
    replaced = re.sub(r"^seeds:.*?(?=\s*(#.*)?$)", line, text, count=1, flags=re.MULTILINE)
    wanted = parse_yaml(text, path)
    if isinstance(wanted, dict):
        wanted |= {"seeds": seeds}
    try:
        done = parse_yaml(replaced, path) == wanted
    except InputError:
        done = False
    if not done:
        raise InputError(
            f"{path}: its seeds do not stand on one line of their own, which --seeds replaces; "
            "write them so: `seeds: [0]`"
        )
    return replaced


def keep_changes() -> None:
    """Raise InputError if params.yaml is none of the suites, but for what commands put there: it
    was changed by hand.
    """
    if not os.path.lexists(PARAMS_YAML):
        return
    current = _as_it_came(PARAMS_YAML)
    suites = [_as_it_came(path) for path in _files().values()]
    if current is None or current not in suites:
        raise InputError(
            f"{PARAMS_YAML} has changes of yours, which this would overwrite: keep them as a suite "
            f"(cp {PARAMS_YAML} {SUITES}/NAME.yaml, `suite: NAME` in it), or drop them with --force"
        )


def _as_it_came(path: Path) -> Any:
    """The content of a suite's file but for what commands put there, the seeds and experiments;
    None where it is no suite.
    """
    try:
        content = load_yaml(path)
    except InputError:
        return None
    if not isinstance(content, dict):
        return None
    return {key: each for key, each in content.items() if key not in ("seeds", "experiments")}


def _files() -> dict[str, Path]:
    files = {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}
    if not files:
        raise InputError(f"{Path.cwd()} has no {SUITES}/: run this in the project's root")
    return files


def file_of(name: str) -> Path:
    """Find a suite's file. Raises InputError, with near names, where there is none."""
    files = _files()
    if name not in files:
        near = difflib.get_close_matches(name, files, n=_NEAR)
        named = near or sorted(files, key=lambda each: (each.count("-"), each))[:_NEAR]
        more = f" and {len(files) - len(named)} more" if len(files) > len(named) else ""
        raise InputError(f"suite {name!r} is unknown; known are {', '.join(named)}{more}")
    return files[name]
