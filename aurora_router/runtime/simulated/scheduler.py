"""A virtual clock, a seed, and coroutines that take turns on them: no thread, no event loop, no real time.

Theory. A task runs until it suspends by `Simulation.park`, alone; then the task that is due next runs. Of several that
are due at the same moment a number drawn from the seed decides, so a seed is one interleaving, and another seed is
another one. The clock jumps from one due time to the next.

Invariants: the same seed and the same calls give the same run, event by event; time never goes back; a task that is
cancelled runs its clean-up; a run in which all tasks wait forever raises `Deadlock`.
"""

from __future__ import annotations

import contextlib
import random
import types
from collections import Counter
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable

    from typing_extensions import Self

T = TypeVar("T")

FOREVER = float("inf")


class Deadlock(RuntimeError):
    """A task is waited for, and none is left that could ever run."""


class Cancelled(BaseException):
    """Thrown into a task that is cancelled; no ``except Exception`` stops it."""


@types.coroutine
def _park(until: float) -> Generator[float, None, None]:
    """Suspend; the scheduler learns until when, at most."""
    yield until


class Task(Generic[T]):
    """A coroutine on its way."""

    def __init__(self, simulation: Simulation, procedure: Coroutine[Any, Any, T]) -> None:
        self.simulation = simulation
        self.done = False
        self.error: BaseException | None = None
        self._procedure = procedure
        self._result: list[T] = []
        self._turn = 0
        self._cancelled = False
        self._watchers: list[Task[Any]] = []

    def result(self) -> T:
        """What the coroutine returned.

        Raises:
            RuntimeError: it is not done.
            BaseException: what it raised.
        """
        if self.error is not None:
            raise self.error
        if not self.done:
            raise RuntimeError("the task is not done yet: run the simulation on")
        return self._result[0]

    def cancel(self) -> None:
        """Throw `Cancelled` into the coroutine, where it waits, when its turn comes."""
        if not self.done:
            self._cancelled = True
            self.simulation.due(self, self.simulation.now)

    async def wait(self) -> T:
        """Wait, as another task, until it is done; gives and raises what `result` does."""
        while not self.done:
            self._watchers.append(self.simulation.current)
            await self.simulation.park()
        return self.result()

    def step(self, turn: int) -> None:
        """Run until the next suspension; `turn` distinguishes a wake-up that was overtaken by another one."""
        if self.done or turn != self._turn:
            return
        self._turn += 1
        cancelled, self._cancelled = self._cancelled, False
        try:
            until: float = self._procedure.throw(Cancelled()) if cancelled else self._procedure.send(None)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except BaseException as raised:  # noqa: BLE001 - kept in the task, and raised by `result`
            self._finish(None, raised)
        else:
            if until < FOREVER:
                self.simulation.due(self, until)

    @property
    def turn(self) -> int:
        """How often it has run; a wake-up counts for one turn alone."""
        return self._turn

    def close(self) -> None:
        """End the coroutine where it is."""
        self._procedure.close()
        self.done = True

    def _finish(self, result: Any, error: BaseException | None) -> None:
        self.done, self.error = True, error
        if error is None:
            self._result.append(result)
        for watcher in self._watchers:
            self.simulation.due(watcher, self.simulation.now)


class Simulation:
    """One run: a clock, a seed, tasks.

    A context manager: leaving it ends what still runs.

    Args:
        seed: decides all randomness and the order of what happens at the same time.

    Attributes:
        now: the virtual time since the start, in seconds.
        rng: the randomness.
        counts: how often what happened (``dial``, ``ask``, ``resolve``), for figures.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.now = 0.0
        self.rng = random.Random(seed)  # noqa: S311 - a simulation has to be repeatable
        self.counts: Counter[str] = Counter()
        self._sequence = 0
        self._due: list[tuple[float, float, int, Task[Any], int]] = []
        self._tasks: dict[Task[Any], None] = {}
        self._current: Task[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all tasks where they are, and those that they begin meanwhile."""
        while self._tasks:
            task = next(iter(self._tasks))
            del self._tasks[task]
            task.close()
        self._due.clear()

    # ------------------------------------------------------------ tasks

    @property
    def current(self) -> Task[Any]:
        """The task that runs.

        Raises:
            RuntimeError: none does.
        """
        if self._current is None:
            raise RuntimeError("this may only be awaited by a task of the simulation: use Simulation.run or spawn")
        return self._current

    def spawn(self, procedure: Coroutine[Any, Any, T], *, after: float = 0.0) -> Task[T]:
        """Start a coroutine as a task, in `after` seconds."""
        task = Task(self, procedure)
        self._tasks[task] = None
        self.due(task, self.now + after)
        return task

    def at(self, time: float, happening: Callable[[], object]) -> None:
        """Call `happening` at the virtual time `time`: a fault, a failover."""

        async def happen() -> None:
            happening()

        self.spawn(happen(), after=max(0.0, time - self.now))

    def due(self, task: Task[Any], time: float) -> None:
        """Let a task run at `time`, unless it ran before."""
        self._sequence += 1
        heappush(self._due, (time, self.rng.random(), self._sequence, task, task._turn))  # noqa: SLF001 - of this module

    # ------------------------------------------------------------ waiting, for tasks

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Let `seconds` of virtual time pass."""
        return _park(self.now + seconds)

    def park(self, until: float = FOREVER) -> Awaitable[None]:
        """Suspend the running task until `until`, or until `waker` of it is called."""
        return _park(until)

    def waker(self) -> Callable[[], None]:
        """A function that lets the running task go on from where it suspends next."""
        task, turn = self.current, self.current.turn

        def wake() -> None:
            if not task.done and task.turn == turn:
                self.due(task, self.now)

        return wake

    # ------------------------------------------------------------ running

    def run(self, procedure: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and all other tasks meanwhile.

        Raises:
            Deadlock: it waits for something that can never happen.
            BaseException: what it raises.
        """
        task = self.spawn(procedure)
        while not task.done:
            if not self._step():
                raise Deadlock(f"at {self.now:.3f} s: {len(self._tasks)} tasks wait, and nothing is due any more")
        return task.result()

    def run_all(self, procedures: Iterable[Coroutine[Any, Any, T]]) -> list[Task[T]]:
        """Run coroutines side by side until all are done; what they came to is in the tasks."""
        tasks = [self.spawn(each) for each in procedures]

        async def wait() -> None:
            for task in tasks:
                with contextlib.suppress(BaseException):  # kept in the task
                    await task.wait()

        self.run(wait())
        return tasks

    def run_until(self, time: float) -> None:
        """Run everything that is due up to the virtual time `time`, and set the clock to it."""
        while self._due and self._due[0][0] <= time:
            self._step()
        self.now = max(self.now, time)

    def _step(self) -> bool:
        if not self._due:
            return False
        time, _, _, task, turn = heappop(self._due)
        self.now = max(self.now, time)
        earlier, self._current = self._current, task
        try:
            task.step(turn)
        finally:
            self._current = earlier
        if task.done:
            self._tasks.pop(task, None)
        return True
