"""Every "expected ... got ..." sentence of zfcore.

A wrong input is answered with one sentence: what was expected, what was found, what to do. As an exception it is an
`Expected`; the command lines print it and leave with status 2 (`exit_with_message`), so a user never meets a traceback for
something that is theirs to mend. A traceback always means a mistake in zfcore.
"""
import argparse
import copyreg
import functools
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from zfcore.hints import Array
from zfcore.terminal import Unheard, as_called, at_work, printable, refusal, status_of, warn

LARGEST_SEED = 2**63 - 1          # above, NumPy takes the two words of a key for floats, and one seed draws what another does


class Expected(ValueError):
    """`Expected("conv1.w", "shape (3, 7, 7, 96)", "(96, 3, 7, 7)", "swap the axes")` reads
    "conv1.w: expected shape (3, 7, 7, 96), got (96, 3, 7, 7); swap the axes". It names options, "--data", which a program that
    calls functions is told as arguments, "data" (`terminal.as_called`)."""
    status = 2                    # of a command that it ends

    def __init__(self, what: object, expected: object, got: object, advice: str = "") -> None:
        self.what, self.expected, self.got, self.advice = what, expected, got, advice
        told = f"{as_called(f'{what}: expected {expected}')}, got {got}" + (f"; {as_called(advice)}" if advice else "")
        super().__init__(printable(told))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy, or send to another process, one of whatever subclass: without its `__init__`, which takes other arguments than
        an exception keeps."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)         # type: ignore[attr-defined]


@contextmanager
def told_of(option: str, what: str) -> Iterator[None]:
    """`with told_of("--against", "--run"):` a sentence about "--run" is one about "--against", which was asked."""
    try:
        yield
    except Expected as sentence:
        if sentence.what != what:
            raise
        raise Expected(option, sentence.expected, sentence.got, sentence.advice) from None


def unmasked(what: object, array: Any) -> None:
    """Raise where numbers of an array are marked as none, which nobody asks."""
    if isinstance(array, np.ma.MaskedArray):
        raise Expected(what, "an array without a mask", "a masked one", "filled(value) of it has a value for what is masked")


def shape(what: object, array: Array, expected: Sequence[int | None]) -> None:
    """Raise unless `array.shape == expected`; an entry None in `expected` matches any size."""
    unmasked(what, array)
    if not hasattr(array, "shape"):
        raise Expected(what, f"an array {_sizes(expected)}", "None" if array is None else type(array).__name__)
    if not _fits(array, expected):
        raise Expected(what, f"shape {_sizes(expected)}", tuple(array.shape))


def _fits(array, expected):
    return len(array.shape) == len(expected) and all(e is None or e == n for e, n in zip(expected, array.shape))


def _sizes(expected):
    """A shape in words, "any" for None."""
    return "(" + ", ".join("any" if e is None else str(e) for e in expected) + (",)" if len(expected) == 1 else ")")


def dtype(what: object, array: Array, *expected: DTypeLike, advice: str = "") -> None:
    """Raise unless the array's dtype is one of `expected`."""
    if array.dtype not in [np.dtype(e) for e in expected]:
        raise Expected(what, " or ".join(str(np.dtype(e)) for e in expected), array.dtype, advice)


class NotFinite(Expected):
    """Refusal of numbers that are NaN or infinite."""


def finite(what: object, array: Array) -> None:
    """Raise NotFinite if a value is NaN or infinite, saying how many are."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):           # then all are, in a third of the time of a look at each
            return
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise NotFinite(what, "finite values", f"{bad} of {array.size} NaN or infinite")


def positive(what: object, value: float) -> None:
    """Raise unless value > 0 and finite."""
    if not 0 < value < float("inf"):
        raise Expected(what, "a number above 0", value)


def instance(what: object, value: object, kinds: type | tuple[type, ...], advice: str = "") -> None:
    """Raise unless `value` is of one of these kinds."""
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise Expected(what, expected, "None" if value is None else type(value).__name__, advice)


def each(what: object, values: object, kind: type) -> None:
    """Raise unless `values` are one or more of this kind in a list."""
    row = values if isinstance(values, Sequence) and not isinstance(values, str) else None
    if not row or not all(isinstance(value, kind) for value in row):
        strange = next((value for value in row or () if not isinstance(value, kind)), None)
        got = type(values).__name__ if row is None else f"{type(strange).__name__} in it" if row else "none in it"
        raise Expected(what, f"a list of {kind.__name__}", got, "one alone is a list too: [it]" if row is None else "")


def number(what: object, value: object) -> None:
    """Raise unless `value` is one real number, Python's or NumPy's, and finite."""
    try:
        fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:                                  # a whole number beyond all floats
        fits = False
    if not fits:
        raise Expected(what, "a finite number", value if isinstance(value, (str, Real)) else type(value).__name__)


def whole(what: object, value: Any, low: int = 1, high: int | None = None) -> int:
    """`value` as an int, since NumPy's small ones overflow in what is computed with them. Raise unless it is one whole number,
    Python's or NumPy's, from `low` to `high` (None: without end)."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not low <= int(value) <= (int(value) if high is None else high):
        raise Expected(what, f"a whole number {f'of {low} or more' if high is None else f'from {low} to {high}'}",
                       value if is_whole else repr(value)[:60])
    return int(value)


