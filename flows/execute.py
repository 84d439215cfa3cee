"""One pass over the graph: what is ready goes to Prefect's task runner, the longest chain first."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from queue import Empty, SimpleQueue
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dvc.plan import Outcome, Plan, Worker
from flows.estimates import Estimates, clock
from tasks.graph import dvc_yaml
from tasks.graph.build import uses_device
from tasks.running.hashes import signature
from tasks.running.journal import Journal

_PROGRESS = re.compile(r"\d+/\d+ ")
_PROGRESS_SECONDS = 5.0  # between two progress lines of a stage on the console; Prefect has all


class Run:
    """Brings the stages of a plan up to date; at most `workers` of them are at work at a time."""

    def __init__(self, plan: Plan, log: Journal, workers: int) -> None:
        self._plan, self._log, self._workers = plan, log, workers
        self._settled = plan.settled
        self._estimates = Estimates(plan.upstream)
        self._logger = get_run_logger()
        self._began = time.monotonic()
        self._one_at_a_time = _on_device()
        self._futures: dict[str, PrefectFuture[Any]] = {}
        self._ended: SimpleQueue[str] = SimpleQueue()
        self._outcomes: dict[str, Outcome] = {}
        self._running: dict[str, float] = {}
        self._idle: list[Worker] = []
        self._working: dict[str, Worker] = {}
        self._stopped = False

    @property
    def failed(self) -> list[str]:
        return [name for name, outcome in self._outcomes.items() if outcome is Outcome.FAILED]

    def all(self) -> None:
        """Returns when every stage has ended, or cannot run."""
        todo = len(self._plan.upstream) - len(self._settled)
        self.say(f"{len(self._plan.upstream)} stages, {todo} to bring up to date")
        self._journal_cached(self._settled)
        tasks: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=self._workers)
        with tasks as runner:
            try:
                self._work_through(runner)
            except BaseException:
                self.stop()  # before the runner waits for its threads
                raise
        again = [n for n, o in self._outcomes.items() if o in (Outcome.UNCHANGED, Outcome.RESTORED)]
        self._journal_cached(set(again) - self._settled)
        self._estimates.save()

    def stop(self) -> None:
        """Ends whatever is still at work."""
        self._stopped = True
        Worker.stop(*self._working.values(), *self._idle)

    def say(self, text: str) -> None:
        """To Prefect's log and the console."""
        self._logger.info(text)
        _print(text)

    def counts(self) -> dict[str, int]:
        """How many stages ended in which way."""
        found = Counter(self._outcomes.values())
        return {
            "run": found[Outcome.RAN],
            "cached": found[Outcome.UNCHANGED] + found[Outcome.RESTORED],
            "failed": found[Outcome.FAILED],
            "not_run": found[Outcome.BLOCKED],
        }

    def summary(self) -> str:
        """One line for a person."""
        counts = self.counts()
        parts = [f"{counts['run']} ran", f"{counts['cached']} cached"]
        if self.failed:
            parts.append(f"{counts['failed']} failed ({', '.join(self.failed)})")
        if counts["not_run"]:
            parts.append(f"{counts['not_run']} not run, as they depend on what failed")
        took = clock(time.monotonic() - self._began)
        return f"{len(self._plan.upstream)} stages in {took}: {', '.join(parts)}"

    # scheduling

    def _work_through(self, runner: ThreadPoolTaskRunner[Any]) -> None:
        for name in self._plan.upstream:
            if name in self._settled:
                self._submit(name, runner)
        while len(self._outcomes) < len(self._plan.upstream):
            for name in self._next():
                self._submit(name, runner)
            self._await_one()

    def _next(self) -> list[str]:
        """What to submit now: all that cannot run any more, and what is ready, as room allows."""
        pending = [name for name in self._plan.upstream if name not in self._futures]
        ready = [n for n in pending if all(up in self._outcomes for up in self._plan.upstream[n])]
        blocked = [name for name in ready if self._is_blocked(name)]
        longest = self._estimates.priorities()
        ready = sorted((n for n in ready if n not in blocked), key=lambda n: -longest[n])
        chosen: list[str] = []
        for name in ready:
            busy = [*self._running, *chosen]
            taken = name in self._one_at_a_time and self._one_at_a_time.intersection(busy)
            if len(busy) < self._workers and not taken:
                chosen.append(name)
        return blocked + chosen

    def _is_blocked(self, name: str) -> bool:
        bad = (Outcome.FAILED, Outcome.BLOCKED)
        return any(self._outcomes[above] in bad for above in self._plan.upstream[name])

    def _submit(self, name: str, runner: ThreadPoolTaskRunner[Any]) -> None:
        """As a Prefect task; one whose upstream has failed ends there as NotReady, without
        running.
        """

        @task(
            name=name.split("@")[0], task_run_name=name, cache_policy=NO_CACHE, persist_result=False
        )
        def stage() -> State[None]:
            return self._work(name)

        if name not in self._settled and not self._is_blocked(name):
            self._running[name] = time.monotonic()
        above = [self._futures[other] for other in self._plan.upstream[name]]
        future = runner.submit(stage, {}, wait_for=above)
        self._futures[name] = future
        future.add_done_callback(lambda _: self._ended.put(name))

    def _await_one(self) -> None:
        """Waits for the end of a stage; in short turns, as only then Ctrl-C is heard at once."""
        while True:
            try:
                name = self._ended.get(timeout=0.5)
                break
            except Empty:
                continue
        blocked = name not in self._settled and self._is_blocked(name)
        self._outcomes.setdefault(name, Outcome.BLOCKED if blocked else Outcome.FAILED)
        since = self._running.pop(name, None)
        if since is not None:
            self._report(name, time.monotonic() - since)

    def _report(self, name: str, seconds: float) -> None:
        outcome = self._outcomes[name]
        if outcome is Outcome.RAN:
            self._estimates.learn(name, seconds)
        total = len(self._plan.upstream)
        waiting = [n for n in self._plan.upstream if n not in self._futures]
        left = self._estimates.left(waiting, self._running, self._workers)
        elapsed = clock(time.monotonic() - self._began)
        self.say(
            f"[{len(self._outcomes):{len(str(total))}}/{total}] {name:<40} {outcome.value:<9} "
            f"{seconds:6.1f} s | {elapsed} elapsed, about {clock(left)} left"
        )

    # a stage, in a thread of the task runner

    def _work(self, name: str) -> State[None]:
        if name in self._settled:
            self._outcomes[name] = Outcome.UNCHANGED
            return Completed(name="Cached", message="nothing has changed")
        if self._stopped:
            return Failed(message="the pipeline was stopped")
        worker = self._worker()
        self._working[name] = worker
        if self._stopped:  # meanwhile
            Worker.stop(worker)
        outcome = worker.bring_up_to_date(name, _Lines(name, lambda: self._stopped))
        del self._working[name]
        self._idle.append(worker)
        self._outcomes[name] = outcome
        if outcome is Outcome.FAILED:
            return Failed(message=f"{name} failed: its log says why")
        if outcome is Outcome.RAN:
            return Completed(message=outcome.value)
        return Completed(name="Cached", message=outcome.value)

    def _worker(self) -> Worker:
        """One that waits for work, else a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            Worker.stop(worker)
        return Worker(self._log.run)

    def _journal_cached(self, names: Collection[str]) -> None:
        """For MLflow: these stages lead to the runs that produced their files."""
        locked = dvc_yaml.read_lock()
        for name in self._plan.upstream:
            if name in names and (entry := locked.get(name)):
                facts = {"params": entry.params, "deps": entry.deps, "outs": entry.outs}
                self._log.cached(name, signature=signature(name, **facts), outs=entry.outs)


class _Lines:
    """Where the lines of one stage go: all to Prefect, progress to the console now and then."""

    def __init__(self, name: str, stopped: Callable[[], bool]) -> None:
        self._name, self._logger, self._shown = name, get_run_logger(), 0.0
        self._stopped = stopped

    def __call__(self, line: str) -> None:
        if self._stopped():  # what an interrupted process says is of no use
            return
        self._logger.info(line)
        now = time.monotonic()
        if _PROGRESS.match(line):
            if now - self._shown < _PROGRESS_SECONDS:
                return
            self._shown = now
        _print(f"{self._name} | {line}")


def _on_device() -> set[str]:
    """The stages that share the one accelerator, if the suite uses one; each may fill it."""
    if dvc_yaml.read_params().get("compute", {}).get("device", "cpu") == "cpu":
        return set()
    return {name for name, stage in dvc_yaml.read().items() if uses_device(stage)}


def _print(line: str) -> None:
    """One write a line, as several threads print."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
