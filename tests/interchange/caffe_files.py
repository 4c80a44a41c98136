"""Small files of Caffe's, made byte by byte: another hand than zfcore's wrote down the numbers of the fields."""
import struct

import numpy as np

# numbers of a V1 layer's types
V1 = {"Convolution": 4, "Data": 5, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "SoftmaxWithLoss": 21}


def varint(value):
    value %= 2**64
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def field(number, value):
    """A field of a message: a whole number, a float or bytes."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, shape=None):
    """In the new form, of the shape that it says, double_data for float64."""
    said = field(7, field(1, b"".join(map(varint, shape or array.shape))))
    return said + field(8 if array.dtype == np.float64 else 5, array.astype(array.dtype.newbyteorder("<")).tobytes())


def old_blob(array):
    """Four sizes, with ones in front."""
    sizes = (1,)*(4 - array.ndim) + array.shape
    return b"".join(field(k + 1, n) for k, n in enumerate(sizes)) + field(5, array.astype("<f4").tobytes())


def layer(name, kind, arrays=(), more=b""):
    return field(100, field(1, name) + field(2, kind) + b"".join(field(7, blob(array)) for array in arrays) + more)


def old_layer(name, kind, arrays=(), more=b""):
    return field(2, field(4, name) + field(5, V1[kind]) + b"".join(field(6, old_blob(array)) for array in arrays) + more)


def caffemodel(path, weights, of=layer):
    """Writes {name: (kind, arrays)} as a .caffemodel."""
    path.write_bytes(field(1, "made up") + b"".join(of(name, kind, arrays) for name, (kind, arrays) in weights.items()))
    return path


def random(rng, *shape):
    """float32, of a size that keeps maps of about 1."""
    return (rng.standard_normal(shape)/np.sqrt(max(np.prod(shape[1:], dtype=int), 1))).astype(np.float32)
