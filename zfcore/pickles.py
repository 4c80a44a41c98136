"""Floor 1: pickles, followed and not loaded.

A pickle is a program for a machine with a stack and a memory, and loading one may do whatever its author likes. So none is
loaded here, nor is Python's own machine used: `followed` goes through the instructions, and a `Machine` obeys those that make
numbers, text, lists, tuples and dictionaries. Where the program names a function or class, one of our own from a short table
stands in its place. It imports and calls nothing else, whatever the program says; what was asked for is named in the sentence.
"""
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from zfcore.check import Expected

# Of instructions (the longest program that is known, of CIFAR's, has 300 000), and of what a single one may go through, which
# a program can have it do again and again: arguments of a call, bytes of a name or a key, bits of a number that is a key.
MOST_STEPS, MOST_ARGUMENTS, LONGEST_NAME, LARGEST_KEY = 10**6, 16, 1000, 64


def followed(what: object, data: bytes, machine: "Machine", holds: str, for_code: str, for_damage: str) -> tuple[Any, int]:
    """(what a pickle at the beginning of `data` describes, the place behind it), as `machine` makes it.

    `what` is how messages call it, `holds` what it should hold, `for_code` and `for_damage` are what to do if it asks for more
    than data, and if it is no sound one: both raise Expected."""
    place = 0
    try:
        for step, (instruction, value, place) in enumerate(pickletools.genops(data)):
            if step > MOST_STEPS:
                raise ValueError(f"more than {MOST_STEPS} instructions")
            machine.step(instruction.name, value)
        found, = machine.stack
        return found, (place or 0) + 1
    except Code as code:
        raise Expected(what, f"a pickle of {holds} alone", f"one that asks for {code} at byte {place}",
                       f"nothing of it was run; {for_code}") from None
    except Exception as error:                             # a program that is no sound one may fail anywhere
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise Expected(what, f"a whole pickle of {holds}", f"one that goes wrong at byte {place} ({reason})",
                       for_damage) from None


class Code(Exception):
    """A pickle asks for something that is not data."""


class Filled:
    """Object that a pickle makes empty and fills afterwards, by `fill` with what it says."""


class Global:
    """A function or class that a pickle names. It is never looked up; `make` is our own in its place."""

    def __init__(self, name: str, make: Callable[..., Any] | None) -> None:
        self.name = name
        self.make = make or self._refused

    def _refused(self, *_):
        raise Code(f"a call of {self.name!r}")


class Machine:
    """The stack (what is being built), the places on it where a list or dictionary begins, and what was put by for later."""

    def __init__(self, made: Mapping[str, Callable[..., Any] | None], room: int = 0) -> None:
        """`made`: {"module.name": what makes such things here, or None where it may be named and not called}; `room`: how many
        bytes of text and things in lists it may turn into others."""
        self.made, self.room = made, room
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[Any, Any] = {}

    def step(self, instruction: str, value: Any) -> None:
        """Obey one instruction, of `pickletools`' name, whose argument is `value`. Raises Code for one that is not of data."""
        push, pop = self.stack.append, self.stack.pop
        match instruction:
            case _ if instruction in VALUES:
                push(value)
            case _ if instruction in FRESH:
                push(FRESH[instruction]())
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":                  # of Python 2: bytes
                push(value.encode("latin-1"))
            case "MARK":
                self.marks.append(len(self.stack))
            case "LIST":
                push(self.since_mark())
            case "DICT":
                push(self.dictionary(self.since_mark()))
            case "TUPLE":
                push(tuple(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.marks.append(len(self.stack) - int(instruction[-1]))
                push(tuple(self.since_mark()))
            case "APPEND":
                item = pop()
                self.top(list).append(item)
            case "APPENDS":
                items = self.since_mark()
                self.top(list).extend(items)
            case "SETITEM":
                item, key = pop(), pop()
                self.top(dict).update(self.dictionary([key, item]))
            case "SETITEMS":
                items = self.since_mark()
                self.top(dict).update(self.dictionary(items))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memory[value] = self.stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memory[value])
            case "GLOBAL":                                                    # "module name"
                push(self.named(value.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = self.text(pop()), self.text(pop())
                push(self.named(f"{module}.{name}"))
            case "REDUCE":
                arguments = self.arguments()
                self.stack[-1] = self.top(Global).make(*arguments)
            case "BUILD":
                state = self.arguments()
                self.top(Filled).fill(*state)
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise Code(f"the instruction {instruction}")

    def named(self, name: str) -> "Global":
        """Stand-in here for the function or class of that name."""
        if name not in self.made:
            raise Code(ascii(name[:60]))
        return Global(name, self.made[name])

    def since_mark(self) -> list[Any]:
        """Take off the stack, and return, all since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def arguments(self) -> Any:
        """Take off the stack, and return, what a function is called with; ValueError where that, or what is in it, is too much."""
        arguments = self.stack.pop()
        if len(arguments) > MOST_ARGUMENTS:
            raise ValueError(f"more than {MOST_ARGUMENTS} arguments")
        self.room -= sum(len(one) for one in arguments if isinstance(one, (str, list, tuple, dict)))
        if self.room < 0:
            raise ValueError("one text or list turned into others again and again")
        return arguments

    def top(self, kind: type) -> Any:
        """Top of the stack, which must be of that kind."""
        if not isinstance(self.stack[-1], kind):
            raise TypeError("an instruction for another kind of thing")
        return self.stack[-1]

    def dictionary(self, items: list[Any]) -> dict[Any, Any]:
        """Build a dict of keys and values in turn. Keys are text only: to hash a tuple of tuples of ... may take for ever."""
        return dict(zip(map(self.text, items[::2]), items[1::2], strict=True))

    @staticmethod
    def text(thing: Any) -> Any:
        """The same; TypeError where it is no text, ValueError where it is too long for a name."""
        if not isinstance(thing, (str, bytes)):
            raise TypeError(f"{type(thing).__name__} in place of text")
        if len(thing) > LONGEST_NAME:
            raise ValueError(f"a name of more than {LONGEST_NAME} characters")
        return thing


VALUES = frozenset("INT BININT BININT1 BININT2 LONG LONG1 LONG4 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
                   "SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split())
FRESH: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,
         "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False}


def plain(text: str | bytes) -> str:
    """A name as a str; TypeError where it is none."""
    name = Machine.text(text)
    return name.decode() if isinstance(name, bytes) else name
