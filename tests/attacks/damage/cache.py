"""DVC's cache, its cache of runs, and the files in data/."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.attacks import projects
from tests.attacks.cases import Case, said
from tests.attacks.damage.harms import HARMS, Harm, case, flip, link, remove, rewrite
from tests.attacks.projects import (
    GROWN,
    IMAGES,
    MERGED,
    STAGES,
    bring_up,
    command,
    expect,
    is_undisturbed,
)


def _cache() -> Iterator[Case]:
    def restored(harm: Harm, path: str, kept_lock: bool, project: projects.Project) -> None:
        cached = projects.object_of(path)
        harm(cached)
        Path(path).unlink()
        if not kept_lock:
            Path("dvc.lock").unlink()
        outcomes, told = bring_up()
        is_undisturbed(project)
        stage = next(s for s in STAGES if outcomes.get(s) == "ran")
        expect(list(outcomes.values()).count("ran") == 1, f"{stage} alone must run: {outcomes}")
        if harm is not remove:
            said(told, [str(cached), ".adamerge/aside", "its stage runs again"])
            expect(any(Path(".adamerge/aside").iterdir()), "what was damaged is gone")
        expect(cached.is_file(), "the cache has no whole object again")

    whole = partial(restored, flip, MERGED, True)
    yield case(f"cache object of {MERGED}: one bit flipped", whole)
    kinds = ("a folder with a file", "a link to nothing", "a link to /dev/zero", "a fifo")
    for name, harm in {**{n: HARMS[n] for n in ("cut", *kinds)}, "removed": remove}.items():
        yield case(f"cache object of {GROWN}: {name}", partial(restored, harm, GROWN, True))
    yield case(f"cache object of {IMAGES}, no dvc.lock", partial(restored, flip, IMAGES, False))

    def all_objects(harm: Harm, project: projects.Project) -> None:
        for path in list(Path(".dvc/cache/files/md5").glob("*/*")):
            harm(path)
        shutil.rmtree("data")
        bring_up()
        is_undisturbed(project)

    for name in ("one bit flipped", "a folder"):
        yield case(f"all cache objects: {name}", partial(all_objects, HARMS[name]))

    def parent(project: projects.Project) -> None:
        folder = projects.object_of(GROWN).parent
        shutil.rmtree(folder)
        folder.write_text("a file")
        Path(GROWN).unlink()
        _, told = bring_up()
        said(told, [str(folder), "is no folder"])
        is_undisturbed(project)

    yield case("a folder of the cache is a file", parent)

    def too_large(project: projects.Project) -> None:
        os.environ["ADAMERGE_VERIFY_BELOW_GB"] = "0.00000001"
        Path(GROWN).unlink()
        outcomes, told = bring_up()
        said(told, ["restored unverified"])
        expect(outcomes["grow@a"] == "restored", str(outcomes))

    yield case("a file above the setting's size is restored unverified", too_large)

    def bad_setting(value: str, project: projects.Project) -> None:
        os.environ["ADAMERGE_VERIFY_BELOW_GB"] = value
        code, told = command("status")
        said(told, ["ADAMERGE_VERIFY_BELOW_GB", repr(value), "must be a number"])
        expect(code == 2, f"code {code}")

    for value in ("many", "nan"):
        yield case(f"the setting is {value!r}", partial(bad_setting, value), "low")


def _run_cache() -> Iterator[Case]:
    def entries() -> list[Path]:
        return [p for p in Path(".dvc/cache/runs").glob("*/*/*") if p.is_file()]

    def change(old: str, new: str, path: Path) -> None:
        rewrite(path, path.read_text().replace(old, new).encode())

    harms: dict[str, Harm] = {
        **{n: HARMS[n] for n in ("one bit flipped", "cut", "a folder")},
        "not UTF-8": lambda path: rewrite(path, b"\xff\xfe cmd"),
        "a list": lambda path: rewrite(path, b"[1, 2]"),
        "nested without end": lambda path: rewrite(path, b"[" * 5000),
        "a path out of the project": partial(change, "path: data/", "path: ../stolen/"),
        "another command": partial(change, "cmd: python", "cmd: touch run; python"),
        "a link to nothing": link,
    }

    def damaged(harm: Harm, project: projects.Project) -> None:
        for path in entries():
            harm(path)
        Path("dvc.lock").unlink()
        Path(IMAGES).unlink()
        outcomes, _ = bring_up("raw@a")
        is_undisturbed(project)
        expect(outcomes == {"raw@a": "ran"}, str(outcomes))
        expect(not Path("../stolen").exists(), "a file was written outside of the project")

    for name, harm in harms.items():
        yield case(f"run cache, all entries: {name}", partial(damaged, harm))


def _data() -> Iterator[Case]:
    def noticed(harm: Harm, path: str, old: str, new: str, project: projects.Project) -> None:
        """An input is damaged, its times kept: the stage that reads it says so."""
        command("status")  # DVC knows the file's hash now, and looks at its times only
        harm(Path(path))
        project.replace("params.yaml", old, new)  # of a stage that reads it
        stages = ("raw@a", "grow@a") if path == IMAGES else ("grow@a", "merge")
        _, told = bring_up(*stages)
        said(told, ["was damaged or changed", path, "the next `adamerge run` brings it back"])
        bring_up(*stages)
        expect(project.hashes()[path] == projects.hashes()[path], "the damage stays")

    changed = partial(noticed, flip, IMAGES, "steps: 5", "steps: 6")
    yield case(f"{IMAGES}, times kept: one bit flipped", changed)
    changed = partial(noticed, _reversed, GROWN, "scaling: 0.3", "scaling: 0.4")
    yield case(f"{GROWN}, times kept: turned round", changed)

    def by_hand(harm: Harm, path: str, project: projects.Project) -> None:
        harm(Path(path))
        if Path(path).exists():
            os.utime(path)  # a hand does not keep the time
        bring_up()
        is_undisturbed(project)

    for name in ("garbage", "a folder", "a link to nothing"):
        yield case(f"{GROWN}: {name}", partial(by_hand, HARMS[name], GROWN))


def _reversed(path: Path) -> None:
    rewrite(path, path.read_bytes()[::-1])


def cases() -> Iterator[Case]:
    """Give the cases of this part."""
    yield from _cache()
    yield from _run_cache()
    yield from _data()
