"""What the page of an MLflow run shows: names that MLflow takes, tags, texts within its limits."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tasks.graph.paths import PROTOCOLS
from tasks.report.escapes import in_markdown
from tasks.running.hashes import stored

Value = TypeVar("Value")

TAG = "adamerge."
READS = TAG + "reads."
CACHED = TAG + "cached."
READERS = TAG + "readers."
OUTS = "out/"
NOTE = "mlflow.note.content"
GRAPH = "graph.html"
"""The artifact of a pipeline's run that shows its graph."""

LONGEST_NOTE = 6000  # MLflow's limit of a tag is 8000, and readers are added
_READ_BY = "\n\nread by "
_READERS_SHOWN = 12

# prepared images, as tasks.graph.paths names them
IMAGES = re.compile(r"data/datasets/(?P<dataset>[^/]+)/\d+px/(?P<split>\w+)_images\.npy")
# merged models
MERGED = re.compile(
    r"data/suites/[^/]+/merged/seed-(?P<seed>\d+)/(?P<method>\w+)/"
    r"(?P<protocol>model|transductive|held_out)\.safetensors"
)


def origin(start: Mapping[str, Any]) -> dict[str, str]:
    """Make the tags that say from which code and machine something came."""
    tags = {
        TAG + "git.dirty": str(start["dirty"]).lower(),
        TAG + "host": start["host"],
        "mlflow.user": start["user"],
        TAG + "cmd": fit(start["cmd"]),
        "mlflow.source.name": start["cmd"].split("\n")[0][:250],
        "mlflow.source.type": "PROJECT",
    }
    if start["commit"]:
        tags[TAG + "git.commit"] = tags["mlflow.source.git.commit"] = start["commit"]
    return tags


def in_parts(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    """Make tags, named by the prefix and a number, that hold a mapping: JSON, in parts within
    MLflow's limit.
    """
    parts = [dict(items) for items in batches(list(values.items()), 50)]
    return {f"{prefix}{n:02}": json.dumps(part) for n, part in enumerate(parts)}


def from_parts(prefix: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Read what in_parts() wrote."""
    parts = sorted((key, value) for key, value in tags.items() if key.startswith(prefix))
    return {name: text for _, part in parts for name, text in json.loads(part).items()}


def with_readers(note: str, pages: Mapping[str, str]) -> str:
    """Write a stage run's description anew with links to the runs that read what it wrote; `pages`
    has their addresses by stage.
    """
    links = [f"[{in_markdown(stage)}]({page})" for stage, page in pages.items()]
    shown = " ".join(links[:_READERS_SHOWN])
    more = f" and {len(links) - _READERS_SHOWN} more" if len(links) > _READERS_SHOWN else ""
    return f"{note.split(_READ_BY)[0]}{_READ_BY}{shown}{more}"


def final_metrics(outs: Mapping[str, str], time: float) -> dict[str, Any]:
    """Read the numbers in the metrics files among `outs`, as one point of curves.

    Accuracies are named `protocol/task`, other metrics of a table `protocol/task/metric`; the
    averages of an evaluation `protocol/average`.
    """
    values: dict[str, float] = {}
    for path, digest in outs.items():
        is_summary = path.endswith(".json") and "/metrics/" in path
        read = _summary_metrics if is_summary else _table_metrics
        if (is_summary or path.endswith(".csv")) and (file := stored(Path(path), digest)):
            values |= read(file)
    return {"time": time, "step": 0, "values": values}


def _table_metrics(file: Path) -> dict[str, float]:
    """Read a table in long form, which ends with the columns metric and value; a curve has none.

    Names have the columns before those, without what is the same in all rows: a run is of one seed
    and, but for corrupted images, of one method.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        header, *rows = list(csv.reader(lines)) or [[]]
    if header[-2:] != ["metric", "value"]:
        return {}
    columns = [n for n, name in enumerate(header[:-2]) if name in ("protocol", "task")]
    columns += [n for n in range(len(header) - 2) if len({row[n] for row in rows}) > 1]
    named = {}
    for *labels, metric, value in rows:
        parts = [labels[n] for n in sorted(set(columns)) if labels[n]]
        named["/".join(parts + [metric] * (metric != "accuracy"))] = float(value)
    return named


def _summary_metrics(file: Path) -> dict[str, float]:
    """Read a small JSON file of metrics: `{"transductive": 70.1}` is an average over tasks."""
    content = json.loads(file.read_text(encoding="utf-8"))
    numbers = {key: float(v) for key, v in flatten(content, "/") if _is_number(v)}
    return {f"{key}/average" if key in PROTOCOLS else key: v for key, v in numbers.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def flatten(values: Mapping[str, Any], join: str = ".") -> Iterator[tuple[str, Any]]:
    """Flatten nested mappings to pairs, their keys joined."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            for inner, leaf in flatten(value, join):
                yield f"{key}{join}{inner}", leaf
        else:
            yield str(key), value


def fit(value: Any, length: int = 8000) -> str:
    """Write a value as text of at most `length` characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def shorten(note: str) -> str:
    """Cut a note to MLflow's limit: whole lines, and how many are left out."""
    if len(note) <= LONGEST_NOTE:
        return note
    kept = note[:LONGEST_NOTE].rsplit("\n", 1)[0]
    left = note.count("\n") - kept.count("\n")
    return f"{kept}\n\nand {left} more: the tags of this run have them all."


def metric_name(key: str) -> str:
    """Make a name that MLflow takes: letters, digits, and /_-. and blanks."""
    return re.sub(r"[^/\w.\- ]", "_", key)[:250]


def out_tag(path: str) -> str:
    """Names the tag that has the md5 of a file that a run wrote."""
    return metric_name(f"{OUTS}{path}")


def prefixed(tags: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """Pick the tags, or metrics, whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): v for key, v in tags.items() if key.startswith(prefix)}


def figures_folder(path: str) -> str | None:
    """Return the folder of a run's artifacts that a file belongs in."""
    return "figures" if path.endswith(".png") else None


def how_to_load(path: str, digest: str) -> str:
    """Write the page of a logged model, which says where its weights are."""
    return f"""# Merged weights

`{path}`, md5 `{digest}`, tracked by DVC in this project: `dvc checkout {path}` brings the file of
the present dvc.lock; the file of any run is `.dvc/cache/files/md5/{digest[:2]}/{digest[2:]}`.

```python
from safetensors.torch import load_file

state_dict = load_file("{path}")
```
"""


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts of at most `size` items."""
    for first in range(0, len(items), size):
        yield items[first : first + size]
