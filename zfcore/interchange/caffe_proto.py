"""Caffe's messages: what its files are made of, as far as a network needs it.

    read_net(path)          a .caffemodel -> a Net          read_text_net(path)   a .prototxt -> a Net
    read_blob(path)         a .binaryproto -> a Blob        numbers(where, blob)  its array

The package protobuf reads them; the descriptors are made here from the numbers of the fields, so there is nothing to compile.
The numbers of a blob are declared as bytes, which is what a packed field is on its way: an array is a view of them, not a list
of Python's floats.
"""
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zfcore import check
from zfcore.files import read_bytes, read_text
from zfcore.interchange.protobuf import parse

MOST_FILE, MOST_TEXT = 2**31 - 1, 2**20      # bytes; protobuf takes no more of a message, and a network's text has some 100 kB
MOST_LAYERS, MOST_AXES = 10_000, 32          # the largest networks that people had have 1000; Caffe's own limit of axes

# Fields as "name type number"; * is for repeated ones, and what follows the number the value that is meant where none is said.
MESSAGES = {
    "Shape": "dim int64* 1",
    "Blob": "num int32 1, channels int32 2, height int32 3, width int32 4, data bytes* 5, double_data bytes* 8, shape Shape 7",
    "State": "phase Phase 1 TEST, level int32 2 0, stage string* 3",
    "Rule": "phase Phase 1, min_level int32 2, max_level int32 3, stage string* 4, not_stage string* 5",
    "Transform": "scale float 1 1, crop_size uint32 3 0, mean_file string 4, mean_value float* 5",
    "Data": "scale float 2 1, mean_file string 3, crop_size uint32 5 0",
    "ImageData": "scale float 2 1, mean_file string 3, crop_size uint32 5 0, new_height uint32 9 0, new_width uint32 10 0",
    "MemoryData": "channels uint32 2, height uint32 3, width uint32 4",
    "DummyData": "channels uint32* 3, height uint32* 4, width uint32* 5, shape Shape* 6",
    "Input": "shape Shape* 1",
    "Convolution": "num_output uint32 1, bias_term bool 2 true, pad uint32* 3, kernel_size uint32* 4, group uint32 5 1,"
                   "stride uint32* 6, pad_h uint32 9, pad_w uint32 10, kernel_h uint32 11, kernel_w uint32 12,"
                   "stride_h uint32 13, stride_w uint32 14, axis int32 16 1, dilation uint32* 18",
    "InnerProduct": "num_output uint32 1, bias_term bool 2 true, axis int32 5 1, transpose bool 6 false",
    # ceil_mode is of Caffe's descendants, in their texts alone, where it stands for round_mode
    "Pooling": "pool Pool 1 MAX, kernel_size uint32 2, stride uint32 3, pad uint32 4, kernel_h uint32 5, kernel_w uint32 6,"
               "stride_h uint32 7, stride_w uint32 8, pad_h uint32 9, pad_w uint32 10, global_pooling bool 12 false,"
               "round_mode Round 13 CEIL, ceil_mode bool 1000 true",
    "ReLU": "negative_slope float 1 0",
    "LRN": "local_size uint32 1 5, alpha float 2 1, beta float 3 0.75, norm_region Region 4 ACROSS_CHANNELS, k float 5 1",
    "BatchNorm": "use_global_stats bool 1 true, eps float 3 1e-5",
    "Scale": "axis int32 1 1, num_axes int32 2 1, bias_term bool 4 false",
    "Dropout": "dropout_ratio float 1 0.5",
    "Softmax": "axis int32 2 1",
    "Flatten": "axis int32 1 1, end_axis int32 2 -1",
    "Power": "power float 1 1, scale float 2 1, shift float 3 0",
    "Layer": "name string 1, type string 2, bottom string* 3, top string* 4, blobs Blob* 7, include Rule* 8, exclude Rule* 9",
    "LayerV1": "bottom string* 2, top string* 3, name string 4, type Kind 5, blobs Blob* 6, include Rule* 32, exclude Rule* 33",
    "Net": "name string 1, layers LayerV1* 2, input string* 3, input_dim int32* 4, state State 6, input_shape Shape* 8,"
           "layer Layer* 100",
}
# What a layer says of itself: (message, number in a Layer, in a LayerV1 or None).
PARAMETERS = {
    "transform_param": ("Transform", 100, 36), "data_param": ("Data", 107, 11), "image_data_param": ("ImageData", 115, 15),
    "memory_data_param": ("MemoryData", 119, 22), "dummy_data_param": ("DummyData", 109, 26),
    "input_param": ("Input", 143, None), "convolution_param": ("Convolution", 106, 10),
    "inner_product_param": ("InnerProduct", 117, 17),
    "pooling_param": ("Pooling", 121, 19), "relu_param": ("ReLU", 123, 30), "lrn_param": ("LRN", 118, 18),
    "batch_norm_param": ("BatchNorm", 139, None), "scale_param": ("Scale", 142, None), "dropout_param": ("Dropout", 108, 12),
    "softmax_param": ("Softmax", 125, 39), "flatten_param": ("Flatten", 135, None), "power_param": ("Power", 122, 21)}
