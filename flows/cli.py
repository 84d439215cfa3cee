"""The command `adamerge`. Each command is imported when it is called: help must be quick."""

import argparse
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from flows import project
from flows.data_commands import add_data_commands
from flows.experiment_commands import add_experiment_commands
from flows.model_commands import add_model_commands
from flows.registry_commands import add_registry_commands
from flows.run_options import add_notify, add_port, add_run_options
from flows.schedule_commands import add_schedule_commands
from tasks.running import failures
from tasks.running.environment import WORK, configure, work_folder
from tasks.running.failures import OperationError

_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130

# in a project, with all of its files
_AT_WORK = ("run", "experiment", "status", "ui", "lineage", "models", "schedule")

_WITH_PREFECT = ("run", "experiment", "ui", "schedule")

_NEARLY_FULL = 2**20  # bytes free, of which no database page is written any more

_ABOUT = """\
Merge fine-tuned models into one, and trace every result to the files and runs behind it.

  adamerge run [NAME]          run the pipeline of a suite, else of the active one; print its table
  adamerge status              what is up to date, what would run
  adamerge ui                  MLflow's and Prefect's pages in your browser
  adamerge lineage PATH        which stage and run made a file, and all upstream of it
  adamerge models              the registered models: which is champion, and why
  adamerge predict IMAGE...    classify images by the champion
  adamerge suite list          the suites there are
  adamerge methods             the merging methods there are
  adamerge experiment list     experiments beside the tables: a page and its data each
  adamerge data list           the data sets of the field: what they need, fetching them
  adamerge schedule            run the pipeline every night

Without a suite, in any folder:

  adamerge merge               merge checkpoints of yours
  adamerge evaluate            measure a checkpoint on folders of images
  adamerge inspect             what checkpoints are, and how they compare
  adamerge convert             write a checkpoint in another form
  adamerge finetune            fine-tune a model on a folder of images

Run the others anywhere in the project. `adamerge COMMAND --help` has an example of each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.in_project:
            _enter_project(options)
        configure()
        _mend(options.command)
        return int(options.call(options))
    except InputError as error:
        return _say(str(error), _BAD_INPUT)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not cut the end short
            signal.signal(number, signal.SIG_IGN)
        return _say("stopped; the same command goes on from here", _INTERRUPTED)
    except BrokenPipeError:  # as of `adamerge status | head`
        sys.stderr.close()
        return _FAILED
    except ModuleNotFoundError as error:  # the library was installed, without an extra
        return _say(_missing(error), _FAILED)
    except Exception as error:
        return _say(_unforeseen(error), _FAILED)


def _mend(command: str) -> None:
    """Set aside, or name, what the command would fail at."""
    if command in _AT_WORK:
        from tasks.running import upkeep

        upkeep.check()
    if command in _WITH_PREFECT:
        from flows import prefect_files

        prefect_files.mend()


def _enter_project(options: argparse.Namespace) -> None:
    """Go to the project's root; paths among the options are from where the user stands."""
    here = project.enter()
    for name in ("path", "html"):
        if getattr(options, name, None) is not None:
            setattr(options, name, os.path.relpath(here / getattr(options, name)))
    if "what" in options and (here / options.what).exists():  # else a model, a commit
        options.what = os.path.relpath(here / options.what)


def _interrupt(number: int, frame: object) -> None:
    """Treat an end from outside as Ctrl-C, so that what was started is ended first."""
    raise KeyboardInterrupt


def _say(message: str, code: int) -> int:
    print(f"adamerge: {message}", file=sys.stderr)
    return code


def _missing(error: ModuleNotFoundError) -> str:
    return (
        f"{error.name} is not installed, and this command needs it: in the project's root, "
        "pip install '.[pipeline]' (or '.[mini]', with what the suite mini is made from)"
    )


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OperationError):
        return str(error)
    said = failures.explain(error)
    if said:
        return said
    if _disk_is_full():  # what follows from it: a full disk stops the servers in many ways
        return f"the disk of {Path.cwd()} is full: free some space, then run the same command again"
    log = WORK / "error.log"
    try:
        work_folder()
        log.write_text(traceback.format_exc())
    except (OSError, InputError):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error}\nthis was not foreseen; {log} says where it happened"


def _disk_is_full() -> bool:
    try:
        return shutil.disk_usage(Path.cwd()).free < _NEARLY_FULL
    except OSError:  # the folder itself is gone
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "adamerge", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="")
    _run(commands)
    _status(commands)
    _ui(commands)
    _lineage(commands)
    _suite(commands)
    _methods(commands)
    add_experiment_commands(commands, _add)
    add_registry_commands(commands, _add)
    add_data_commands(commands, _add)
    add_model_commands(commands, _add)
    add_schedule_commands(commands, _add)
    return parser


_Commands = Any  # argparse names its type with an underscore


