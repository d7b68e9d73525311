"""How far a long job is and how long it may still take: one bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from skmimood.runtime import distributed

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0
_SLACK = 1e-3  # seconds: rounded sums of stages must not exceed the whole
_BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_LINE = "{desc}: {percentage:.0f} %{postfix}; {elapsed} gone, about {remaining} left"


class _Lines(tqdm):
    """Progress where nothing can be drawn over, as in files and pipes: a line a stage, and one now and then."""

    disable: bool
    monitor_interval = 0  # no thread that would draw more often
    told_at, told_n = -_SECONDS_BETWEEN_LINES, -1.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if time.monotonic() - self.told_at >= _SECONDS_BETWEEN_LINES:
            self.tell(str(self))

    def tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it, or the disk is full: the job goes on
            print(line, file=self.fp, flush=True)
        self.told_at, self.told_n = time.monotonic(), self.n

    def clear(self, nolock: bool = False) -> None:
        """Leave the lines where they are."""

    def close(self) -> None:
        if not self.disable and self.n != self.told_n:
            self.tell(str(self))
        self.disable = True


@dataclass
class _Job:
    """What is shown of a job: a bar in expected seconds, and the expected seconds of the stages to come."""

    bar: tqdm
    to_come: dict[str, float]

    @classmethod
    def begin(cls, title: str, expected: Mapping[str, float]) -> _Job:
        total = sum(expected.values()) + _SLACK
        options: dict[str, Any] = {"desc": title, "total": total, "mininterval": 0.5}
        if sys.stderr.isatty():
            return cls(tqdm(bar_format=_BAR, dynamic_ncols=True, **options), dict(expected))
        return cls(_Lines(bar_format=_LINE, delay=1e-9, **options), dict(expected))

    def seconds_of(self, stage: str) -> float:
        """Take a stage from those to come, and return its expected seconds; those before it do not come any more."""
        if stage not in self.to_come:
            return 0.0
        while (first := next(iter(self.to_come))) != stage:
            self.forgo(self.to_come.pop(first))
        return self.to_come.pop(stage)

    def forgo(self, seconds: float) -> None:
        """Expect less than before: what comes from a cache or ends early was not quick work."""
        self.bar.total -= seconds

    def show(self, text: str, *, at_once: bool = False) -> None:
        self.bar.set_postfix_str(text, refresh=False)
        if not at_once:
            return
        if isinstance(self.bar, _Lines):
            self.bar.tell(str(self.bar))
        else:
            self.bar.refresh()


_job: ContextVar[_Job | None] = ContextVar("job", default=None)


class Stage:
    """A part of a job that has a known number of steps; see `stage`."""

    def __init__(self, job: _Job | None, name: str, total: int, unit: str, done: int) -> None:
        self._job, self._name, self._total, self._unit, self._done = job, name, total, unit, done
        if job is not None:
            seconds = job.seconds_of(name)
            self._seconds_each = seconds / max(total, 1)
            job.forgo(done * self._seconds_each)
            job.show(self._text(""), at_once=True)

    def move_to(self, done: int, note: str = "") -> None:
        """Say how many steps are done, and something about the last of them."""
        if self._job is not None:
            n_new, self._done = done - self._done, done
            self._job.show(self._text(note))
            self._job.bar.update(n_new * self._seconds_each)

    def advance(self) -> None:
        """Say that one more step is done."""
        self.move_to(self._done + 1)

    def end(self) -> None:
        """Expect no more steps."""
        if self._job is not None:
            self._job.forgo((self._total - self._done) * self._seconds_each)

    def _text(self, note: str) -> str:
        progress = f"{self._name} {self._done}/{self._total} {self._unit}".lstrip()
        return f"{progress}, {note}" if note else progress


@contextlib.contextmanager
def job(title: str, expected: Mapping[str, float], *, shown: bool) -> Iterator[None]:
    """Show all stages that begin inside as parts of one job, whether or not they would be shown by themselves.

    Parameters
    ----------
    title : str
    expected : mapping of str to float
        The stages in their order, and about how many seconds each takes. Only their ratios matter, as the time that is
        left is told by the pace so far. A stage that never begins is taken as done.
    shown : bool
        If False, do nothing. Of processes that train together, only the first shows anything.
    """
    if not (shown and _can_show()):
        yield
        return
    shown_job = _Job.begin(title, expected)
    token = _job.set(shown_job)
    try:
        yield
    finally:
        _job.reset(token)
        shown_job.bar.close()


@contextlib.contextmanager
def stage(name: str, total: int, unit: str, *, shown: bool, done: int = 0) -> Iterator[Stage]:
    """Show a stage of ``total`` steps, as a part of the `job` around it or, if ``shown``, by itself.

    ``done`` of the steps were done before, by a job that was interrupted.
    """
    around = _job.get()
    own = None
    if around is None and shown and _can_show():
        own = _Job.begin(name, {"": float(total)})
    one = Stage(around or own, "" if own else name, total, unit, done)
    try:
        yield one
        one.end()
    finally:
        if own is not None:
            own.bar.close()


def tell(line: str, *, shown: bool) -> None:
    """Print a line above what is shown of a job; of processes that train together, the first alone does."""
    if shown and _can_show():
        with contextlib.suppress(OSError):
            tqdm.write(line, file=sys.stderr)


def _can_show() -> bool:
    return sys.stderr is not None and distributed.is_first()


def each(
    items: Iterable[Item], name: str, unit: str, *, shown: bool, total: int | None = None
) -> Iterator[Item]:
    """Yield the items, one a step of a `stage`; ``total`` is their number if they have no length."""
    total = len(items) if total is None else total  # type: ignore[arg-type]
    with stage(name, total, unit, shown=shown) as steps:
        for item in items:
            yield item
            steps.advance()
