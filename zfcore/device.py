"""Floor 4: a device by its name. What lies below is given its device and chooses none."""
from zfcore import gpu
from zfcore.backend import CPU
from zfcore.check import Expected

DEVICES = {"cpu": lambda: CPU, "gpu": gpu.device}              # name -> function that makes the Device or raises


def select(name="auto"):
    """The device called `name`; "auto" takes the GPU where CuPy sees one and the CPU elsewhere."""
    if name == "auto":
        try:
            return DEVICES["gpu"]()
        except Expected:
            return CPU
    if name not in DEVICES:
        raise Expected("--device", "auto, " + ", ".join(DEVICES), repr(name))
    return DEVICES[name]()