def _add(
    commands: _Commands,
    name: str,
    short: str,
    about: str,
    call: Callable[[Any], int],
    *,
    in_project: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=short, description=f"{short[0].upper()}{short[1:]}.\n\n{about}"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(call=call, in_project=in_project)
    return parser


def _run(commands: _Commands) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.commands import run
        from flows.run_parameters import RunParameters

        given = {"suite": options.name, "targets": options.target, "force": options.force}
        return run(RunParameters.read(given | {"reason": options.reason}), options.notify)

    about = """\
Runs every stage of dvc.yaml that is not up to date, in parallel where they are independent, and
takes the rest from the cache. Can be stopped at any time (Ctrl-C, kill): the next run goes on.
With NAME, makes that suite the active one before, as `adamerge suite use NAME` does.

Writes below data/ (data/README.md says what; the report: data/suites/<suite>/report/index.html),
and each run to mlflow.db.

  adamerge run
  adamerge run mini
  adamerge run --target evaluate              what stages run, or stages, and all upstream of them
  adamerge run --target report@mini --force   again, though nothing has changed"""
    parser = _add(commands, "run", "run the pipeline and print the table of results", about, call)
    parser.add_argument("name", nargs="?", metavar="NAME", help="default: the active suite")
    add_run_options(parser)
    add_notify(parser)


def _status(commands: _Commands) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.commands import status

        return status()

    about = """\
Lists the stages by group: up to date, changed (and why), never run. Then the last pipeline run
that MLflow has. Runs nothing.

  adamerge status"""
    _add(commands, "status", "say what is up to date and what would run", about, call)


def _ui(commands: _Commands) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.commands import ui

        return ui(options.mlflow_port, options.prefect_port, open_pages=options.open)

    about = """\
Starts MLflow's server (runs, curves, models, lineage) and Prefect's (flow runs, logs, schedules)
on 127.0.0.1 and prints the addresses of the active suite's pages. Ctrl-C ends both.

  adamerge ui
  adamerge ui --open           in your browser
  adamerge ui --mlflow-port 5001"""
    parser = _add(commands, "ui", "serve MLflow's and Prefect's pages", about, call)
    parser.add_argument("--open", action="store_true", help="open them in your browser as well")
    add_port(parser, "mlflow")
    add_port(parser, "prefect")


def _lineage(commands: _Commands) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.commands import lineage

        return lineage(options.what, options.form, options.html)

    about = """\
Prints what made a file that the pipeline wrote: its md5 and whether it is the one in dvc.lock, the
stage, the MLflow run, the command, parameters and git commit; then all that is upstream, down to
the downloads, by what it runs. The same for a registered model, and for a commit's results.

  adamerge lineage data/suites/mini/report/results.csv
  adamerge lineage mini-merged@champion
  adamerge lineage HEAD~1
  adamerge lineage --html lineage.html data/suites/mini/report/results.csv"""
    parser = _add(commands, "lineage", "say where a file comes from", about, call)
    parser.add_argument(
        "what", metavar="WHAT", help="a file below data/, a registered model or a commit"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--all",
        dest="form",
        action="store_const",
        const="all",
        default="screen",
        help="every run with all that is known of it",
    )
    forms.add_argument(
        "--json", dest="form", action="store_const", const="json", help="all of it, for programs"
    )
    forms.add_argument("--html", metavar="FILE", help="write it as a page, its runs as links")


def _suite(commands: _Commands) -> None:
    def call_list(options: argparse.Namespace) -> int:
        from flows.suites import list_all

        return list_all()

    def call_show(options: argparse.Namespace) -> int:
        from flows.suites import show

        return show(options.name)

    def call_use(options: argparse.Namespace) -> int:
        from flows.suites import use

        return use(options.name, options.seeds, force=options.force)

    about = """\
A suite says which tasks, model, methods and parameters there are: a file in suites/. The active
one is in params.yaml, and dvc.yaml has its graph."""
    parser = commands.add_parser("suite", help="list, show and choose suites", description=about)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    inner = parser.add_subparsers(title="commands", dest="action", required=True, metavar="")
    _add(inner, "list", "list the suites there are", "  adamerge suite list", call_list)
    shown = _add(inner, "show", "print a suite's file", "  adamerge suite show mini", call_show)
    shown.add_argument("name", nargs="?", metavar="NAME", help="default: the active one")
    about = """\
Copies suites/NAME.yaml to params.yaml and writes its graph to dvc.yaml. Without NAME, params.yaml
stays as it is and its graph is written: do that after changing tasks, methods or seeds in it.

  adamerge suite use mini
  adamerge suite use mini --seeds 0 1 2"""
    used = _add(inner, "use", "make a suite the active one", about, call_use)
    used.add_argument("name", nargs="?", metavar="NAME", help="one of `adamerge suite list`")
    used.add_argument("--seeds", type=int, nargs="+", metavar="N", help="in place of the suite's")
    used.add_argument(
        "--force", action="store_true", help="also where params.yaml has changes of yours"
    )


def _methods(commands: _Commands) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.methods import show

        return show(options.name)

    about = """\
Merge rules, adaptations, and what adaptations are made of: what each does, the paper it is from,
what data it needs, its parameters with their defaults. Runs nothing.

  adamerge methods
  adamerge methods tsv_m"""
    parser = _add(
        commands, "methods", "list the merging methods there are", about, call, in_project=False
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="all about this one")


if __name__ == "__main__":
    sys.exit(main())
