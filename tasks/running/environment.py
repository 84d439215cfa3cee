"""The process environment that every entrance of adamerge sets: no telemetry, no network, own
folders.
"""

import os
import sys
from pathlib import Path

from adamerge_core.errors import InputError

# the folder for everything that is neither data nor a result; ignored by git
WORK = Path(".adamerge")

# held by the flow that is at work, with its process id in it
RUN_LOCK = WORK / "run.lock"

# where DVC keeps the hashes that it knows, in a form that can hold code; its own place for that,
# /var/tmp/dvc, is open to every user of the machine
DVC_STATE = WORK / "dvc"

HOST = "127.0.0.1"
PORTS = {"mlflow": 5000, "prefect": 4200}
"""Where the servers of `adamerge ui` answer, unless the user says otherwise."""

# names the pipeline run that a stage process belongs to
PIPELINE_RUN = "ADAMERGE_PIPELINE_RUN"

_SWITCHES = {
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "1",
    "DO_NOT_TRACK": "true",  # the word: MLflow ignores 1
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # five idle processes
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}

# what a user may set otherwise: taken only where the environment says nothing
_DEFAULTS = {
    "HF_HUB_OFFLINE": "1",
    # the first start of the ephemeral server takes 10 s, more on a busy machine
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
}


_set_here: set[str] = set()
"""Those of _DEFAULTS that this process, not the user, has set."""


def configure(root: Path = Path(".")) -> None:
    """Set the switches in os.environ; call it before prefect, dvc or mlflow is imported."""
    _open_streams()
    os.environ.update(_SWITCHES)
    for name, value in _DEFAULTS.items():
        if name not in os.environ:
            os.environ[name] = value
            _set_here.add(name)
    for name, folder in (("PREFECT_HOME", WORK / "prefect"), ("DVC_SITE_CACHE_DIR", DVC_STATE)):
        os.environ.setdefault(name, str((root / folder).resolve()))
    os.umask(os.umask(0o077) | 0o002)  # what others may write, they could fill with what we read


def _open_streams() -> None:
    """Open standard streams that were closed from outside: libraries write to them unasked, and
    the next file that is opened would take their number, and what children write to it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            free = os.open(os.devnull, os.O_RDWR)  # the lowest number: that of the stream
            os.set_inheritable(free, free == number)
            setattr(sys, name, open(free, mode))  # noqa: SIM115 - for as long as the process


def work_folder() -> Path:
    """Make the folder for working files, or narrow it: for its owner alone.

    Raises InputError if it is another user's, who could put there what this user then trusts.
    """
    WORK.mkdir(mode=0o700, exist_ok=True)
    about = WORK.stat()
    # who owns the project's folder can change the project's code as well
    if about.st_uid not in (os.geteuid(), Path().stat().st_uid):
        raise InputError(
            f"{WORK} belongs to user {about.st_uid}, and you are user {os.geteuid()}: it must be "
            "yours, as servers and runs trust what is in it; move it away, and a new one is made"
        )
    if about.st_mode & 0o077:
        WORK.chmod(0o700)
    return WORK


def permit_hub() -> None:
    """Permit this process to reach the hub, unless the user's own environment forbids it.

    Call it before huggingface_hub is imported, for a command that the user gave to fetch files.
    """
    if "HF_HUB_OFFLINE" in _set_here:
        os.environ["HF_HUB_OFFLINE"] = "0"
