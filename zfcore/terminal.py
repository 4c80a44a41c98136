"""Floor 0: what a person reads while a command is at work, and what ends it: lines, names, commands to copy, bars, signals.

    say(text)                             lines on standard output; raises Unheard where nobody reads them any more
    warn(text, *names)                    lines on standard error, for which nothing fails; warn_once(text): not told twice
    plural(n, "picture")                  "1 picture", "2 pictures"
    printable(name)                       a name, whatever is in it, as something that can be printed and drawn
    in_table("conv1", 0.5)                a row of a table of Markdown
    command("python", "-m", "train", ...) a command that can be copied into a shell
    as_called(text)                       a text about options, as the caller of a function names them
    called(option, argument)              one of them, where the function's has another name
    Bar(total, unit, what)                a progress bar; where there is no terminal, a line at least every 30 seconds
    at_work()                             what every command runs in: its streams take any text, its signals are heard
    signals_held()                        what no signal may break off: they are heard when it is done
"""
import errno
import io
import math
import os
import re
import shlex
import signal
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

COLUMNS, NARROWEST = 100, 40     # of a line
WORD = r"""(?:\$'(?:\\.|[^'\\])*'|'[^']*'|"[^"]*"|[^\s'"])+"""       # as a shell has them
COMMAND = rf"(?:python -m|pip install) {WORD}(?:(?<![,;:)]) {WORD})*"
OPTION = re.compile(rf"({COMMAND})|(?<![\w/.-])--([a-z][a-z0-9-]*)")
COPIED = re.compile(COMMAND + r"""|(?<![^\s(\[])(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")(?!\w)""")
GLUE = "\0"                      # in place of a space at which no line may end
TELL_EVERY = 20                  # seconds between two lines about progress, where there is no terminal
CLOSED = 128 + 13                # the status with which a shell tells of SIGPIPE
JOINERS = "\u200c\u200d"         # with which Persian, Hindi and others are written
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

Item = TypeVar("Item")


class Unheard(OSError):
    """Failure of standard output that nobody reads any more."""


class Ended(KeyboardInterrupt):
    """A signal that ends the program, as Ctrl-C does; `number` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status_of(stop: BaseException) -> int:
    """The status a command that was stopped leaves with, as a shell tells of a signal: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP."""
    return 128 + getattr(stop, "number", signal.SIGINT)


# ------------------------------------------------------------------------------------------- names, numbers and commands
def printable(name: object) -> str:
    """`name` as one line of text that can be encoded: what is no character, or moves the cursor, as an escape such as \\n."""
    return "".join(c if c.isprintable() or c in JOINERS or unicodedata.category(c) == "Zs"
                   else c.encode("unicode_escape").decode()
                   for c in str(name))


def as_called(text: str) -> str:
    """`text` about options, "--val-fraction", for whoever reads it: a command line as it is, and a program that calls functions
    by the names of their arguments, "val_fraction"; but for commands in it."""
    return text if _Output.of_command else OPTION.sub(lambda found: found[1] or found[2].replace("-", "_"), text)


def called(option: str, argument: str) -> str:
    """Name of what a command line calls `option`, and a function, otherwise than by the same name, its `argument`."""
    return option if _Output.of_command else argument


def in_table(*cells: object) -> str:
    """A row of a table of Markdown: the cells as texts, none of which ends its cell or the row."""
    return "| " + " | ".join(printable(cell).replace("|", "/") for cell in cells) + " |"


def plural(n: int, noun: str) -> str:
    """"1 picture", "2 pictures": a number and what it counts, a regular noun, perhaps with words before it."""
    if n == 1:
        return f"1 {noun}"
    hissing = noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch")
    return f"{n} {noun}{'es' if hissing else 's'}"


def percent(share: float) -> str:
    """"12 %": a share of 0..1 as a whole percentage, which is 0 only of nothing and 100 only of all."""
    said = f"{100*share:.0f} %"
    return {"0 %": "below 1 %", "100 %": "above 99 %"}.get(said, said) if 0 < share < 1 else said


def command(*words: object) -> str:
    """The words of a command, quoted so that a shell (bash, zsh) reads these words again, whatever names of files are in
    them."""
    return " ".join(map(_quoted, words))


def _quoted(word):
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"                                 # else it would be taken for an option
    if printable(text) == text and _encodable(text):
        return shlex.quote(text)
    return "$'" + "".join(chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}"
                          for byte in os.fsencode(text)) + "'"


def _encodable(text):
    """Return whether standard output can show the text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        return True
    except UnicodeEncodeError:
        return False


# ------------------------------------------------------------------------------------------------------------------ lines
class _Output:
    """Fate of standard output: the first `refusal` of a disk that is full, say. A command goes on without it. `quiet`: nothing
    is told. `kept`: lists in which warnings are kept besides. `of_command`: a command is at work, not a program that calls
    functions; `told`: what it was told once."""
    refusal: OSError | None = None
    quiet = of_command = False
    kept: list[list[str]] = []
    told: set[str] = set()


