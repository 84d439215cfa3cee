"""A process that runs `dvc repro --single-item STAGE` for each stage named on its standard input.

What this saves against one DVC process a stage: DVC's imports, and most of the time that it takes
to write dvc.lock, which grows to thousands of lines. Ends with the end of its input.
"""

import io
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dvc.dvcfile
from dvc.cli import main as dvc_main
from dvc.utils.serialize import modify_yaml, parse_yaml
from ruamel.yaml import YAML

from adamerge_core.atomic import atomic_write
from tasks.graph.dvc_yaml import DVC_LOCK

DONE = "\x1edone "
"""Begins the line that ends a stage's output; its exit code follows."""


@contextmanager
def modify_lock(path: str, fs: Any = None) -> Iterator[dict[str, Any]]:
    """Yields the content of dvc.lock and writes what became of it; as DVC's own modify_yaml does.

    That keeps comments and writes in place. dvc.lock has no comments, so here is DVC's fast parser
    (a fifth of the time), and the file is replaced as a whole: a kill cannot tear it.
    """
    lock = Path(path)
    if lock.name != DVC_LOCK.name:
        with modify_yaml(path, fs=fs) as data:
            yield data
        return
    data = parse_yaml(lock.read_text(encoding="utf-8"), path) if lock.exists() else {}
    yield data
    text = io.StringIO()
    _writer().dump(data, text)
    with atomic_write(lock) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _writer() -> YAML:
    yaml = YAML(typ="safe")
    for option in ("default_flow_style", "sort_base_mapping_type_on_output"):
        setattr(yaml, option, False)  # ruamel types them as None
    yaml.representer.add_representer(OrderedDict, type(yaml.representer).represent_dict)
    return yaml


def main() -> None:
    names = _take_stdin()
    dvc.dvcfile.modify_yaml = modify_lock
    for name in names:
        code = dvc_main(["--wait-for-lock", "repro", "--single-item", name.strip()])
        sys.stderr.flush()
        print(f"{DONE}{code}", flush=True)


def _take_stdin() -> io.TextIOBase:
    """The standard input, which the stages do not inherit: they read from nothing."""
    names = os.fdopen(os.dup(0), encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return names


if __name__ == "__main__":
    main()
