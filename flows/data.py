"""`adamerge data`: the data sets of the catalogue, what they take, and fetching them."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.hub import Hub
from adamerge_core.vision.datasets.hub_download import check_room, fetch
from adamerge_core.vision.datasets.hub_files import HubCache, Pin, pin_path, read_pin, write_pin
from adamerge_core.vision.datasets.hub_listing import hub_of, list_hub_files
from adamerge_core.vision.datasets.published import (
    PublishedDataset,
    published_dataset,
    published_names,
)
from adamerge_core.vision.datasets.registry import read_source
from adamerge_core.vision.pinned_models import NEWEST
from flows import model_downloads
from flows.sizes import gb
from tasks.graph.params_yaml import read_params
from tasks.running.environment import permit_hub

_PIXELS = 224  # of a side, where no suite is active

_EVERY = 0.2  # seconds between two lines of progress


def list_all() -> int:
    """Print the data sets of the catalogue, a line each."""
    for name in published_names():
        dataset = published_dataset(name)
        counts = f"{dataset.images['train']:>7,} + {dataset.images['test']:>6,} images"
        print(f"{name:<18} {len(dataset.classes):>3} classes  {counts}  {_size_in_short(dataset)}")
    print("\ntrain + test, download; all about one: adamerge data show NAME")
    return 0


def show(name: str) -> int:
    """Print all about a data set: first what it takes."""
    dataset = published_dataset(name)
    print(f"{name}: {dataset.title}")
    if dataset.refused:
        print(f"  is not read from the hub: {dataset.refused}")
    else:
        _show_needs(dataset)
    licence = dataset.licence
    print(f"  licence    {licence.says} ({licence.page})")
    if dataset.hub:
        hub = dataset.hub
        print(f"  hub        {hub.id}, {hub.format}, image in {hub.image}, label in {hub.label}")
        for split, patterns in hub.files.items():
            print(f"             {split}: {', '.join(patterns)}")
    print(f"  splits     train {dataset.images['train']:,}, test {dataset.images['test']:,} images")
    print(f"  published  on {dataset.published_test_images:,} test images")
    names = ", ".join(dataset.classes[:5]) + (", ..." if len(dataset.classes) > 5 else "")
    print(f"  classes    {len(dataset.classes)}: {names}; names as in {dataset.names_of}")
    for line in dataset.variants:
        print(f"             other names for a head of the line {line}: `line: {line}`")
    print(f"  prompts    {len(dataset.templates)}, as {dataset.templates[0]!r}")
    for text in dataset.doubtful:
        print(f"  doubtful   {text}")
    for text in dataset.sources:
        print(f"  source     {text}")
    return 0


def _show_needs(dataset: PublishedDataset) -> None:
    source = _sources([dataset.name])[0]
    pixels = _pixels()
    path = pin_path(dataset.name, source.pins)
    images = sum(dataset.images[split] for split in source.published_splits)
    if path.is_file():
        pin = read_pin(path).only(source.published_splits)
        files = pin.all_files()
        cache = HubCache.of(pin, source.cache)
        size: int | None = sum(file.bytes for file in files)
        exact = ""
        left = sum(file.bytes for file in cache.missing(files))
        print(f"  download   {gb(left)} of {gb(size or 0)}, commit {pin.revision} ({path})")
    else:
        size, exact = _estimate(dataset), "about "
        said = f"about {gb(size)}" if size else "size not known before the hub is asked"
        print(f"  download   {said}; commit: the newest at the first download, then {path}")
    raw = f"{exact}{gb(size)}" if size else "as much as the download"
    prepared = images * pixels * pixels * 3
    print(f"  disk       cache {raw}, archive {raw}, prepared {gb(prepared)} at {pixels} pixels")
    print("             cache and archive, with its copy in DVC's cache, go by `adamerge data")
    print("             drop` once it is prepared: what is needed again is fetched again")


def _pixels() -> int:
    """Of a side of prepared images, in the active suite."""
    prepare = read_params().get("prepare")
    size = prepare.get("image_size") if isinstance(prepare, Mapping) else None
    return size if isinstance(size, int) else _PIXELS


def _estimate(dataset: PublishedDataset) -> int | None:
    """Bytes of the download, as far as the catalogue knows: else those of the authors' files."""
    return dataset.bytes["hub"] or dataset.bytes["original"]


def _size_in_short(dataset: PublishedDataset) -> str:
    if dataset.refused:
        return "not from the hub"
    size = _estimate(dataset)
    return f"about {gb(size)}" if size else "size not known"


# --- with a connection --------------------------------------------------------------------------


def pin(names: Sequence[str], revision: str | None) -> int:
    """Write the pins of data sets and models, of the commit `revision`, else of the newest.

    A model is named `organisation/name`, or ARCHITECTURE/TAG as open_clip has it. Without names,
    all that the active suite reads from the hub; those that it reads at a commit are pinned at it.
    """
    permit_hub()
    if revision and len(names) != 1:
        raise InputError(f"--revision {revision}: is of one data set or model; name that one")
    known = model_downloads.suite_models()
    models = [name for name in names or known if "/" in name]
    datasets = [name for name in names if "/" not in name]
    for source in _sources(datasets) if datasets or (not names and _active()) else []:
        wanted = revision or (NEWEST if names else source.revision)
        _write_pin(source, list_hub_files(published_dataset(source.dataset), wanted))
    for name in models:
        model = known.get(name) or model_downloads.HubModel(name)
        model_downloads.pin(model, revision or (NEWEST if names else None))
    if not names and not known and not _active():
        raise InputError(_NOTHING)
    return 0


