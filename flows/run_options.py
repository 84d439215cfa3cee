"""Options that several commands have."""

import argparse

from tasks.running.environment import PORTS


def add_port(parser: argparse.ArgumentParser, server: str) -> None:
    """Add the option for the port of a server: `mlflow` or `prefect`."""
    parser.add_argument(
        f"--{server}-port",
        type=int,
        default=PORTS[server],
        metavar="N",
        help="default: %(default)s",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what of a suite is run."""
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="STAGE",
        help="run this and what is upstream of it; may be given again",
    )
    parser.add_argument(
        "--force", action="store_true", help="run the targets, or all, though nothing has changed"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="shown with the run")


def add_notify(parser: argparse.ArgumentParser) -> None:
    """Add the option for the command that is run when something went wrong."""
    parser.add_argument(
        "--notify",
        metavar="COMMAND",
        help="run this when a run fails, or accuracies fall: it has the message on its standard "
        "input (default: $ADAMERGE_NOTIFY)",
    )
