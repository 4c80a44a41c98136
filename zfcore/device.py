"""Floor 4: a device by its name. What lies below is given its device and chooses none."""
import copyreg
from typing import Literal

from zfcore import gpu
from zfcore.backend import CPU, Device
from zfcore.check import Expected, one_of
from zfcore.ops import tuned


def _gpu():
    """The GPU, by what it has found out about its kernels."""
    device = gpu.device()
    tuned.use(tuned.of_card(gpu.card().name))
    return device


DEVICES = {"cpu": lambda: CPU, "gpu": _gpu}                    # name -> function that makes the Device or raises


def select(name: Literal["auto", "cpu", "gpu"] = "auto") -> Device:
    """The device called `name`; "auto" takes the GPU where CuPy sees one and the CPU elsewhere. Raises Expected
    for another name, and where there is no such device."""
    one_of("--device", name, ("auto", *DEVICES))
    if name == "auto":
        try:
            return DEVICES["gpu"]()
        except Expected:
            return CPU
    return DEVICES[name]()


copyreg.pickle(Device, lambda device: (select, (device.name,)))          # type: ignore[arg-type]   # another process has its own