# Kinds of a LayerV1, and other words that stand for numbers from 0 up.
KINDS = ("NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN HDF5_DATA HDF5_OUTPUT IM2COL IMAGE_DATA "
         "INFOGAIN_LOSS INNER_PRODUCT LRN MULTINOMIAL_LOGISTIC_LOSS POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS SPLIT TANH "
         "WINDOW_DATA ELTWISE POWER SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA ARGMAX THRESHOLD DUMMY_DATA SLICE MVN "
         "ABSVAL SILENCE CONTRASTIVE_LOSS EXP DECONVOLUTION").split()
ENUMS = {"Phase": ["TRAIN", "TEST"], "Pool": ["MAX", "AVE", "STOCHASTIC"], "Round": ["CEIL", "FLOOR"],
         "Region": ["ACROSS_CHANNELS", "WITHIN_CHANNEL"], "Kind": KINDS}


# -------------------------------------------------------------------------------------------------------------- reading
def read_net(path: Path) -> Any:
    """The Net in a .caffemodel. Raises Expected for what is none."""
    return _parsed(path, "Net", "a .caffemodel")


def read_blob(path: Path) -> Any:
    """The Blob in a .binaryproto. Raises Expected for what is none."""
    return _parsed(path, "Blob", "a .binaryproto")


def read_text_net(path: Path) -> Any:
    """The Net in a .prototxt; what it says beyond MESSAGES is left aside. Raises Expected for what is none."""
    net = message("Net")()
    from google.protobuf import text_format
    try:
        text_format.Parse(read_text(path, MOST_TEXT), net, allow_unknown_field=True)
    except OSError as error:
        raise check.Expected(path, "a .prototxt", error.strerror) from None
    except text_format.ParseError as error:
        reason = str(error).rpartition(": ")[2]
        raise check.Expected(path, "a .prototxt", f"in line {error.GetLine()}: {reason[:100]}") from None
    except RecursionError:
        raise check.Expected(path, "a .prototxt", "braces inside one another, too deep to be read") from None
    return net


def message(name: str) -> Any:
    """The class of the messages that MESSAGES calls `name`. Raises Expected without the package protobuf."""
    try:
        return _classes()[name]
    except ImportError:
        raise check.Expected("networks of Caffe", "the package protobuf, which reads them", "none installed",
                             "pip install protobuf") from None


@functools.cache
def _classes():
    """{name: class} of MESSAGES."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="zfcore/caffe", package="zfcore", syntax="proto2")
    for name, words in ENUMS.items():
        file.enum_type.add(name=name).value.extend(
            descriptor_pb2.EnumValueDescriptorProto(name=word, number=number) for number, word in enumerate(words))
    for name, fields in MESSAGES.items():
        own = file.message_type.add(name=f"_{name}")        # since LRN is a word of an ENUM's too
        for words in (*fields.split(","), *_parameters(name)):
            field, kind, number, *default = words.split()
            label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            made = own.field.add(name=field, number=int(number), label=label, default_value=default[0] if default else None)
            if (kind := kind.rstrip("*")) in MESSAGES or kind in ENUMS:
                made.type = kinds.TYPE_MESSAGE if kind in MESSAGES else kinds.TYPE_ENUM
                made.type_name = f".zfcore._{kind}" if kind in MESSAGES else f".zfcore.{kind}"
            else:
                made.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"zfcore._{name}")) for name in MESSAGES}


def _parameters(name):
    """The fields of a Layer and a LayerV1 that are messages about one kind of them."""
    column = {"Layer": 1, "LayerV1": 2}.get(name)
    return [f"{field} {row[0]} {row[column]}" for field, row in PARAMETERS.items() if column and row[column]]


def _parsed(path, name, what):
    """The message `name` that the file at `path` is."""
    empty = message(name)()
    try:
        data = read_bytes(path, MOST_FILE)
    except OSError as error:
        raise check.Expected(path, what, error.strerror) from None
    return parse(path, data, empty, what)


# --------------------------------------------------------------------------------------------------------------- numbers
def shape_of(blob: Any) -> tuple[int, ...]:
    """The shape that a Blob says it has; the old form has four sizes always."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim[:MOST_AXES + 1])
    return blob.num, blob.channels, blob.height, blob.width


def numbers(where: object, blob: Any) -> NDArray[Any]:
    """The array of a Blob, float32 or float64, of the shape that it says. Raises Expected, calling it `where`, unless it holds
    as many numbers as its shape has."""
    shape, pieces, dtype = shape_of(blob), list(blob.data), "<f4"
    if blob.double_data:
        pieces, dtype = list(blob.double_data), "<f8"
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    count, rest = divmod(len(data), np.dtype(dtype).itemsize)
    if len(shape) > MOST_AXES or min(shape, default=1) < 1 or math.prod(shape) != count or rest:
        said = "x".join(map(str, shape)) if len(shape) <= MOST_AXES else f"{len(shape)} axes"
        raise check.Expected(where, f"the numbers that its shape has, {said}", f"{count}")
    return np.frombuffer(data, dtype).astype(dtype[1:], copy=False).reshape(shape)


def words(text: str | bytes) -> str:
    """A text of a message, which is bytes where it is no UTF-8. Raises Expected for one that is no name."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if len(text) > 200:
        raise check.Expected(f"{text[:40]}...", "a name of at most 200 characters", len(text))
    return text
