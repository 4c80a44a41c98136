"""Every "expected ... got ..." sentence of zfcore.

A wrong input is answered with one sentence: what was expected, what was found, what to do. As an exception it is an
`Expected`; the command lines print it and leave with status 2 (`exit_with_message`), so a user never meets a traceback for
something that is theirs to mend. A traceback always means a mistake in zfcore.
"""
import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from zfcore.hints import Array
from zfcore.terminal import Unheard, at_work, printable, refusal, status_of, warn


class Expected(ValueError):
    """`Expected("conv1.w", "shape (3, 7, 7, 96)", "(96, 3, 7, 7)", "swap the axes")` reads
    "conv1.w: expected shape (3, 7, 7, 96), got (96, 3, 7, 7); swap the axes"."""
    status = 2                    # of a command that it ends

    def __init__(self, what: object, expected: object, got: object, advice: str = "") -> None:
        self.what, self.expected, self.got, self.advice = what, expected, got, advice
        super().__init__(printable(f"{what}: expected {expected}, got {got}" + (f"; {advice}" if advice else "")))


def shape(what: object, array: Array, expected: Sequence[int | None]) -> None:
    """Raise unless `array.shape == expected`; an entry None in `expected` matches any size."""
    fits = len(array.shape) == len(expected) and all(e is None or e == n for e, n in zip(expected, array.shape))
    if not fits:
        wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + (",)" if len(expected) == 1 else ")")
        raise Expected(what, f"shape {wanted}", tuple(array.shape))


def dtype(what: object, array: Array, *expected: DTypeLike) -> None:
    """Raise unless the array's dtype is one of `expected`."""
    if array.dtype not in [np.dtype(e) for e in expected]:
        raise Expected(what, " or ".join(str(np.dtype(e)) for e in expected), array.dtype)


def finite(what: object, array: Array) -> None:
    """Raise if a value is NaN or infinite, saying how many are."""
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise Expected(what, "finite values", f"{bad} of {array.size} NaN or infinite")


def positive(what: object, value: float) -> None:
    """Raise unless value > 0 and finite."""
    if not 0 < value < float("inf"):
        raise Expected(what, "a number above 0", value)


def one_of(what: object, value: object, choices: Collection[Any]) -> None:
    """Raise unless `value` is among `choices`, which the sentence lists."""
    if value not in choices:
        raise Expected(what, "one of " + ", ".join(map(str, choices)), repr(value))


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A `type` for argparse: a whole number from `low` to `high`. Any other is answered as argparse answers, with the option's
    name."""
    def of(words: str) -> int:
        """The number that `words` say."""
        try:
            if low <= (value := int(words)) <= high:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {words!r}")
    return of


# Whole numbers that several command lines take.
SEED, BATCH, THREADS = whole_number(0, 2**63 - 1), whole_number(1, 2**20), whole_number(0, 1024)


class Parser(argparse.ArgumentParser):
    """Parser of a command line, whose refusals are lines like all others on standard error. An empty word is refused wherever
    it stands: it may be a variable of the shell that is not set, and would be taken for "none" or the default."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:    # type: ignore[override]
        """Parse as argparse does."""
        words = sys.argv[1:] if args is None else [*args]
        for before, word in zip(["", *words], words):
            if word == "" or word.startswith("--") and word.endswith("="):
                option = word[:-1] or (before if before.startswith("-") else "arguments")
                self.error(f"{option}: expected a word, got an empty one, perhaps a variable of the shell that is not set")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Print how the command is used and what is wrong, and leave with status 2."""
        _, was_strange, words = message.partition("unrecognized arguments: ")
        if was_strange and os.path.lexists(words):
            message += f"; a file of that name is ./{words}"
        self.print_usage(sys.stderr)
        warn(f"{self.prog}: error: {printable(message)}")
        sys.exit(2)


def exit_with_message(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a command line's `main`, the door of every command: an `Expected`, or what the system refuses (memory, a
    file, a thread), becomes its sentence on standard error and exit status 2, a Ctrl-C, SIGTERM or SIGHUP that `main` does not
    answer itself one word and the status that a shell has for it. What else a command's surroundings are is said in
    `terminal.at_work`."""
    @functools.wraps(main)
    def run(*args, **kwargs):
        with at_work():
            try:
                return main(*args, **kwargs)
            except Expected as sentence:
                warn(f"error: {sentence}", sentence.what)
                sys.exit(sentence.status)
            except KeyboardInterrupt as stop:
                warn("\nstopped")
                sys.exit(status_of(stop))
            except Exception as error:
                if not of_the_system(error):
                    raise
                warn(f"error: {refusal(error)}")
                sys.exit(2)
    return run


NO_LIBRARY = "failed to map segment|find/load shared object file 'libllvmlite"     # as Python and numba tell that memory is gone


def of_the_system(error: Exception) -> bool:
    """Return whether it says that the system, not zfcore, has failed. A reader of standard output that has gone is no
    failure."""
    no_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
    no_library = isinstance(error, (ImportError, OSError)) and re.search(NO_LIBRARY, str(error)) is not None
    refused = isinstance(error, OSError) and not isinstance(error, Unheard) and bool(error.errno)
    return isinstance(error, MemoryError) or no_thread or no_library or refused
