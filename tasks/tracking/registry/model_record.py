"""What a registered model is made of: a small file that names its weights, which stay with DVC.

Nothing here imports mlflow.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError, collected
from tasks.graph import paths
from tasks.graph.dvc_lock import Locked
from tasks.running.hashes import digest, stored
from tasks.running.json_files import read_object

if TYPE_CHECKING:
    from adamerge_core.vision.predictions import MultiTaskModel

RECORD = "merged_model.json"

_SIZE = re.compile(r"data/datasets/[^/]+/(\d+)px/test_images\.npy")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(_Record):
    """A file that a stage wrote."""

    path: str
    """From the project's root."""
    md5: str


class StoredHead(StoredFile):
    """The zero-shot head of a task."""

    classes: tuple[str, ...]
    """In the order of the labels."""


class ModelRecord(_Record):
    """A merged model with all that it takes to classify images."""

    architecture: str
    tag: str | None
    """Of open_clip's pretrained weights, which say how pixels are scaled."""
    image_size: int
    """Pixels of a side."""
    encoder: StoredFile
    heads: dict[str, StoredHead]
    """By task."""

    @property
    def content(self) -> str:
        """A hash: of two records with the same one, the models are the same."""
        return digest(self.model_dump(mode="json"))

    def write(self, folder: Path) -> None:
        """Write the record into the folder of a model."""
        with atomic_write(folder / RECORD) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ModelRecord":
        """Read the record in a model's folder. Raises InputError where there is none, or no whole
        one.
        """
        try:
            return cls.model_validate(read_object(folder / RECORD))
        except ValidationError as error:
            raise InputError(
                f"{folder / RECORD}: is no record of a model; register it again (adamerge run)"
            ) from error


def record_of(entry: Locked, lock: Mapping[str, Locked], weights: Path) -> ModelRecord:
    """Describe merged weights by the entry of dvc.lock that measured them.

    lock: all entries. Raises InputError listing what is missing.
    """
    model, tasks = entry.params.get("model") or {}, entry.params.get("tasks") or []
    wrote = {path: md5 for each in lock.values() for path, md5 in each.outs.items()}
    faults: list[str] = []
    heads: dict[str, StoredHead] = {}
    for task in tasks:
        with collected(faults):
            path = paths.head(model.get("name"), task).as_posix()
            classes = _classes(paths.classes(task), wrote)
            heads[task] = StoredHead(path=path, md5=_dep(entry, path), classes=classes)
    sizes = {int(found[1]) for path in entry.deps if (found := _SIZE.fullmatch(path))}
    if len(sizes) != 1 or not tasks or "architecture" not in model:
        faults.append("dvc.lock says no tasks, architecture or size of the images it was tested on")
    with collected(faults):
        encoder = StoredFile(path=weights.as_posix(), md5=_dep(entry, weights.as_posix()))
    if faults:
        raise InputError.listing(str(weights), faults)
    return ModelRecord(
        architecture=model["architecture"],
        tag=model["weights"].get("tag"),
        image_size=sizes.pop(),
        encoder=encoder,
        heads=heads,
    )


def test_images(entry: Locked) -> str:
    """Hash the images and labels that an entry of dvc.lock measured on, and which part of them."""
    tested = {path: md5 for path, md5 in entry.deps.items() if "/test_" in path}
    return digest([tested, entry.params.get("evaluate.held_out_fraction")])


def _dep(entry: Locked, path: str) -> str:
    if path not in entry.deps:
        raise InputError(f"{path}: is not among what its evaluation read")
    return entry.deps[path]


def _classes(path: Path, wrote: Mapping[str, str]) -> tuple[str, ...]:
    """Read the class names of a dataset, as dvc.lock has them."""
    file = stored(path, wrote.get(path.as_posix(), ""))
    if file is None:
        raise InputError(f"{path}: is neither there nor in DVC's cache as dvc.lock names it")
    return tuple(map(str, read_object(file)["classes"]))


# --- loading --------------------------------------------------------------------------------------


def project_of(folder: Path) -> Path:
    """Find the project whose files a model's folder names: the one that it lies in, else the
    current folder's. Raises InputError where neither lies in one.
    """
    here = Path.cwd()
    for place in (*folder.resolve().parents, here, *here.parents):
        if (place / ".dvc").is_dir():
            return place
    raise InputError(
        f"{folder}: lies in no project, and its weights are with DVC in the project that it was "
        f"registered in; load it there ({here} is in no project)"
    )


def open_model(folder: Path) -> "MultiTaskModel":
    """Open the model of a folder, on the CPU, with the weights that its record names.

    Of each file the project's own is taken, if its md5 is right, else that of DVC's cache. Raises
    InputError listing the files that are in neither place.
    """
    from adamerge_core import checkpoints
    from adamerge_core.vision.classifiers import head_of
    from adamerge_core.vision.predictions import MultiTaskModel
    from adamerge_core.vision.pretrained import encoder_of, scaling_of

    record, root = ModelRecord.read(folder), project_of(folder)
    files = _stored_files([record.encoder, *record.heads.values()], root)
    weights = checkpoints.load(files[record.encoder.path])
    pixels = scaling_of(record.architecture, record.tag)
    heads = {
        task: head_of(checkpoints.load(files[head.path])) for task, head in record.heads.items()
    }
    classes = {task: head.classes for task, head in record.heads.items()}
    encoder = encoder_of(record.architecture, weights, record.encoder.path, pixels)
    return MultiTaskModel(encoder, heads, classes, record.image_size)


def _stored_files(wanted: Sequence[StoredFile], root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    faults: list[str] = []
    for each in wanted:
        if file := stored(Path(each.path), each.md5, root):
            found[each.path] = file
        else:
            faults.append(
                f"{each.path}: neither the file there nor DVC's cache has the md5 {each.md5}; "
                f"`dvc pull {each.path}` fetches it, where dvc.lock names that md5: else bring "
                "back the dvc.lock that does (git checkout COMMIT dvc.lock) before"
            )
    if faults:
        raise InputError.listing(f"weights of a registered model of {root}", faults)
    return found
