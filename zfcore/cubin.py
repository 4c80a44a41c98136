"""Floor 0: the machine code (a cubin) of zfcore's kernels: where their source is, what it depends on, and where it is kept from
one run to the next. A `kernel` here is a `zfcore.kernel.Kernel`."""
import functools
import hashlib
import os
import tempfile
from pathlib import Path

from zfcore import nvrtc
from zfcore.check import Expected
from zfcore.system import replace


def kernels_folder():
    """kernels/ of the checkout (beside zfcore/) or of the installed package (inside it)."""
    here = Path(__file__).parent
    for folder in (here.parent / "kernels", here / "kernels"):
        if (folder / "device").is_dir():
            return folder
    raise Expected("kernels", f"a folder of .cu files beside or inside {here}", "none", "reinstall zfcore")


def in_one_piece(source):
    """The text `source` with kernels/device/ptx.cuh in the place of its #include, for CuPy, whose cache does not notice a changed
    header."""
    header = (kernels_folder() / "device" / "ptx.cuh").read_text().replace("#pragma once", "")
    return source.replace("#include <ptx.cuh>", header)


def compile_cubin(kernel, arch):
    """(machine code, log) of the file of `kernel` with its macros, for `arch` such as "sm_90a". The log tells registers,
    shared memory and spills of every kernel in it. Needs NVRTC but no GPU."""
    return nvrtc.compile(*_translation(kernel, arch))


def _translation(kernel, arch):
    """Arguments of nvrtc.compile, on which the machine code depends."""
    folder = kernels_folder()
    options = (f"-arch={arch}", "-std=c++20", "-lineinfo", "--ptxas-options=-v",
               *(f"-D{name}={value}" for name, value in kernel.defines.items()))
    headers = {path.name: path.read_text() for path in sorted((folder / "device").glob("*.cuh"))}
    return (folder / kernel.file).read_text(), f"kernels/{kernel.file}", options, headers


def cached_cubin(kernel, arch):
    """The path of a file with the machine code, made by NVRTC unless an earlier run left it: a file is named by the
    hash of all that it depends on. It is renamed into place, so two processes may do this at the same time."""
    translation = _translation(kernel, arch)
    path = cache_folder() / (hashlib.sha256(repr((nvrtc.build(), translation)).encode()).hexdigest() + ".cubin")
    if not path.exists():
        cubin, _ = nvrtc.compile(*translation)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(cubin)
        replace(file.name, path)
    return path


@functools.cache
def cache_folder():
    """Folder of this user's compiled kernels and of what cards have found out about them; a temporary one where there is no
    home to write to."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "zfcore" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="zfcore-kernels-"))
