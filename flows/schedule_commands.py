"""`adamerge schedule`, with its commands add, list and remove."""

import argparse
from collections.abc import Callable
from typing import Any

from flows.run_options import add_notify, add_port, add_run_options


def add_schedule_commands(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `schedule` to the parsers of the commands; `add` makes the parser of one."""

    def call(options: argparse.Namespace) -> int:
        from flows.nightly import schedule

        return schedule(
            options.prefect_port,
            now=options.now,
            automations=options.automations,
            notify_with=options.notify,
        )

    about = """\
Starts Prefect's server (if none is running here) and a worker, and deploys what prefect.yaml says.
Runs until Ctrl-C; the address it prints shows past and coming runs, and starts others.

  adamerge schedule
  adamerge schedule --now                        trigger one run at once as well
  adamerge schedule --notify 'mail -s adamerge me@example.org'
  adamerge schedule add mini --cron '0 3 * * 6'  Saturdays at three
  adamerge schedule list
  adamerge schedule remove mini"""
    parser = add(commands, "schedule", "run the pipeline every night", about, call)
    parser.add_argument("--now", action="store_true", help="trigger one run at once as well")
    parser.add_argument(
        "--automations",
        action="store_true",
        help="have Prefect's server carry out the automations that its page has",
    )
    add_notify(parser)
    add_port(parser, "prefect")
    inner = parser.add_subparsers(title="commands", dest="action", metavar="")
    _add(inner, add)
    _list(inner, add)
    _remove(inner, add)


def _add(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.run_parameters import RunParameters
        from flows.schedules import add as schedule

        given = {"suite": options.suite, "targets": options.target, "force": options.force}
        parameters = RunParameters.read(given | {"reason": options.reason})
        return schedule(options.name, options.cron, options.timezone, parameters)

    about = """\
Writes a deployment to prefect.yaml: the suite is made the active one and run whenever the cron line
says. `adamerge schedule` has to be at work for it.

  adamerge schedule add mini --cron '0 3 * * 6' --timezone Europe/Berlin"""
    parser = add(inner, "add", "schedule a suite", about, call)
    parser.add_argument("suite", metavar="SUITE", help="one of `adamerge suite list`")
    parser.add_argument(
        "--cron", required=True, metavar="LINE", help="minute hour day month weekday"
    )
    parser.add_argument("--timezone", default="UTC", metavar="ZONE", help="default: %(default)s")
    parser.add_argument("--name", metavar="NAME", help="default: the suite's")
    add_run_options(parser)


def _list(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.schedules import list_all

        return list_all()

    add(inner, "list", "list what is scheduled", "  adamerge schedule list", call)


def _remove(inner: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    def call(options: argparse.Namespace) -> int:
        from flows.schedules import remove

        return remove(options.name)

    about = "  adamerge schedule remove mini"
    parser = add(inner, "remove", "schedule a suite no longer", about, call)
    parser.add_argument("name", metavar="NAME", help="one of `adamerge schedule list`")
