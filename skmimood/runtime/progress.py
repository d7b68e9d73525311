"""Progress of long jobs: one bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

from skmimood.runtime import distributed

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0
_SLACK = 1e-3  # seconds by which rounded sums of stages may exceed the whole
_BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_LINE = "{desc}: {percentage:.0f} %{postfix}; {elapsed} gone, about {remaining} left"


class _Lines(tqdm):
    """Progress in files and pipes, where nothing can be drawn over: a line at each stage, and one now and then."""

    disable: bool
    monitor_interval = 0  # no thread that draws more often
    told_at, told_n = -_SECONDS_BETWEEN_LINES, -1.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if time.monotonic() - self.told_at >= _SECONDS_BETWEEN_LINES:
            self.tell(str(self))

    def tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a closed pipe or a full disk does not end the job
            print(line.replace("; 00:00 gone, about ? left", ""), file=self.fp, flush=True)
        self.told_at, self.told_n = time.monotonic(), self.n

    def clear(self, nolock: bool = False) -> None:
        """Leave the lines where they are."""

    def close(self) -> None:
        if not self.disable and self.n != self.told_n:
            self.tell(str(self))
        self.disable = True


@dataclass
class _Job:
    """What is shown of a job: a bar in expected seconds, and those of the stages to come."""

    bar: tqdm
    to_come: dict[str, float]

    @classmethod
    def begin(cls, title: str, expected: Mapping[str, float]) -> _Job:
        total = sum(expected.values()) + _SLACK
        if sys.stderr.isatty():
            bar = tqdm(desc=title, total=total, mininterval=0.5, bar_format=_BAR, dynamic_ncols=True)
        else:
            bar = _Lines(desc=title, total=total, mininterval=0.5, bar_format=_LINE, delay=1e-9)
        return cls(bar, dict(expected))

    def seconds_of(self, stage: str) -> float:
        """Return the expected seconds of a stage that begins; the stages before it are skipped."""
        if stage not in self.to_come:
            return 0.0
        while (first := next(iter(self.to_come))) != stage:
            self.forgo(self.to_come.pop(first))
        return self.to_come.pop(stage)

    def forgo(self, seconds: float) -> None:
        """Expect fewer seconds, so that what is skipped is not taken for quick work."""
        self.bar.total -= seconds

    def show(self, text: str, *, at_once: bool = False) -> None:
        self.bar.set_postfix_str(text, refresh=False)
        if at_once and isinstance(self.bar, _Lines):
            self.bar.tell(str(self.bar))
        elif at_once:
            self.bar.refresh()


_job: ContextVar[_Job | None] = ContextVar("job", default=None)


class Stage:
    """A part of a job with a known number of steps; see `stage`."""

    def __init__(self, job: _Job | None, name: str, total: int, unit: str, done: int) -> None:
        self._job, self._name, self._total, self._unit, self._done = job, name, total, unit, done
        if job is not None:
            seconds = job.seconds_of(name)
            self._seconds_each = seconds / max(total, 1)
            job.forgo(done * self._seconds_each)
            job.show(self._text(""), at_once=True)

    def move_to(self, done: int, note: str = "") -> None:
        """Show how many steps are done, and a note."""
        if self._job is not None:
            n_new, self._done = done - self._done, done
            self._job.show(self._text(note))
            self._job.bar.update(n_new * self._seconds_each)

    def end(self) -> None:
        """Expect no more steps."""
        if self._job is not None:
            self._job.forgo((self._total - self._done) * self._seconds_each)

    def _text(self, note: str) -> str:
        progress = f"{self._name} {self._done}/{self._total} {self._unit}".lstrip()
        return f"{progress}, {note}" if note else progress


@contextlib.contextmanager
def job(title: str, expected: Mapping[str, float], *, shown: bool) -> Iterator[None]:
    """Show all stages that begin inside as parts of one job, or nothing unless ``shown``.

    ``expected`` has the stages in order and about how many seconds each takes. Only their ratios matter, since the pace
    so far gives the time that is left. Of processes that train together, only the first shows anything.
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
    """Show a stage of ``total`` steps, ``done`` of them before, in the `job` around it or, if ``shown``, by itself."""
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
    """Print a line above what is shown of a job; of processes that train together, only the first does."""
    if shown and _can_show():
        with contextlib.suppress(OSError):
            tqdm.write(line, file=sys.stderr)


def _can_show() -> bool:
    return sys.stderr is not None and distributed.is_first()


def each(
    items: Iterable[Item], name: str, unit: str, *, shown: bool, total: int | None = None
) -> Iterator[Item]:
    """Yield the items, each as a step of a `stage`; ``total`` is their number if they have no length."""
    total = len(items) if total is None else total  # type: ignore[arg-type]
    with stage(name, total, unit, shown=shown) as steps:
        for done, item in enumerate(items, start=1):
            yield item
            steps.move_to(done)
