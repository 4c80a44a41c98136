"""Instructions of a kernel's main loop, counted in its machine code, which is 16 bytes an instruction from sm_70 on.

NVIDIA documents no encoding; what is needed of it stands in CODES and `_target`, as nvdisasm 13.5 tells it of sm_90a. Of any
other instruction it is only known that it takes an issue slot of its warp."""
import struct

import numpy as np

from zfcore.check import Expected
from zfcore.ops.model import Loop

CODES = {"FFMA": (0x223, 0x423, 0x623, 0x823), "HMMA": (0x23c,), "HGMMA": (0x9f0,), "LDS": (0x984,), "LDSM": (0x83b,),
         "LDGSTS": (0xfae,), "STS": (0x388, 0x988), "BRA": (0x947,)}        # the lowest 12 bits of an instruction
NEVER = 15                        # a predicate that is false whatever happens
# of a warp's access of 8 or 16 bytes a lane, else one
WAVEFRONTS = {"LDS": {6: 2}, "STS": {5: 2, 6: 4}, "LDGSTS": {5: 2, 6: 4}}


def main_loop(cubin, name, products, counted=("HMMA", "FFMA")):
    """The Loop of kernel `name`: of its innermost loops the one that multiplies most. `products` is how many a warp has to form
    in a step, in instructions of the first kind of `counted` that there is. Raises Expected where no loop holds whole steps."""
    code = instructions(cubin, name)
    kinds = kinds_of(code)
    multiplies = kinds == next((kind for kind in counted if (kinds == kind).any()), "")
    ends = [(target, k) for k in np.flatnonzero(kinds == "BRA").tolist() if (target := _target(code, k)) <= k]
    loops = [(first, last) for first, last in ends if multiplies[first:last + 1].any()]
    inner = [one for one in loops if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in loops)]
    first, last = max(inner, key=lambda loop: multiplies[loop[0]:loop[1] + 1].sum(), default=(0, -1))
    found = int(multiplies[first:last + 1].sum())
    if not found or found % products:
        raise Expected(name, f"a loop with whole steps of {products} products", f"{found} of them")
    return Loop(found//products, last + 1 - first, found, wavefronts(code[first:last + 1], kinds[first:last + 1]))


def kinds_of(code):
    """The name in CODES of every instruction, "" of any other."""
    names = {number: name for name, numbers in CODES.items() for number in numbers}
    return np.array([names.get(int(word) & 0xfff, "") for word in code[:, 0]])


def wavefronts(code, kinds):
    """Count of 128 bytes that a warp reads from shared memory and writes to it, if no bank is asked twice. Reads of 8 or 16
    bytes are here always shared by lanes, those of 16 by four or eight."""
    asks = np.isin(kinds, ["LDS", "LDSM", "LDGSTS", "STS"]) & (code[:, 0] >> np.uint64(12) & np.uint64(15) != NEVER)
    found = 0
    for kind, word in zip(kinds[asks], code[asks, 1].tolist()):
        found += 1 << (word >> 8 & 3) if kind == "LDSM" else WAVEFRONTS[kind].get(word >> 9 & 7, 1)
    return found


def instructions(cubin, name):
    """uint64 (instructions,2) of a kernel in an ELF file, the halves of each."""
    start, = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, start + k*size) for k in range(count)]
    texts = sections[names][4]
    wanted = f".text.{name}\0".encode()
    offset, length = next((at, nbytes) for called, _, _, _, at, nbytes in sections
                          if cubin[texts + called:].startswith(wanted))
    return np.frombuffer(cubin, np.uint64, length//8, offset).reshape(-1, 2)


def _target(code, k):
    """The number of the instruction that branch number `k` leads to: its offset, in fours of bytes, has its lowest 8 bits at
    bit 16 and the others from bit 34 on."""
    low, high = (int(half) for half in code[k])
    offset = (low >> 34 | (high & 0x3ffff) << 30) << 8 | low >> 16 & 0xff
    offset -= (offset >> 55) << 56
    return k + 1 + offset*4//16
