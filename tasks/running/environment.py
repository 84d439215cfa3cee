"""The process environment that every entrance of adamerge sets: no telemetry, no network, own
folders.
"""

import os
from pathlib import Path

# the folder for everything that is neither data nor a result; ignored by git
WORK = Path(".adamerge")

# held by the flow that is at work, with its process id in it
RUN_LOCK = WORK / "run.lock"

# where DVC keeps the hashes that it knows, in a form that can hold code; its own place for that,
# /var/tmp/dvc, is open to every user of the machine
DVC_STATE = WORK / "dvc"

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


def configure(root: Path = Path(".")) -> None:
    """Set the switches in os.environ; call it before prefect, dvc or mlflow is imported."""
    os.environ.update(_SWITCHES)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name, folder in (("PREFECT_HOME", WORK / "prefect"), ("DVC_SITE_CACHE_DIR", DVC_STATE)):
        os.environ.setdefault(name, str((root / folder).resolve()))
