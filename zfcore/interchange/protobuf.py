"""Protobuf's messages, in which ONNX and Caffe keep networks: looked over before they are parsed.

What a message takes in memory goes by its fields, not by its bytes: a million empty ones of two bytes take some 150 MB.
"""
from typing import Any

from zfcore.check import Expected

MOST_FIELDS = 500_000             # of a file, in all of its messages; a network of a thousand layers has some 30 000


def parse(path: object, data: bytes, message: Any, what: str) -> Any:
    """`message`, an empty one, of the bytes `data` of the file at `path`. Raises Expected, saying that it should be `what`, for
    other bytes or a part of one, and before memory is taken for it for one of more than MOST_FIELDS fields."""
    from google.protobuf.message import DecodeError
    _look_over(path, data, message.DESCRIPTOR, what)
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError):
        raise Expected(path, what, "other bytes, or a part of one") from None
    return message


def _look_over(path, data, descriptor, what):
    """Raise Expected unless `data`, a message of the kind that `descriptor` describes, is whole and of few enough fields."""
    count, known = 0, {}
    todo = [(0, len(data), _nested(descriptor, known))]    # what is left of the message, and of those around it
    while todo:
        at, end, nested = todo.pop()
        while at < end:
            try:
                tag, at = _varint(data, at)
                number, wire = tag >> 3, tag & 7
                if wire in (0, 2):                         # a number, or the size of what follows
                    value, at = _varint(data, at)
            except IndexError:
                raise Expected(path, what, "a part of one") from None
            size = value if wire == 2 else {1: 8, 5: 4}.get(wire, 0)
            if at + size > end:
                raise Expected(path, what, "a part of one, or other bytes")
            if (count := count + 1) > MOST_FIELDS:
                raise Expected(path, f"{what} of at most {MOST_FIELDS} parts", "more")
            if wire == 2 and number in nested:
                todo.append((at + size, end, nested))
                end, nested = at + size, _nested(nested[number], known)
            else:
                at += size


def _nested(descriptor, known):
    """{number of a field: descriptor of the messages that stand there} of a kind of messages; `known`: those of others."""
    if descriptor.full_name not in known:
        known[descriptor.full_name] = {field.number: field.message_type for field in descriptor.fields if field.message_type}
    return known[descriptor.full_name]


def _varint(data, at):
    """(whole number, place behind it) of what begins at data[at]. Raises IndexError at the end of the data."""
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128 or shift > 63:
            return value, at
