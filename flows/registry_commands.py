"""The arguments of `adamerge models` and `adamerge predict`. What they call is imported then."""

import argparse
from collections.abc import Callable
from typing import Any

_Adder = Callable[..., argparse.ArgumentParser]

_MODELS = """\
Lists the versions of the suite's registered model: aliases, method, held-out accuracy, when and by
which run it was made, and why it is champion or is not. `candidate` is what the last run made;
`champion` moves by the rule in the suite's section registry, or by what you say here.

  adamerge models
  adamerge models show 3
  adamerge models promote 3 --why "better on our own photos"
  adamerge models roll-back --why "signs were worse in use\""""

_PREDICT = """\
Classifies images by a merged model: a line an image, with its class, the probability of that, and
the entropy of all probabilities in nats (0: certain). Images are decoded as the pipeline does.

MODEL is one of the registry (models:/NAME@ALIAS or models:/NAME/VERSION), in a project; or a folder
that `adamerge merge` wrote, anywhere.

  adamerge predict --task signs sign.png other.jpg
  adamerge predict --model models:/mini-merged/3 --task signs --json sign.png
  adamerge predict --model merged --task mnist digits/*.png"""


def add_registry_commands(commands: Any, add: _Adder) -> None:
    """Add `models` and `predict` to the commands of `adamerge`; `add` adds one, as flows.cli."""
    _models(commands, add)
    _predict(commands, add)


def _models(commands: Any, add: _Adder) -> None:
    def call_list(options: argparse.Namespace) -> int:
        from flows.models import list_all

        return list_all(options.suite, as_json=options.json)

    short = "list, promote and roll back the registered models"
    parser = add(commands, "models", short, _MODELS, call_list)
    _add_suite(parser, None)
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    inner = parser.add_subparsers(title="commands", dest="action", metavar="")
    _show(inner, add)
    _promote(inner, add)
    _roll_back(inner, add)


def _add_suite(parser: argparse.ArgumentParser, default: Any = argparse.SUPPRESS) -> None:
    parser.add_argument(
        "--suite", metavar="NAME", default=default, help="default: the active suite"
    )


def _show(inner: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.models import show

        return show(options.suite, options.number)

    parser = add(inner, "show", "print all about a version", "  adamerge models show 3", call)
    parser.add_argument("number", metavar="N", help="its number, as `adamerge models` lists it")
    _add_suite(parser)


def _promote(inner: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.models import promote

        return promote(options.suite, options.number, options.why)

    about = """\
Makes a version champion, and notes on it who did so, when and why. No run undoes that: only a new
version that the rule prefers takes its place.

  adamerge models promote 3 --why "better on our own photos\""""
    parser = add(inner, "promote", "make a version champion", about, call)
    parser.add_argument("number", metavar="N", help="its number, as `adamerge models` lists it")
    _add_why(parser)


def _roll_back(inner: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.models import roll_back

        return roll_back(options.suite, options.why)

    about = """\
Makes the champion before the present one champion again, and notes who did so, when and why. Given
again, it goes one further back.

  adamerge models roll-back --why "signs were worse in use\""""
    _add_why(add(inner, "roll-back", "bring the champion before back", about, call))


def _add_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", required=True, metavar="TEXT", help="noted on the version")
    _add_suite(parser)


def _predict(commands: Any, add: _Adder) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.predict import predict

        return predict(options)

    short = "classify images by a merged model"
    parser = add(commands, "predict", short, _PREDICT, call, in_project=False)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument(
        "--model", metavar="MODEL", help="default: the champion of the project's active suite"
    )
    parser.add_argument("--task", metavar="TASK", help="whose classes; needed where it has several")
    parser.add_argument(
        "--device", default="auto", metavar="D", help="cpu, cuda, or auto (the default)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of a CPU; fewer where others are at work on it"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="with all probabilities, by class")
    form.add_argument("--csv", action="store_true", help="the lines as a table")
