"""What a stage's process takes of the machine: sampled while it works, and at the most.

The names of samples are those of MLflow's system metrics, so that its pages show them in a tab of
their own. Stages that end before the first sample have none.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SECONDS = 10.0  # between two samples, and before the first

GIB = 1 << 30

Sample = dict[str, float]


def peak_resident(process: int | str = "self") -> float:
    """GiB, since the start of the process with that number; 0 when it is gone (Linux)."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    values = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(values[0]) * 1024 / GIB if values else 0.0


class Sampler:
    """Samples this process and the device that it uses, until it is stopped."""

    def __init__(self, log: Callable[[Sample, int], None], seconds: float = SECONDS) -> None:
        """log: called in a thread with each sample and its number."""
        self._log, self._seconds, self._over = log, seconds, threading.Event()
        self._process = psutil.Process()
        self._process.cpu_percent()  # the next call measures from here
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def start(self) -> None:
        """Begin sampling."""
        self._thread.start()

    def stop(self) -> None:
        """End sampling; no sample comes after this returns."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._over.wait(self._seconds):
            self._log(self._sample(), number)
            number += 1

    def _sample(self) -> Sample:
        memory, cores = self._process.memory_info().rss, psutil.cpu_count() or 1
        sample = {
            "system/cpu_utilization_percentage": self._process.cpu_percent() / cores,
            "system/process_memory_usage_megabytes": memory / 1e6,
            "system/system_memory_usage_percentage": psutil.virtual_memory().percent,
        }
        return sample | _device(sys.modules)


def _device(modules: Mapping[str, Any]) -> Sample:
    """Sample the GPU, if this process has begun to use one; PyTorch is not imported for it."""
    torch = modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    sample = {
        "system/gpu_0_memory_usage_megabytes": (total - free) / 1e6,
        "system/gpu_0_memory_usage_percentage": 100 * (total - free) / total,
    }
    with suppress(ModuleNotFoundError, RuntimeError):  # needs the package nvidia-ml-py
        sample["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    return sample
