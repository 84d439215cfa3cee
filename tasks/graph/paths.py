"""Where each stage's files lie, below data/<suite>."""

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("pretrain", "train", "val", "test")
PROTOCOLS = ("transductive", "held_out")
REFERENCES = ("pretrained", "individual", "traditional_mtl")  # methods that merge nothing


@dataclass(frozen=True)
class Files:
    """Paths of every file that the pipeline of one suite writes, relative to the project's root."""

    suite: str

    @property
    def root(self) -> Path:
        return Path("data") / self.suite

    def raw(self, task_name: str) -> Path:
        return self.root / "raw" / f"{task_name}.zip"

    def images(self, task_name: str, split: str) -> Path:
        return self.root / "prepared" / task_name / f"{split}_images.npy"

    def labels(self, task_name: str, split: str) -> Path:
        return self.root / "prepared" / task_name / f"{split}_labels.npy"

    def classes(self, task_name: str) -> Path:
        return self.root / "prepared" / task_name / "classes.json"

    def corrupted(self, task_name: str, corruption: str) -> Path:
        return self.root / "corrupted" / task_name / f"{corruption}.npy"

    @property
    def pretrained(self) -> Path:
        return self.root / "checkpoints" / "pretrained.safetensors"

    @property
    def text_tower(self) -> Path:
        return self.root / "checkpoints" / "text_tower.safetensors"

    @property
    def heads(self) -> Path:
        return self.root / "checkpoints" / "heads.safetensors"

    def pretrain_metrics(self) -> Path:
        return self.root / "metrics" / "pretrain.json"

    def pretrain_curve(self) -> Path:
        return self.root / "metrics" / "pretrain.csv"

    def finetuned(self, name: str, seed: int) -> Path:
        """`name` is a task's, or traditional_mtl."""
        return self.root / "checkpoints" / f"seed-{seed}" / f"{name}.safetensors"

    def finetune_metrics(self, name: str, seed: int) -> Path:
        return self.metrics(seed) / "finetune" / f"{name}.json"

    def finetune_curve(self, name: str, seed: int) -> Path:
        return self.metrics(seed) / "finetune" / f"{name}.csv"

    def task_vector(self, task_name: str, seed: int) -> Path:
        return self.root / "task_vectors" / f"seed-{seed}" / f"{task_name}.safetensors"

    def task_vector_geometry(self, seed: int) -> Path:
        return self.metrics(seed) / "task_vectors.json"

    def statistic(self, kind: str, task_name: str, seed: int) -> Path:
        """`kind` is a function of adamerge_core.statistics."""
        return self.root / "statistics" / f"seed-{seed}" / kind / f"{task_name}.safetensors"

    def merged(self, method: str, seed: int, protocol: str | None = None) -> Path:
        """A merged model; `protocol` for the methods that adapt."""
        return self.root / "merged" / f"seed-{seed}" / method / f"{protocol or 'model'}.safetensors"

    def coefficients(self, method: str, seed: int, protocol: str) -> Path:
        folder = self.root / "merged" / f"seed-{seed}" / method
        return folder / f"{protocol}_coefficients.safetensors"

    def trajectory(self, method: str, seed: int, protocol: str) -> Path:
        return self.metrics(seed) / "trajectory" / f"{method}_{protocol}.csv"

    def sweep(self, method: str, seed: int) -> Path:
        return self.metrics(seed) / "sweep" / f"{method}.csv"

    def evaluation(self, method: str, seed: int) -> Path:
        return self.metrics(seed) / "evaluate" / f"{method}.json"

    def corrupted_evaluation(self, corruption: str, seed: int) -> Path:
        return self.metrics(seed) / "corrupted" / f"{corruption}.json"

    def metrics(self, seed: int) -> Path:
        return self.root / "metrics" / f"seed-{seed}"

    @property
    def report(self) -> Path:
        return self.root / "report"