def seed(what: object, value: Any) -> int:
    """`value` as an int. Raise unless draws can be keyed by it, as by a seed or an epoch."""
    return whole(what, value, 0, LARGEST_SEED)


def numbers(what: object, values: Any, kinds: str = "iuf", words: str = "numbers") -> NDArray[Any]:
    """`values`, in lists or an array, as an array. Raise unless its dtype is of these `kinds`, which are `words`."""
    unmasked(what, values)
    try:
        array = np.asarray(values)
    except ValueError:
        raise Expected(what, words, "lists of different lengths") from None
    if array.dtype.kind not in kinds and (array.size or array.ndim == 0):
        raise Expected(what, words, "None" if values is None else array.dtype)
    return array


def whole_numbers(what: object, values: Any) -> NDArray[np.int64]:
    """`values`, in lists or an array, as int64. Raise unless their dtype is one of whole numbers."""
    return numbers(what, values, "iu", "whole numbers").astype(np.int64)


def names(what: object, values: Any, none: bool = False) -> list[str]:
    """`values` as a list. Raise unless they are texts in a row, which a text itself is not, nor what has no order or is looked up:
    one or more, or, where `none` may do, any number."""
    row = None if isinstance(values, (str, set, frozenset, Mapping)) or not isinstance(values, Iterable) else list(values)
    if row is None or not (row or none) or not all(isinstance(value, str) for value in row):
        raise Expected(what, "names in a list" if none else "one or more names in a list", repr(values)[:60])
    return row


def different_names(what: object, values: Any) -> list[str]:
    """`values` as a list. Raise unless they are one or more texts in a row, none of them twice."""
    different(what, row := names(what, values), "names")
    return row


def different(what: object, row: Iterable[Hashable], things: str) -> None:
    """Raise if one of a row of things is there twice."""
    for thing, times in Counter(row).most_common(1):
        if times > 1:
            raise Expected(what, f"different {things}", f"{thing!r} {times} times")


def pictures(what: object, images: Any, expected: Sequence[int | None]) -> Array:
    """`images` as an array. Raise, saying what to do, unless they are as anybody has pictures: uint8, red, green and blue last, of
    the shape `expected`, see `shape`."""
    unmasked(what, images)
    try:
        array = images if hasattr(images, "dtype") else np.asarray(images)
    except ValueError:
        raise Expected(what, f"shape {_sizes(expected)}", "pictures of different sizes") from None
    advice = _to_pictures(array, len(expected))
    if array.dtype != np.uint8:
        raise Expected(what, "uint8", array.dtype, advice)
    if not _fits(array, expected):
        raise Expected(what, f"shape {_sizes(expected)}", tuple(array.shape), advice)
    if 0 in array.shape[-3:]:
        raise Expected(what, "one pixel or more", f"none, shape {tuple(array.shape)}")
    return array


def _to_pictures(array, axes):
    """Advice on how such an array becomes pictures of so many axes."""
    sizes, last = array.shape, array.shape[-1] if array.ndim else 0
    if array.dtype.kind == "f":
        return "(255*pictures).round().astype(np.uint8) where they go from 0 to 1"
    if array.dtype != np.uint8:
        return "pictures.astype(np.uint8) where they go from 0 to 255" if array.dtype.kind in "iu" else ""
    if len(sizes) == axes and last == 4:
        return "pictures[..., :3] leaves out how transparent they are"
    if len(sizes) == axes and sizes[-3] == 3 and last != 3:
        return "np.moveaxis(pictures, -3, -1) puts the colours last"
    if len(sizes) == axes - 1 and last == 3:
        return "pictures[None] where it is one"
    if len(sizes) == axes and last == 1 or len(sizes) == axes - 1:
        return "np.stack([grey]*3, axis=-1) of grey ones, without an axis for colours"
    return ""


def one_of(what: object, value: object, choices: Collection[Any]) -> None:
    """Raise unless `value` is among `choices`, which the sentence lists."""
    if not isinstance(value, Hashable) or value not in choices:
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
SEED, BATCH, THREADS = whole_number(0, LARGEST_SEED), whole_number(1, 2**20), whole_number(0, 1024)


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
        if was_strange and words.startswith("-") and os.path.lexists(words):
            message += f"; a file of that name is ./{words}"
        elif was_strange and re.fullmatch(r"[\d ,]+", words):
            message += "; several numbers are one word, as 3,5,7"
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
    no_words = isinstance(error, SystemError) and "without" in str(error)        # setting an exception, for which memory was lacking
    return isinstance(error, MemoryError) or no_thread or no_library or no_words or refused
