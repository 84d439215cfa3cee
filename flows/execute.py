"""One pass over the graph: what flows.order says may start runs as a task of Prefect's."""

import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from queue import Empty, SimpleQueue
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dvc.plan import Plan
from flows.dvc.worker import Worker
from flows.estimates import Estimates
from flows.order import Order, Outcome
from tasks.graph import dvc_lock, dvc_yaml, params_yaml
from tasks.graph.templates import uses_device
from tasks.running.durations import clock
from tasks.running.hashes import signature
from tasks.running.journal import Journal

_PROGRESS = re.compile(r"\d+/\d+ ")
_LAST_LINES = 15
RETRY_SECONDS = (60.0, 300.0, 900.0)
"""Before the next attempts at a stage that a network kept from ending well; within an attempt the
download itself waits for seconds."""
_PROGRESS_SECONDS = 5.0  # between two progress lines of a stage on the console; Prefect has all


class Run:
    """Brings the stages of a plan up to date; at most `workers` of them are at work at a time."""

    def __init__(self, plan: Plan, log: Journal, workers: int) -> None:
        self._plan, self._log, self._workers = plan, log, workers
        self._settled = plan.settled
        self._order = Order(
            plan.upstream, workers, settled=self._settled, on_device=_stages_on_device()
        )
        self._estimates = Estimates(plan.upstream)
        self._logger = get_run_logger()
        self._began = time.monotonic()
        self._started: dict[str, float] = {}
        self._futures: dict[str, PrefectFuture[Any]] = {}
        self._open: set[str] = set()  # Prefect tasks without an end
        self._ended: SimpleQueue[str] = SimpleQueue()
        self._worked: dict[str, Outcome] = {}  # by the threads of the task runner
        self._idle: list[Worker] = []
        self._working: dict[str, Worker] = {}
        self._stopped = threading.Event()
        self.last_lines = {name: deque[str](maxlen=_LAST_LINES) for name in plan.upstream}
        """What each stage said last."""

    @property
    def failed(self) -> list[str]:
        """The stages that failed, in the order of their ends."""
        return [name for name, outcome in self._order.outcomes.items() if outcome is Outcome.FAILED]

    def all(self) -> None:
        """Bring up to date what can be; return when every stage has ended, or cannot run."""
        self.say(self._forecast())
        self._journal_cached(self._settled)
        tasks: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=self._workers)
        with tasks as runner:
            try:
                self._work_through(runner)
            except BaseException:
                self.stop()  # before the runner waits for its threads
                raise
        cached = (Outcome.UNCHANGED, Outcome.RESTORED)
        found = {name for name, outcome in self._order.outcomes.items() if outcome in cached}
        self._journal_cached(found - self._settled)
        self._estimates.save()

    def _forecast(self) -> str:
        """Say how many stages there are, how many are not up to date, how long these take."""
        todo = [name for name in self._plan.upstream if name not in self._settled]
        text = f"{len(self._plan.upstream)} stages, {len(todo)} to bring up to date"
        if not todo:
            return text
        seconds = self._estimates.left(todo, {}, self._workers)
        return f"{text} in about {clock(seconds)}, less where the cache has them"

    def stop(self) -> None:
        """End whatever is still at work."""
        self._stopped.set()
        Worker.stop(*self._working.values(), *self._idle)

    def say(self, text: str) -> None:
        """Write a line to Prefect's log and the console."""
        self._logger.info(text)
        _print(text)

    def say_standing(self) -> None:
        """Print how far an interrupted run has come."""
        counts = self.counts()
        done = counts["run"] + counts["cached"]
        _print(f"interrupted: {done} of {len(self._plan.upstream)} stages are up to date")

    def counts(self) -> dict[str, int]:
        """Count the stages by how they ended."""
        found = Counter(self._order.outcomes.values())
        return {
            "run": found[Outcome.RAN],
            "cached": found[Outcome.UNCHANGED] + found[Outcome.RESTORED],
            "failed": found[Outcome.FAILED],
            "not_run": found[Outcome.BLOCKED],
        }

    def summary(self) -> str:
        """Sum the run up in one line."""
        counts = self.counts()
        same = counts["cached"] == len(self._plan.upstream)
        parts = [
            f"{counts['run']} ran",
            f"{counts['cached']} cached{': nothing has changed' if same else ''}",
        ]
        if self.failed:
            parts.append(f"{counts['failed']} failed ({', '.join(self.failed)})")
        if counts["not_run"]:
            parts.append(f"{counts['not_run']} not run, as they depend on what failed")
        took = clock(time.monotonic() - self._began)
        return f"{len(self._plan.upstream)} stages in {took}: {', '.join(parts)}"

    # carrying the order out

    def _work_through(self, runner: ThreadPoolTaskRunner[Any]) -> None:
        if self._settled:
            self._show_settled()
        while not self._order.done or self._open:
            for name in self._order.block() + self._order.start(self._estimates.priorities()):
                self._submit(name, runner)
            self._await_one()

    def _show_settled(self) -> None:
        """Show the stages with nothing to do as one task run: one each costs more than they do."""

        @task(
            name="cached",
            task_run_name=f"cached ({len(self._settled)} stages)",
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        def cached() -> State[None]:
            get_run_logger().info("\n".join(sorted(self._settled)))
            return Completed(name="Cached", message="nothing has changed")

        cached(return_state=True)

    def _submit(self, name: str, runner: ThreadPoolTaskRunner[Any]) -> None:
        """Hand a stage to Prefect; one whose upstream has failed ends there as NotReady, without
        running.
        """

        @task(
            name=name.split("@")[0], task_run_name=name, cache_policy=NO_CACHE, persist_result=False
        )
        def stage() -> State[None]:
            return self._work(name)

        if name in self._order.running:
            self._started[name] = time.monotonic()
        self._open.add(name)
        above = [
            self._futures[other]
            for other in self._plan.upstream[name]
            if other not in self._settled
        ]
        future = runner.submit(stage, {}, wait_for=above)
        self._futures[name] = future
        future.add_done_callback(lambda _: self._ended.put(name))

    def _await_one(self) -> None:
        """Wait for the end of a Prefect task; in short turns, as only then Ctrl-C is heard at
        once.
        """
        while True:
            try:
                name = self._ended.get(timeout=0.5)
                break
            except Empty:
                continue
        self._open.remove(name)
        if name in self._order.running:
            # one that Prefect ended before it worked has no outcome of its own
            self._order.end(name, self._worked.get(name, Outcome.FAILED))
            self._report(name, time.monotonic() - self._started.pop(name))

    def _report(self, name: str, seconds: float) -> None:
        outcome = self._order.outcomes[name]
        if outcome is Outcome.RAN:
            self._estimates.learn(name, seconds)
        total, now = len(self._plan.upstream), time.monotonic()
        running = {other: now - since for other, since in self._started.items()}
        left = self._estimates.left(self._order.waiting, running, self._workers)
        self.say(
            f"[{len(self._order.outcomes):{len(str(total))}}/{total}] {name:<40} "
            f"{outcome.value:<9} {seconds:6.1f} s | {clock(now - self._began)} elapsed, "
            f"about {clock(left)} left"
        )

    # a stage, in a thread of the task runner

    def _work(self, name: str) -> State[None]:
        if self._stopped.is_set():
            return Failed(message="the pipeline was stopped")
        outcome = self._attempts(name, _Lines(name, self._stopped.is_set, self.last_lines[name]))
        self._worked[name] = outcome
        if outcome is Outcome.FAILED:
            last = "\n".join(self.last_lines[name])
            return Failed(message=f"{name} failed: its log says why\n{last}")
        if outcome is Outcome.RAN:
            return Completed(message=outcome.value)
        return Completed(name="Cached", message=outcome.value)

    def _attempts(self, name: str, lines: "_Lines") -> Outcome:
        """Run a stage; one that a network kept from ending well again, after waits."""
        for wait in (*RETRY_SECONDS, None):
            outcome = self._attempt(name, lines)
            if outcome is not Outcome.UNREACHED or wait is None:
                break
            lines(f"the network failed: again in {clock(wait)}")
            if self._stopped.wait(wait):
                break
        return Outcome.FAILED if outcome is Outcome.UNREACHED else outcome

    def _attempt(self, name: str, lines: "_Lines") -> Outcome:
        worker = self._worker()
        self._working[name] = worker
        if self._stopped.is_set():  # meanwhile
            Worker.stop(worker)
        outcome = worker.bring_up_to_date(name, lines, force=name in self._plan.forced)
        del self._working[name]
        self._idle.append(worker)
        return outcome

    def _worker(self) -> Worker:
        """Take a worker that waits for work, else starts one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            Worker.stop(worker)
        return Worker(self._log.run)

    def _journal_cached(self, names: Collection[str]) -> None:
        """Note for MLflow that these stages lead to the runs that produced their files."""
        if not names:
            return
        locked = dvc_lock.read_lock()
        for name in self._plan.upstream:
            if name in names and (entry := locked.get(name)):
                facts = {"params": entry.params, "deps": entry.deps, "outs": entry.outs}
                self._log.cached(name, signature=signature(name, **facts), outs=entry.outs)


class _Lines:
    """Where the lines of one stage go: all to Prefect, progress to the console now and then; the
    others to `kept`.
    """

    def __init__(self, name: str, stopped: Callable[[], bool], kept: "deque[str]") -> None:
        self._name, self._logger, self._shown = name, get_run_logger(), 0.0
        self._stopped, self._kept = stopped, kept

    def __call__(self, line: str) -> None:
        if self._stopped():  # what an interrupted process says is of no use
            return
        self._logger.info(line)
        now = time.monotonic()
        if _PROGRESS.match(line):
            if now - self._shown < _PROGRESS_SECONDS:
                return
            self._shown = now
        else:
            self._kept.append(line)
        _print(f"{self._name} | {line}")


def _stages_on_device() -> set[str]:
    """List the stages that share the one accelerator, if the suite uses one; each may fill it."""
    if params_yaml.values(["compute.device"])["compute.device"] != "cuda":
        return set()
    return {name for name, stage in dvc_yaml.read().items() if uses_device(stage)}


def _print(line: str) -> None:
    """One write a line, as several threads print."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