def quiet(on: bool = True) -> None:
    """Let this process tell nothing from now on, in lines or bars, as one of several that do the same; or tell again."""
    _Output.quiet = on


def say(*texts: object) -> None:
    """Print texts on standard output, above the bars, in lines of at most 100 columns. Raises Unheard where its reader has
    gone; what a disk refuses is told when the command ends (`at_work`), and costs no more than the lines."""
    if _Output.quiet:
        return
    lines = [part for text in texts for line in str(text).split("\n") for part in fitted(line)]
    try:
        with tqdm.external_write_mode(sys.stdout):
            print(*lines, sep="\n", flush=True)
    except OSError as error:
        _Output.refusal = _Output.refusal or error
        if error.errno == errno.EPIPE:
            raise Unheard(*error.args) from None


def warn(text: object, *names: object) -> None:
    """Print a text on standard error, above the bars, in lines that fit the terminal, or of at most 100 columns, none of which
    ends within one of the `names`. That nobody can read it is no reason to fail."""
    for texts in _Output.kept:
        texts.append(str(text))
    if _Output.quiet:
        return
    lines = [part for line in str(text).split("\n") for part in fitted(line, _width(), *names)]
    with suppress(OSError, ValueError, RuntimeError):      # gone; closed; in the middle of another line, from a signal
        with tqdm.external_write_mode(sys.stderr):
            print(*lines, sep="\n", file=sys.stderr, flush=True)


def warn_once(text: str) -> None:
    """`warn`, but for a text that the command at work has told so before: about pictures, say, that it opens once more."""
    if _Output.of_command and text in _Output.told:
        return
    _Output.told.add(text)
    warn(text)


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """`with warnings_kept() as texts:` what `warn` is given meanwhile is in `texts`, whether or not this process is quiet."""
    texts: list[str] = []
    _Output.kept.append(texts)
    try:
        yield texts
    finally:
        _Output.kept = [others for others in _Output.kept if others is not texts]


def _width():
    """Columns of the terminal that standard error is, or else COLUMNS."""
    try:
        return max(os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS, NARROWEST)
    except (OSError, ValueError, AttributeError):          # no terminal; closed; none at all
        return COLUMNS


