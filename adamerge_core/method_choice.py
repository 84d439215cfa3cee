"""A merging method by name, with its settings: a merge rule, or learned coefficients."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, Self

from torch import nn

from adamerge_core.adamerging.adapt import AdaptationStep, adapt
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.settings import PRESETS, AdaptationSettings, settings_of
from adamerge_core.adamerging.targets import Arrays, targets_for
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import AFTER, BEFORE, RULES, Entry
from adamerge_core.method_values import faults_of, faults_of_settings
from adamerge_core.parameters import shown
from adamerge_core.running_statistics import average_running_statistics
from adamerge_core.task_vectors import TaskVectors

ADAPTATIONS = ("task_wise", "layer_wise")
"""Methods that learn coefficients, by their granularity."""

Statistics = Callable[[str, str], StateDict]
"""(kind, task) -> a statistic of the task's fine-tuned model (adamerge_core.statistics)."""


@dataclass(frozen=True)
class Part:
    """A registered function with its parameters."""

    entry: Entry
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class MethodChoice:
    """A merging method, checked: a rule, or an adaptation of coefficients."""

    name: str
    """One of RULES or of ADAPTATIONS."""
    rule: Part | None
    """None where coefficients are learned."""
    settings: AdaptationSettings | None
    """None for a rule."""
    before: Part | None = None
    after: Part | None = None

    @classmethod
    def read(cls, name: str, given: Mapping[str, Any], tasks: int) -> Self:
        """Read a method by name and its settings; `tasks`: how many models are merged.

        given: the rule's parameters, or fields of AdaptationSettings with `preset`; `before` and
        `after` name registered functions, `before.keep` is a parameter of one. Raises InputError
        listing every fault.
        """
        own = {key: v for key, v in given.items() if key.split(".")[0] not in _REGISTRIES}
        preset = own.pop("preset", None) if name in ADAPTATIONS else None
        faults: list[str] = []
        rule, settings = None, None
        if name in RULES:
            rule = Part(RULES[name], own)
            faults += faults_of(RULES[name], own, tasks)
        elif name not in ADAPTATIONS:
            known = ", ".join((*ADAPTATIONS, *RULES))
            faults.append(f"method = {shown(name)}: must be one of {known}")
        elif not (preset is None or (isinstance(preset, str) and preset in PRESETS)):
            faults.append(f"preset = {shown(preset)}: must be one of {', '.join(PRESETS)}")
        elif unfit := faults_of_settings(name, preset, own):
            faults += unfit
        else:
            settings = settings_of(name, preset, **own)
        parts = {place: _part(place, given, tasks, faults) for place in _REGISTRIES}
        if faults:
            raise InputError.listing(f"method {name}", faults)
        return cls(name, rule, settings, **parts)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The kinds of statistics that it takes of each fine-tuned model."""
        parts = (self.rule, self.after)
        return tuple(dict.fromkeys(p.entry.needs for p in parts if p and p.entry.needs))

    @property
    def needs_images(self) -> bool:
        """Whether it takes unlabeled images of every task."""
        return self.settings is not None or bool(self.statistics)

    @property
    def needs_labels(self) -> bool:
        """Whether it takes the labels of these images."""
        return self.settings is not None and OBJECTIVES[self.settings.objective].needs == "labels"

    def merge(self, task_vectors: TaskVectors, statistics: Statistics) -> StateDict:
        """Merge by the rule. statistics: called for those that the method takes."""
        assert self.rule is not None
        vectors = self.changed(task_vectors)
        merged = self.rule.entry(
            vectors,
            *_needed(self.rule, task_vectors, statistics),
            **self.rule.parameters,
        )
        return self.finished(merged, task_vectors, statistics)

    def changed(self, task_vectors: TaskVectors) -> TaskVectors:
        """Return the task vectors that the method merges, running statistics averaged."""
        vectors = average_running_statistics(task_vectors)
        if self.before is None:
            return vectors
        changed: TaskVectors = self.before.entry(vectors, **self.before.parameters)
        return changed

    def finished(
        self, merged: StateDict, task_vectors: TaskVectors, statistics: Statistics
    ) -> StateDict:
        """Return the method's model, of what was merged; task_vectors: the plain ones."""
        if self.after is None:
            return merged
        needed = _needed(self.after, task_vectors, statistics)
        changed: StateDict = self.after.entry(
            merged, task_vectors, *needed, **self.after.parameters
        )
        return changed

    def learn(
        self,
        encoder: nn.Module,
        task_vectors: TaskVectors,
        heads: Mapping[str, nn.Module],
        images: Arrays,
        labels: Arrays,
        seed: int,
        resume_from: str | PathLike[str] | None = None,
    ) -> Iterator[AdaptationStep]:
        """Learn coefficients over `changed(task_vectors)`, step by step (see adapt).

        images: per task [N_k, ...]; labels: of those tasks whose labels are needed.
        """
        assert self.settings is not None
        targets = targets_for(self.settings.objective, encoder, task_vectors, heads, images, labels)
        engine = Engine(encoder, self.changed(task_vectors), heads, micro_batch=_MICRO_BATCH)
        return adapt(engine, images, self.settings, seed, resume_from, targets=targets)


_MICRO_BATCH = 64
"""Images in a pass at once: it bounds the memory, and changes nothing else."""

_REGISTRIES = {"before": BEFORE, "after": AFTER}


def _part(place: str, given: Mapping[str, Any], tasks: int, faults: list[str]) -> Part | None:
    """Read what stands before or after; what is wrong with it is added to `faults`."""
    prefix, registry = f"{place}.", _REGISTRIES[place]
    values = {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}
    if place not in given:
        faults += [f"{prefix}{name}: {place} names no function; give one" for name in values]
        return None
    name = given[place]
    if not isinstance(name, str) or name not in registry:
        known = ", ".join(registry) or "none yet"
        faults.append(f"{place} = {shown(name)}: must be one of {known}")
        return None
    faults += [f"{prefix}{line}" for line in faults_of(registry[name], values, tasks)]
    return Part(registry[name], values)


def _needed(part: Part, task_vectors: TaskVectors, statistics: Statistics) -> list[Any]:
    kind = part.entry.needs
    return [{name: statistics(kind, name) for name in task_vectors.task_names}] if kind else []
