"""The MLflow store of a project; the only package that imports mlflow."""

from tasks.tracking.runs import DATABASE_ERRORS, FoundRun
from tasks.tracking.store import Store

__all__ = ["DATABASE_ERRORS", "FoundRun", "Store"]