def fitted(line: str, columns: int = COLUMNS, *names: object) -> list[str]:
    """The line in lines of at most so many columns, the further ones indented. What is to be copied stays whole, however long:
    commands, what stands in quotes, the `names`, the words of the command line and the folder it was given in; so do rows of a
    table and of commands, and a number and its %. What moves the cursor, in a name say, is an escape."""
    line = printable(line)
    if len(line) <= columns or line.startswith("|") or "  python -m " in line:
        return [line]
    indent = " "*(len(line) - len(line.lstrip()) + 2)
    for name in map(printable, [*names, *sys.argv, _here()]):
        if " " in name.strip():
            line = line.replace(name, name.replace(" ", GLUE))
    line = re.sub(r"(?<=\d) (?=%)", GLUE, line)
    line = COPIED.sub(lambda found: found[0].replace(" ", GLUE), line)
    lines = textwrap.wrap(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [part.replace(GLUE, " ") for part in lines]


def _here():
    """The folder that the process is in, "" where that is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------------------------- bars
class Bar(tqdm):
    """`with Bar(total, "picture", "evaluating") as bar: ... bar.update(n)`: a bar of tqdm on a terminal. Anywhere else, in a
    file or a notebook, lines on standard error tell at least every 30 seconds how far it is and how long it will take.

    done     what of `total` was done before
    stays    whether the bar stays on the screen when it is full"""
    # when a line was printed last, and when the last bar ended: many short ones are told like one long
    told = seen = -float("inf")
    full: threading.Event | None = None                    # set when it is closed; None: an interrupt came as it was made

    def __init__(self, total: int | None, unit: str, what: str, done: int = 0, stays: bool = True,
                 hidden: bool = False) -> None:
        on_terminal, hidden = bool(sys.stderr) and sys.stderr.isatty(), hidden or _Output.quiet
        self.full = full = threading.Event()
        super().__init__(total=total, unit=f" {unit}", desc=printable(what), initial=done, leave=stays,
                         disable=hidden or not on_terminal)
        self.thing, self.began, self.first = unit, time.monotonic(), done
        self.desc, self.postfix = printable(what), getattr(self, "postfix", None)
        if self.disable and not hidden:
            if self.began - Bar.seen > TELL_EVERY/4 or math.isinf(Bar.told):
                Bar.told = self.began - TELL_EVERY/2                               # the first line after half of the time
            threading.Thread(target=self._tell, args=(full,), name="progress", daemon=True).start()

    def update(self, n: float | None = 1) -> bool | None:
        """Move on by n."""
        if not self.disable:
            return super().update(n)
        self.n += n
        return None

    def close(self) -> None:
        if self.full:
            self.full.set()
        Bar.seen = time.monotonic()
        super().close()

    def _tell(self, full):
        while not full.wait(max(Bar.told + TELL_EVERY - time.monotonic(), 0.01)):
            if time.monotonic() - Bar.told >= TELL_EVERY:
                Bar.told = time.monotonic()
                warn(self.line())

    def line(self) -> str:
        """Progress so far, in at most 100 columns."""
        seconds, moved = time.monotonic() - self.began, self.n - self.first
        left = "time left not known yet" if not (moved > 0 and self.total) else f"{_clock((self.total - self.n)*seconds/moved)} left"
        of = f"{self.n} of {plural(self.total, self.thing)}, {100*self.n/self.total:.0f} %" if self.total else plural(self.n, self.thing)
        what = (self.desc or "").removesuffix(": ")
        said = f"{of}, {_clock(seconds)} so far, {left}" + (f", {self.postfix}" if self.postfix else "")
        return f"{what[:max(COLUMNS - len(said) - 2, 10)]}: {said}"[:COLUMNS]


def counted(items: Iterable[Item], unit: str, what: str, total: int | None = None, stays: bool = True) -> Iterator[Item]:
    """The items, one after the other, while a Bar counts them; `total` where they do not know their number."""
    with Bar(len(items) if isinstance(items, Sized) else total, unit, what, stays=stays) as bar:
        for item in items:
            yield item
            bar.update()


def _clock(seconds):
    """"42 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"."""
    whole = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole//length} {unit} {whole % length//part} {smaller}"
    return f"{whole} s"


# ---------------------------------------------------------------------------------------------------------------- commands
@contextmanager
def at_work() -> Iterator[None]:
    """`with at_work():` a command runs: standard output and error take every text, whatever their encoding; SIGTERM and SIGHUP
    raise Ended, as Ctrl-C raises KeyboardInterrupt. At the end a reader that has gone makes the status that of SIGPIPE, without
    a word, and a disk that refused what was printed is told, the status being 2 if it would have been 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):           # else somebody else's, or none at all
            stream.reconfigure(errors="backslashreplace")
    before, _Output.refusal = _hear(), None
    outer, _Output.of_command = _Output.of_command, True
    _Output.told = _Output.told if outer else set()
    try:
        yield
    except Unheard:
        pass                                               # as `_printed` finds too
    except SystemExit as end:
        _printed(failed=end.code not in (None, 0))
        raise
    finally:
        _Output.of_command = outer
        for number, handler in before.items():
            signal.signal(number, handler)
    _printed()


def _hear():
    """{signal: who heard it before}, of those that raise Ended from now on. What somebody wants ignored (nohup) stays
    ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: handler for number, handler in before.items() if handler == signal.SIG_DFL}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _end)
    # it was that only while modules were imported, see zfcore/__init__.py
    before.pop(signal.SIGINT, None)
    return before


def _end(number, frame):
    raise Ended(number)


@contextmanager
def signals_held() -> Iterator[None]:
    """`with signals_held():` what this program does on a signal, such as to raise KeyboardInterrupt, it does when the block has
    ended, as often as the signal came. For blocks in which C calls Python, where an exception would be lost on its way."""
    with ExitStack() as heard, ExitStack() as before:      # these do all that they were told to, whatever some of it raises
        if threading.current_thread() is threading.main_thread():              # no other one is interrupted
            for number in signal.valid_signals():
                if callable(handler := signal.getsignal(number)):
                    before.callback(signal.signal, number, handler)
                    signal.signal(number, lambda number, frame: heard.callback(signal.raise_signal, number))
        yield


def _printed(failed=False):
    """Wait until standard output has taken what was printed; leave where it has not."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        _Output.refusal = error if error.errno == errno.EPIPE else _Output.refusal or error
    except ValueError:                                     # closed
        pass
    if (refusal := _Output.refusal) is None:
        return
    with suppress(OSError, ValueError, AttributeError):    # else Python would try once more, and complain
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if refusal.errno == errno.EPIPE:
        sys.exit(CLOSED)
    done = "" if failed else "; all else is done"
    warn(f"error: standard output: expected a place that takes what is printed, got {refusal.strerror}{done}")
    if not failed:
        sys.exit(2)


def refusal(error: BaseException) -> str:
    """The sentence about something that the system does not give: memory, a thread, a file."""
    if isinstance(error, OSError) and error.errno:
        where = printable(error.filename) if error.filename is not None else "the system"
        return f"{where}: expected that it can be used, got {error.strerror or printable(error)}"
    return f"memory: expected enough for what was asked for, got {printable(error) or 'no more'}; a smaller batch or smaller pictures need less"
