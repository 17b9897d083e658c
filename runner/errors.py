"""Every error that a person can meet.

    RunnerError                  the base; never raised itself
    ├── UsageError          2    a wrong command or option
    ├── JobError            2    the job file, with every mistake at once
    ├── TemplateError       2    a template that cannot be compiled, or cannot be rendered for a row
    ├── InputError          2    an input file, with file, line and byte offset
    ├── RunDirectoryError   2    a run directory that is not ours, not whole, or of another job
    │   └── ChangedError    2    the job or the input differs from the run's
    ├── ConsentError        2    a question about money that nobody has said yes to
    ├── StoppedError        3    a person is needed: key, quota, model, too many failures
    ├── LaterError         75    the same command works later: an outage, a long wait
    │   └── HeldError      75    another process has the run
    └── StorageError        4    the disk refused a write; everything acknowledged is still there

The class docstring is the message when none is given. ``exit_code`` is what the command line exits with; ``hint``
says what to do next. Expected failures of rows are values (`records.Failure`), never exceptions.
"""

from __future__ import annotations

from typing import Any


class RunnerError(Exception):
    """Something went wrong."""

    exit_code = 4
    result: Any = None  #: the `runner.Result` of a run that stopped with this error: how far it came

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.hint = hint
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword arguments do not pickle by themselves, and these cross process borders.
        return _rebuild, (type(self), self.message, self.hint, self.__dict__.copy())


def _rebuild(kind: type[RunnerError], message: str, hint: str, state: dict[str, Any]) -> RunnerError:
    error = kind.__new__(kind)
    RunnerError.__init__(error, message, hint=hint)
    error.__dict__.update(state)
    return error


class UsageError(RunnerError):
    """The command cannot be understood."""

    exit_code = 2


class JobError(RunnerError):
    """The job file has mistakes."""

    exit_code = 2

    def __init__(self, message: str = "", *, hint: str = "", mistakes: tuple[str, ...] = ()) -> None:
        """`mistakes`: one line each, `jobs/x.yaml:12: retry.max_atempts: unknown key; did you mean max_attempts?`."""
        super().__init__(message or "\n".join(mistakes), hint=hint)
        self.mistakes = mistakes


class TemplateError(RunnerError):
    """A template cannot be used."""

    exit_code = 2


class InputError(RunnerError):
    """The input cannot be read."""

    exit_code = 2


class RunDirectoryError(RunnerError):
    """The run directory cannot be used."""

    exit_code = 2


class ChangedError(RunDirectoryError):
    """The job or its input is not the one that this run was started with."""


class ConsentError(RunnerError):
    """Nobody has said yes to what this may cost."""

    exit_code = 2


class StoppedError(RunnerError):
    """The job stopped: a person is needed."""

    exit_code = 3


class LaterError(RunnerError):
    """The job stopped: the same command works later."""

    exit_code = 75


class HeldError(LaterError):
    """Another process is working on this run."""


class StorageError(RunnerError):
    """The disk refused a write; everything acknowledged before is still there."""

    exit_code = 4
