"""The arguments of `adamerge data`. What they call is imported when it is called."""

import argparse
from collections.abc import Callable
from typing import Any

_ABOUT = """\
Data sets of the field, each a file of the catalogue: where it lies on the Hugging Face hub, its
classes and prompts, how many images it has. A suite reads them with `source: hub`, from the hub's
cache; only `download` and `pin` open a connection."""


def add_data_commands(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `data` to the commands of `adamerge`; `add` adds one, as flows.cli does."""
    parser = commands.add_parser("data", help="list and fetch data sets", description=_ABOUT)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    inner = parser.add_subparsers(title="commands", dest="action", required=True, metavar="")
    add(inner, "list", "list the data sets there are", "  adamerge data list", _list)
    _show(inner, add)
    _download(inner, add)
    _verify(inner, add)
    _pin(inner, add)
    _drop(inner, add)
    _import(inner, add)
    _export(inner, add)


def _import(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data import import_copy

        return import_copy(options.name, options.path)

    about = """\
Looks through a copy of a data set in its authors' layout, as torchvision has it below its root:
whether the numbers of images and classes are those of the field. Then prints the entry with which
a suite reads it; the files stay where they are.

  adamerge data import mnist /data/torchvision"""
    parser = add(inner, "import", "look through a local copy, for a suite", about, call)
    parser.add_argument("name", metavar="NAME", help="one of `adamerge data list`")
    parser.add_argument("path", metavar="PATH", help="the folder in which the copy's own lies")


def _list(options: argparse.Namespace) -> int:
    from flows.data import list_all

    return list_all()


def _show(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data import show

        return show(options.name)

    about = """\
What it takes before anything is fetched: GB of download and of disk; then licence, splits, classes,
and what is doubtful. Fetches nothing.

  adamerge data show mnist"""
    parser = add(inner, "show", "say what a data set is and what it takes", about, call)
    parser.add_argument("name", metavar="NAME", help="one of `adamerge data list`")


def _download(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data import download

        return download(options.names)

    about = """\
Fetches the files of train and test, and no others, into the hub's cache, and compares their
digests. Can be stopped at any time: the same command goes on from the byte it had come to. The
commit it fetches is that of pins/NAME.json, of a model that of pins/models/NAME.json; where that is
missing it is the newest, which is then recorded there: keep these files in version control.

  adamerge data download mnist svhn
  adamerge data download           all that the active suite reads, its models too
  HF_HUB_CACHE=/large/disk adamerge data download"""
    parser = add(inner, "download", "fetch data sets from the hub", about, call)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: the active suite's")


def _verify(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data import verify

        return verify(options.names)

    about = """\
Reads every byte of the files in the cache and compares it with their digests, then counts images
and classes. Fetches nothing.

  adamerge data verify mnist"""
    parser = add(inner, "verify", "compare fetched files with the hub's digests", about, call)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: the active suite's")


def _pin(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data import pin

        return pin(options.names, options.revision)

    about = """\
Asks the hub which files a data set or model has at a commit, and writes them with their sizes and
digests to pins/NAME.json, of a model to pins/models/; fetches none of them. Runs read that commit
from then on.

  adamerge data pin mnist
  adamerge data pin mnist --revision 0123456789abcdef0123456789abcdef01234567
  adamerge data pin tanganke/clip-vit-base-patch32_mnist
  adamerge data pin ViT-B-32-quickgelu/openai
  adamerge data pin           all that the active suite reads, at the newest commits"""
    short = "choose the commit that a data set or model is read at"
    parser = add(inner, "pin", short, about, call)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a data set or model; default: the active suite's"
    )
    parser.add_argument("--revision", metavar="COMMIT", help="default: the newest")


def _drop(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data_drop import drop

        return drop(options.names)

    about = """\
Frees the disk of what nothing reads once a data set is prepared: its archive in data/, the copy of
that in DVC's cache, and its files in the hub's cache, which other programs share. Says first how
much it is. Refused while a stage still has to read them. `adamerge run` goes on without them; where
a stage needs them after all, it says what to fetch again.

  adamerge data drop          all data sets of the active suite
  adamerge data drop pcam"""
    parser = add(inner, "drop", "remove raw files of data sets that are prepared", about, call)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the suite; default: all")


def _export(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.data_export import export

        return export(options.name, options.folder, options.train, options.test, options.seed)

    about = """\
Draws one of the embedded miniatures (photos, vehicles, letters, landuse, housenum, signs, mnist,
patterns) into DIR/train/<class>/ and DIR/test/<class>/, for the commands that take folders.

  adamerge data export signs images/signs
  adamerge data export mnist images/mnist --train 1000 --test 300"""
    short = "write a miniature data set as a folder of images"
    parser = add(inner, "export", short, about, call, in_project=False)
    parser.add_argument("name", metavar="NAME", help="a miniature")
    parser.add_argument("folder", metavar="DIR", help="a new folder")
    for split, count in (("train", 1000), ("test", 300)):
        parser.add_argument(
            f"--{split}", type=int, default=count, metavar="N", help="images; default: %(default)s"
        )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
