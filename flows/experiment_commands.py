"""The arguments of `adamerge experiment`. What they call is imported when it is called."""

import argparse
from collections.abc import Callable
from typing import Any

_ABOUT = """\
An experiment answers one question about the methods of a suite: its stages run beside the suite's,
and end in a page of the report with a figure, tables, findings and the data as CSV. Its settings
are in experiments/NAME.yaml.

  adamerge experiment list
  adamerge experiment run sensitivity"""


def add_experiment_commands(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `experiment` to the commands of `adamerge`; `add` adds one, as flows.cli does."""
    short = "list, show and run experiments"
    parser = commands.add_parser("experiment", help=short, description=_ABOUT)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    inner = parser.add_subparsers(title="commands", dest="action", required=True, metavar="")
    add(inner, "list", "list the experiments there are", "  adamerge experiment list", _list)
    about = """\
What it asks, its settings, and how many stages they make of the active suite.

  adamerge experiment show sensitivity"""
    shown = add(inner, "show", "say what an experiment asks and runs", about, _show)
    shown.add_argument("name", metavar="NAME", help="one of `adamerge experiment list`")
    _run(inner, add)


def _list(options: argparse.Namespace) -> int:
    from flows.experiments import list_all

    return list_all()


def _show(options: argparse.Namespace) -> int:
    from flows.experiments import show

    return show(options.name)


def _run(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.experiments import run

        return run(options.names, options.suite, options.seeds, options.severity, options.set)

    about = """\
Puts the settings of the experiments into params.yaml, beside those of experiments that are there,
and writes dvc.yaml; an experiment that is there already keeps its settings, but for those of --set.
Says how many stages are theirs, and runs the suite as `adamerge run` does: it begins by saying how
many stages are not up to date and about how long these take. Can be stopped at any time: the same
command goes on. `adamerge suite use NAME` takes the experiments out again.

  adamerge experiment run sensitivity
  adamerge experiment run sensitivity --suite mini --seeds 0 1 2
  adamerge experiment run corruptions --severity 1 5
  adamerge experiment run sensitivity --set images=100 --set 'scalings=[0.1, 0.2, 0.3]'"""
    parser = add(inner, "run", "run experiments on a suite", about, call)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of `adamerge experiment list`")
    parser.add_argument("--suite", metavar="NAME", help="default: the active one")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="in place of the suite's")
    parser.add_argument(
        "--severity",
        type=int,
        nargs="+",
        metavar="N",
        help="of corruptions; default: all that the suite makes",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, as YAML; NAME.KEY=VALUE where several are run; may be given again",
    )
