"""A merging method by name, with its settings: a merge rule, or learned coefficients."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Self

from torch import nn

from adamerge_core.adamerging.adapt import AdaptationStep, adapt
from adamerge_core.adamerging.engine import Engine
from adamerge_core.adamerging.learned import parameterisation_of
from adamerge_core.adamerging.objective import OBJECTIVES
from adamerge_core.adamerging.settings import PRESETS, AdaptationSettings, settings_of
from adamerge_core.adamerging.targets import Arrays, targets_for
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError, collected
from adamerge_core.merging.registry import AFTER, BEFORE, CRITERIA, RULES, Entry
from adamerge_core.method_values import (
    MASK_OPTIONS,
    SETTINGS,
    faults_of,
    faults_of_settings,
)
from adamerge_core.parameters import shown
from adamerge_core.running_statistics import average_running_statistics
from adamerge_core.task_vectors import TaskVectors

ADAPTATIONS = ("task_wise", "layer_wise", "singular_components")
"""Methods that learn merging parameters, by their granularity."""

Statistics = Callable[[str, str], StateDict]
"""(kind, task) -> a statistic of the task's fine-tuned model (adamerge_core.statistics)."""


@dataclass(frozen=True)
class Part:
    """A registered function with its parameters."""

    entry: Entry
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class MethodChoice:
    """A merging method, checked: a rule, or an adaptation of coefficients or singular masks."""

    name: str
    """One of RULES or of ADAPTATIONS."""
    rule: Part | None
    """None where coefficients are learned."""
    settings: AdaptationSettings | None
    """None for a rule."""
    before: Part | None = None
    after: Part | None = None
    mask_options: Mapping[str, Any] = field(default_factory=dict)
    """Of SingularMasks."""
    choose: "Alternatives | None" = None

    @classmethod
    def read(
        cls,
        name: str,
        given: Mapping[str, Any],
        tasks: int,
        choose: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a method by name and its settings; `tasks`: how many models are merged.

        given: the rule's parameters, or fields of AdaptationSettings with `preset`; `before` and
        `after` name registered functions, `before.keep` is a parameter of one. choose: values to
        try of one such setting, and a criterion: {"scaling": [0.1, 0.3], "by": "entropy"}. Raises
        InputError listing every fault.
        """
        if choose:
            return cls._of_alternatives(name, given, tasks, choose)
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
            settings = settings_of(name, preset, **{k: v for k, v in own.items() if k in SETTINGS})
        masks = {k: v for k, v in own.items() if k in MASK_OPTIONS} if settings else {}
        parts = {place: _part(place, given, tasks, faults) for place in _REGISTRIES}
        if faults:
            raise InputError.listing(f"method {name}", faults)
        return cls(name, rule, settings, parts["before"], parts["after"], masks)

    @classmethod
    def _of_alternatives(
        cls, name: str, given: Mapping[str, Any], tasks: int, choose: Mapping[str, Any]
    ) -> Self:
        """Read the method with each value of the parameter; it is itself that with the first."""
        by, parameters = choose.get("by"), [key for key in choose if key != "by"]
        values = choose[parameters[0]] if len(parameters) == 1 else ()
        faults = []
        if len(parameters) != 1 or not isinstance(values, list | tuple) or not values:
            faults.append(
                f"choose = {shown(dict(choose))}: must be the values of one parameter to try, as "
                "scaling=0.1,0.3"
            )
        elif parameters[0] in given:
            faults.append(f"{parameters[0]}: has a value and is chosen too; remove one of the two")
        elif len(set(map(str, values))) < len(values):
            faults.append(f"{parameters[0]} = {shown(list(values))}: each must stand once")
        if not isinstance(by, str) or by not in CRITERIA:
            faults.append(f"by = {shown(by)}: must be one of {', '.join(CRITERIA)}")
        tried = []
        for value in values if not faults else ():
            with collected(faults):
                tried.append(cls.read(name, {**given, parameters[0]: value}, tasks))
        if faults:
            raise InputError.listing(f"method {name}", list(dict.fromkeys(faults)))
        alternatives = Alternatives(parameters[0], tuple(values), str(by), tuple(tried))
        return replace(tried[0], choose=alternatives)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The kinds of statistics that it takes of each fine-tuned model."""
        parts = (self.rule, self.after)
        return tuple(dict.fromkeys(p.entry.needs for p in parts if p and p.entry.needs))

    @property
    def needs_images(self) -> bool:
        """Whether it takes unlabeled images of every task."""
        return self.settings is not None or bool(self.statistics) or self.choose is not None

    @property
    def needs_labels(self) -> bool:
        """Whether it takes the labels of these images."""
        return "labels" in self._targets

    @property
    def _targets(self) -> set[str | None]:
        """What objectives and the criterion compare predictions with."""
        tried = self.choose.methods if self.choose else (self,)
        found = {OBJECTIVES[each.settings.objective].needs for each in tried if each.settings}
        return found | ({CRITERIA[self.choose.by].needs} if self.choose else set())

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

    def engine(
        self, encoder: nn.Module, task_vectors: TaskVectors, heads: Mapping[str, nn.Module]
    ) -> Engine:
        """Make the engine that learns over `changed(task_vectors)`; the encoder is its own then."""
        assert self.settings is not None
        return Engine(
            encoder,
            self.changed(task_vectors),
            heads,
            micro_batch=_MICRO_BATCH,
            parameterisation=parameterisation_of(self.settings.granularity, self.mask_options),
        )

    def learn(
        self,
        engine: Engine,
        task_vectors: TaskVectors,
        images: Arrays,
        labels: Arrays,
        seed: int,
        resume_from: str | PathLike[str] | None = None,
    ) -> Iterator[AdaptationStep]:
        """Learn merging parameters, step by step (see adapt).

        task_vectors: the plain ones. images: per task [N_k, ...]; labels: of those tasks whose
        labels are needed.
        """
        assert self.settings is not None
        objective, encoder, heads = self.settings.objective, engine.encoder, engine.heads
        targets = targets_for(objective, encoder, task_vectors, heads, images, labels)
        return adapt(engine, images, self.settings, seed, resume_from, targets=targets)


@dataclass(frozen=True)
class Alternatives:
    """The values of one parameter to try, and what the best is chosen by."""

    parameter: str
    values: tuple[Any, ...]
    by: str
    """One of CRITERIA."""
    methods: tuple[MethodChoice, ...]
    """The method with each of the values."""


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
