"""Standard output and error that may be closed before the job is done, as by ``skmimood score ... | head``."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class _Outliving:
    """A text stream whose reader may go, or whose disk may be full: what is written then is lost, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except OSError:  # what is left in the buffer must not fail again when Python exits
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Let a job outlive those who read its output; its results matter more."""
    with contextlib.ExitStack() as stack:
        for redirect, stream in (
            (contextlib.redirect_stdout, sys.stdout),
            (contextlib.redirect_stderr, sys.stderr),
        ):
            if stream is None:  # closed before the start
                stream = stack.enter_context(open(os.devnull, "w"))
            if hasattr(stream, "reconfigure"):
                # File names need not be text, and those that are keep their letters where the locale knows ASCII only.
                is_ascii = codecs.lookup(stream.encoding).name == "ascii"
                stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")
            outliving = _Outliving(stream)
            stack.enter_context(redirect(outliving))
            stack.callback(outliving.flush)
        yield
