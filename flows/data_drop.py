"""`adamerge data drop`: raw files of data sets that are prepared, removed to free the disk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub import Hub
from adamerge_core.vision.datasets.hub_files import HubCache, pin_path, read_pin
from adamerge_core.vision.datasets.registry import Source
from flows.dvc import internals
from flows.dvc.plan import plan
from flows.run_lock import alone
from flows.sizes import gb
from tasks.graph import dvc_yaml, paths
from tasks.suite.schema import load_params


@dataclass(frozen=True)
class Raw:
    """The files of a data set that nothing reads once it is prepared."""

    dataset: str
    files: tuple[Path, ...]
    """That are there. The archive goes first: after a kill the next run restores it."""

    @property
    def bytes(self) -> int:
        """What they take on the disk."""
        return sum(path.stat().st_size for path in self.files if not path.is_symlink())


def drop(names: Sequence[str]) -> int:
    """Remove the raw files of data sets of the active suite, after saying how large they are.

    Without names, of all. Raises InputError for a name that the suite does not have, and listing
    the stages that still have to read such files, and while `adamerge run` is at work.
    """
    with alone():
        return _drop(names)


def _drop(names: Sequence[str]) -> int:
    suite = load_params()
    faults = [f"{name}: is none of datasets" for name in names if name not in suite.sources]
    chosen = {name: suite.sources[name] for name in names or suite.sources if not faults}
    found = plan()
    for name in chosen:
        faults += [
            f"{name}: the stage {stage} has not read it yet; adamerge run"
            for stage in _readers(name)
            if stage not in found.settled
        ]
    if faults:
        raise InputError.listing("adamerge data drop", faults, shown=20)
    objects = internals.cache_objects([paths.raw(name).as_posix() for name in chosen])
    raws = [_raw(name, source, objects) for name, source in chosen.items()]
    for raw in raws:
        print(f"{raw.dataset}: {gb(raw.bytes)} in {len(raw.files)} files")
    print(f"removing {gb(sum(raw.bytes for raw in raws))}", flush=True)
    for path in (path for raw in raws for path in raw.files):
        path.unlink(missing_ok=True)
    return 0


def _readers(dataset: str) -> list[str]:
    """Name the stages of the active suite that make or read the archive of a data set."""
    archive = paths.raw(dataset).as_posix()
    return [
        name for name, stage in dvc_yaml.read().items() if archive in (*stage.deps, *stage.files)
    ]


def _raw(dataset: str, source: Source, objects: dict[str, Path]) -> Raw:
    archive = paths.raw(dataset)
    copies = [objects[archive.as_posix()]] if archive.as_posix() in objects else []
    files = [archive, *copies, *(_of_the_hub(source) if isinstance(source, Hub) else ())]
    return Raw(dataset, tuple(path for path in files if path.is_symlink() or path.is_file()))


def _of_the_hub(source: Hub) -> Iterable[Path]:
    """List what the hub's cache has of a data set: links, and the contents behind them."""
    path = pin_path(source.dataset, source.pins)
    if not path.is_file():
        return []
    pin = read_pin(path).only(source.published_splits)
    cache = HubCache.of(pin, source.cache)
    return [each for file in pin.all_files() for each in (cache.path(file), cache.content(file))]