_NOTHING = "the active suite reads nothing from the hub: name data sets"


def _write_pin(source: Hub, found: Pin) -> None:
    path = pin_path(found.name, source.pins)
    write_pin(path, found)
    files = found.all_files()
    size = gb(sum(file.bytes for file in files))
    print(f"{found.name}: commit {found.revision}, {len(files)} files, {size}: {path}")


def download(names: Sequence[str]) -> int:
    """Fetch the data sets' files, after what is missing of all of them has been said.

    Without names, all that the active suite reads from the hub, its models too.
    """
    permit_hub()
    models = {} if names else model_downloads.suite_models()
    plans = []
    for source in [] if models and not _active() else _sources(names):
        path = pin_path(source.dataset, source.pins)
        if not path.is_file():
            found = list_hub_files(published_dataset(source.dataset), source.revision)
            _write_pin(source, found)
        found = read_pin(path)
        if source.revision not in (None, found.revision):
            raise InputError(
                f"{path}: is of commit {found.revision}, but the suite asks for {source.revision}: "
                f"adamerge data pin {source.dataset} --revision {source.revision}"
            )
        plans.append(HubCache.of(found.only(source.published_splits), source.cache))
    for cache in plans:
        missing = cache.missing(cache.pin.all_files())
        size = gb(sum(file.bytes for file in missing))
        print(f"{cache.pin.name}: {len(missing)} files, {size}, into {cache.root}")
        check_room(cache, missing)
    for cache in plans:
        fetched = fetch(cache, cache.pin.all_files(), _progress(cache.pin.name))
        print(f"{cache.pin.name}: {len(fetched)} files fetched; all are there and compared")
    if plans:
        verify_rows([cache.pin.name for cache in plans])
    model_downloads.fetch_models(models.values(), _progress)
    return 0


def verify(names: Sequence[str]) -> int:
    """Compare the fetched files with their digests, and count images and classes."""
    return verify_rows([source.dataset for source in _sources(names)])


def verify_rows(names: Sequence[str]) -> int:
    """Count the images and classes of fetched data sets, whose digests are compared before.

    Raises InputError listing what is missing, broken, or not as the catalogue says.
    """
    faults = []
    for source in _sources(names):
        try:
            found = source.images(source.dataset)
        except InputError as error:
            faults.append(str(error))
        else:
            print(f"{source.dataset}: {found.count} images of {len(found.classes)} classes: right")
    if faults:
        raise InputError("\n".join(faults))
    return 0


def import_copy(name: str, path: str) -> int:
    """Count the images and classes of a local copy, and print its entry for a suite.

    Raises InputError where it is not there, or is not the field's data set.
    """
    entry = {"source": "local_copy", "dataset": name, "path": path}
    source = read_source(name, entry)
    faults = [f"{each} {source.absent(each)}" for each in source.files() if not each.exists()]
    faults = faults or source.file_faults()
    if faults:
        raise InputError.listing(f"data set {name} in {path}", faults, shown=20)
    found = source.images(name)
    print(f"{name}: {found.count} images of {len(found.classes)} classes: right")
    shown = ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.items())
    print(f"\nin `datasets` of a suite:\n  {name}: {{{shown}}}")
    return 0


def _active() -> list[Hub]:
    """Give what the active suite reads from the hub; its own check would import PyTorch.

    Raises InputError listing the faults of such an entry.
    """
    entries = read_params().get("datasets")
    sources = [
        read_source(name, entry)
        for name, entry in (entries.items() if isinstance(entries, Mapping) else ())
        if isinstance(entry, Mapping) and entry.get("source") == "hub"
    ]
    return [source for source in sources if isinstance(source, Hub)]


def _sources(names: Sequence[str]) -> list[Hub]:
    """Give how data sets are read: as the active suite says where it reads them, with all defaults
    elsewhere. Without names those of the suite.

    Raises InputError for names that the catalogue does not have, or does not read from the hub.
    """
    known = {source.dataset: source for source in _active()}
    if not names and not known:
        raise InputError(_NOTHING)
    for name in names:
        hub_of(published_dataset(name))
    return [known.get(name) or Hub(dataset=name) for name in dict.fromkeys(names or known)]


def _progress(name: str) -> Callable[[int, int, str], None]:
    """Show bytes on one line that is written over, on a terminal; else nothing."""
    shown = [0.0]

    def tell(done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if not sys.stdout.isatty() or (now - shown[0] < _EVERY and done < total):
            return
        shown[0] = now
        end = "\n" if done >= total else ""
        print(f"\r{name}: {gb(done)} of {gb(total)}", end=end, flush=True)

    return tell
