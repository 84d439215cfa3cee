"""`adamerge inspect` and `adamerge convert`."""

import argparse
from pathlib import Path

from adamerge_core.errors import InputError, collected
from adamerge_core.vision.conversions import convert as write
from adamerge_core.vision.conversions import open_conversion
from adamerge_core.vision.folder_accuracy import architecture_of
from adamerge_core.vision.image_towers import ImageTower
from adamerge_core.vision.inspections import Comparison, Inspection, inspect_checkpoints
from adamerge_core.vision.plans import tensor_bytes
from adamerge_core.vision.work_folders import taken_fault
from flows.sizes import gb


def inspect(options: argparse.Namespace) -> int:
    """Print what checkpoints are. Returns 2 where one cannot be read or does not fit."""
    architecture = _architecture(options.checkpoints, options.model)
    if options.dry_run:
        for source in options.checkpoints:
            size = Path(source).stat().st_size if Path(source).is_file() else 0
            print(f"reads {source}{f', {gb(size)}' if size else ''}")
        print("writes      nothing")
        print("memory      all checkpoints at once, with --pretrained twice")
        print("time        that of reading them, and of a few passes over their entries")
        return 0
    found = inspect_checkpoints(options.checkpoints, architecture, options.pretrained)
    for each in found.each:
        _say(each)
    if found.comparison:
        _compare(found.comparison)
    return 2 if any(each.faults for each in found.each) else 0


def _architecture(sources: list[str], given: str | None) -> str:
    """Return the one architecture that is given, or that a checkpoint states."""
    faults: list[str] = []
    for source in sources:
        with collected(faults):
            return architecture_of(source, given)
    raise InputError.listing("adamerge inspect", faults)


def _say(each: Inspection) -> None:
    print(each.source)
    if each.tower:
        size = gb(tensor_bytes(each.tower.tensors))
        count = f"{each.parameters:,} entries in {len(each.tower.tensors)} tensors"
        print(f"  {each.tower.format}; {count}, {each.dtypes}, {size}")
        print(f"  {_parts(each.tower)}; sha256 {each.tower.sha256}")
        for remark in each.tower.remarks:
            print(f"  {remark}")
    for line in each.faults:
        print(f"  fault: {line}")


def _parts(tower: ImageTower) -> str:
    """Say what a checkpoint has beside its image tower or encoder."""
    if tower.head:
        count, names = len(tower.head["weight"]), tower.classes.names if tower.classes else ()
        shown = ", ".join(names[:5]) + (", …" if count > 5 else "") if names else "without names"
        return f"a head of {count} classes, {shown}"
    text = "with" if tower.text_tower else "without"
    return f"{text} a text tower; {'with' if tower.has_projection else 'without'} a projection"


def _compare(found: Comparison) -> None:
    print(f"\ntask vectors, from {found.pretrained.source}")
    for source, changed, norm, share in zip(
        found.sources, found.changed, found.norms, found.shares, strict=True
    ):
        print(f"  {source}: {changed} tensors changed, norm {norm:.4g}, {100 * share:.2f} % of it")
    if len(found.sources) > 1:
        print("\ncosines between them")
        width = max(map(len, found.sources))
        for source, row in zip(found.sources, found.cosines, strict=True):
            print(f"  {source:<{width}} " + " ".join(f"{value:6.3f}" for value in row))


def convert(options: argparse.Namespace) -> int:
    """Write a checkpoint in another form, or say what that takes."""
    faults: list[str] = []
    if fault := taken_fault(Path(options.out), "--out"):
        faults.append(fault)
    with collected(faults):
        ready = open_conversion(options.checkpoint, options.to, options.model, options.pretrained)
    if faults:
        raise InputError.listing("adamerge convert", faults, shown=30)
    tower = ready.tower
    print(f"{tower.source}: {tower.format}, {gb(tensor_bytes(tower.tensors))}")
    for remark in tower.remarks:
        print(f"  {remark}")
    if options.dry_run:
        held = tensor_bytes(tower.tensors) + tensor_bytes(tower.text_tower)
        print(f"writes      {options.out}, for {ready.to}, about {gb(held)}")
        print(f"memory      about {gb(3 * held)}")
        print("time        that of reading and writing as much")
        print("nothing was written: --dry-run")
        return 0
    write(ready, options.out, options.pretrained)
    print(f"written for {ready.to}: {options.out}")
    return 0
