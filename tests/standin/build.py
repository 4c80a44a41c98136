"""Builds what takes the place of the driver and of one of CuPy's modules.

CuPy's wheel finds the driver, libcuda.so.1, when it first needs it, so another one will do. But the CUDA runtime is linked into
its module `cupy_backends.cuda.api.runtime`, and talks to the driver by tables that are documented nowhere. So this one module
is compiled again, from the source distribution of the very version that is installed, against driver.cpp; all others are the
wheel's."""
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from tests.executor import emu

HERE = Path(__file__).parent
CYTHON = "Cython>=3.2,<3.3"                   # as CuPy's pyproject.toml has it


class Missing(Exception):
    """What the stand-in needs and does not find."""


@cache
def cupy_version():
    found = {d.metadata["Name"].lower(): d.version for d in distributions()
             if (d.metadata["Name"] or "").lower().startswith("cupy")}
    if "cupy-cuda13x" not in found:
        raise Missing("the wheel cupy-cuda13x")
    return found["cupy-cuda13x"]


def built():
    """(libcuda.so.1, the module runtime): their files, made where the cache has none. Raises Missing."""
    if emu.GXX is None:
        raise Missing("g++")
    version, driver = cupy_version(), (HERE/"driver.cpp").read_text()
    cuda = _cuda_version()
    flags = ["-std=c++20", "-O1", "-w", "-fPIC", "-shared", f"-DSTANDIN_CUDA={cuda}"]
    library = emu.built("standin", [emu.compiler(), flags, driver], lambda path: emu.run_compiler(
        *flags, "-Wl,-soname,libcuda.so.1", HERE/"driver.cpp", "-o", path))
    key = [emu.compiler(), version, cuda, sys.version, (HERE/"runtime.h").read_text(), Path(__file__).read_text()]
    return library, emu.built("runtime-cupy", key, lambda path: _module(path, version, cuda, library))


@cache
def _cuda_version():
    """Of the runtime in the wheel, which tells it without a driver."""
    tell = "from cupy_backends.cuda.api import runtime; print(runtime.runtimeGetVersion())"
    outcome = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True)
    if outcome.returncode:
        raise Missing(f"a CuPy that can be imported ({outcome.stderr.strip().splitlines()[-1]})")
    return int(outcome.stdout)


def _pip(what, *arguments):
    pip = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--quiet", "--disable-pip-version-check", "--retries", "1",
           "--timeout", "20"]
    # CuPy's setup.py, which pip asks for the name of what it has fetched, looks for a CUDA toolkit unless told that there is
    # none.
    outcome = subprocess.run(pip, capture_output=True, text=True, env={**os.environ, "CUPY_INSTALL_USE_STUB": "1"})
    if outcome.returncode:
        raise Missing(f"{what}, which pip cannot fetch ({(outcome.stderr.strip() or 'no word').splitlines()[-1]})")


def _module(path, version, cuda, library):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        _pip(f"the source of CuPy {version}", "download", "--no-binary", "cupy", "-d", folder, f"cupy=={version}")
        _pip(CYTHON, "install", "--target", folder/"cython", CYTHON)
        with tarfile.open(next(folder.glob("cupy-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        source = folder/f"cupy-{version}"
        backends = source/"cupy_backends"
        (backends/"stub"/"cupy_cuda_runtime.h").write_text((HERE/"runtime.h").read_text())
        (folder/"properties.h").write_text(f"#define STANDIN_PROPERTIES {_properties(backends)}\n")
        settings = {"CUPY_CUDA_VERSION": cuda, "CUPY_HIP_VERSION": 0, "CUPY_USE_CUDA_PYTHON": False, "CUPY_CUFFT_STATIC": False}
        subprocess.run([sys.executable, "-m", "cython", "--cplus", "-3", *(f"-E{k}={v}" for k, v in settings.items()),
                        "-o", folder/"runtime.cpp", "cupy_backends/cuda/api/runtime.pyx"], check=True, cwd=source,
                       capture_output=True, env={**os.environ, "PYTHONPATH": str(folder/"cython")})
        emu.run_compiler("-std=c++17", "-O0", "-w", "-fPIC", "-fpermissive", "-shared", "-DCUPY_NO_CUDA", "-include",
                         folder/"properties.h",
                         f"-I{backends/'cuda'/'api'}", f"-I{sysconfig.get_paths()['include']}", folder/"runtime.cpp", library,
                         "-o", path)


def _properties(backends):
    """The fields of cudaDeviceProp in CUDA 13, in C, from CuPy's declaration for Cython."""
    text = (backends/"cuda"/"api"/"_runtime_typedef.pxi").read_text()
    text = text[text.index("ctypedef struct DeviceProp"):]
    fields = re.findall(r"^ +((?:unsigned )?(?:char|int|size_t|cudaUUID)) +(\w+(?:\[\d+\])?)", text[:text.index("ELIF")], re.M)
    return " ".join(f"{kind.replace('cudaUUID', 'cudaUUID_t')} {name};" for kind, name in fields)
