"""Every kernel an operation declares, compiled to machine code as a GPU would get it. Needs NVRTC, but no GPU."""
import re
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pytest

from bench import resources, sass
from bench.__main__ import main
from tests.executor import emu
from tests.executor.probe import SOURCE, probes, translation
from zfcore import nvrtc
from zfcore.check import Expected
from zfcore.cpu import CORES
from zfcore.cubin import kernels_folder
from zfcore.kernel import CTYPES, Argument

KERNELS = resources.declared()
# as devices get them
ARCHITECTURES = [nvrtc.architecture(capability, (capability,)) for capability in (80, 86, 89, 90, 100, 120)]
LOCKS = defaultdict(Lock)                      # two threads compile nothing twice
try:
    nvrtc.library()
    LACKING = ""
except Expected as none:
    LACKING = f"no NVRTC: {none.got}"
needs_nvrtc = pytest.mark.skipif(LACKING != "", reason=LACKING)


def kept(*translation, compile=nvrtc.compile):
    """nvrtc.compile, whose outcome is kept where the executor's kernels are; kernels of a file with equal macros share one."""
    def make(path):
        cubin, log = compile(*translation)
        path.write_bytes(log.encode() + b"\0" + cubin)

    key = [nvrtc.version(), *translation]
    with LOCKS[repr(key)]:
        log, _, cubin = emu.built("nvrtc", key, make, ".log").read_bytes().partition(b"\0")
    return cubin, log.decode()


@pytest.fixture(scope="module")
def compiling(request):
    """Whoever asks for one kernel will ask for the others: all cores compile ahead what the tests of this run ask for."""
    wanted = [item.callspec.params for item in request.session.items
              if item.path == request.path and item.originalname == "test_kernel_compiles_without_spills_or_complaints"]
    pool = ThreadPoolExecutor(CORES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "compile", kept)
        yield {(one["kernel"], one["arch"]): pool.submit(resources.compiled, one["kernel"], one["arch"]) for one in wanted}
        pool.shutdown(cancel_futures=True)


def named(kernel):
    return f"{kernel.name}-{'-'.join(f'{macro}={value}' for macro, value in kernel.defines.items())}"


def covering():
    """(kernel, architecture): each with all its macros for sm_90a, and for one of the others, in turn, so that every file is
    compiled for every architecture. All the others are for --all: what they share, source and compiler, is covered."""
    others = [arch for arch in ARCHITECTURES if arch != resources.ARCH]
    for kernel in KERNELS:
        settings = list(dict.fromkeys(str(k.defines) for k in KERNELS if k.file == kernel.file))
        place, n = settings.index(str(kernel.defines)), len(settings)
        first = {others[turn % len(others)] for turn in range(max(n, len(others))) if turn % n == place}
        for arch in [kernel.arch] if kernel.arch else ARCHITECTURES:
            marks = [] if arch == resources.ARCH or arch in first else pytest.mark.exhaustive
            yield pytest.param(kernel, arch, id=f"{named(kernel)}-{arch}", marks=marks)


def test_every_file_meets_every_architecture_and_every_kernel_sm_90a_and_another():
    pairs = [case.values for case in covering() if not case.marks]
    assert {(kernel.file, arch) for kernel, arch in pairs} == {
        (kernel.file, arch) for kernel in KERNELS for arch in ([kernel.arch] if kernel.arch else ARCHITECTURES)}
    for kernel in KERNELS:
        of_kernel = {arch for one, arch in pairs if one is kernel}
        assert resources.ARCH in of_kernel and (len(of_kernel) > 1 or kernel.arch)


@needs_nvrtc
@pytest.mark.parametrize("kernel, arch", list(covering())[:1 if LACKING else None])         # all would be skipped like one
def test_kernel_compiles_without_spills_or_complaints(compiling, kernel, arch):
    cubin, log = compiling[kernel, arch].result()
    assert cubin[:4] == b"\x7fELF"
    assert resources.resources(kernel, arch).spills == 0, log
    complaints = [line for line in log.splitlines() if re.search(r"warning|serialized|injected|C75\d\d", line)]
    assert not complaints


@needs_nvrtc
@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel.arch], ids=named)
def test_machine_code_is_what_the_executor_takes_wgmma_to_be(compiling, kernel):
    """A launch gets the registers that the executor has its block deal out, and each group of products is of the kernel's own:
    a group that may be empty the compiler fills with a product into no register, 255."""
    assert resources.resources(kernel).registers == min(255, 65536//kernel.block)//8*8
    code = sass.instructions(resources.compiled(kernel)[0], kernel.name)
    into = code[sass.kinds_of(code) == "HGMMA", 0] >> np.uint64(16) & np.uint64(255)
    assert len(into) and not (into == 255).any()


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_what_asks_a_gpu_for_its_answers_compiles(arch):
    """The probes of tests/executor, each once with its macros."""
    asked = {translation(probe, arch): name for name, probe in probes().items() if arch == "sm_90a" or not probe.hopper}
    for (source, options), name in asked.items():
        cubin, log = kept(source, SOURCE.name, (*options, "--ptxas-options=-v"), {})
        assert cubin[:4] == b"\x7fELF" and " 0 bytes spill stores" in log and "warning" not in log, name


def test_declared_signatures_are_those_of_the_sources():
    one_form = lambda signature: re.sub(r"\s+|__restrict__|__grid_constant__", " ", signature).replace("* ", "*").split()
    for kernel in KERNELS:
        text = (kernels_folder()/kernel.file).read_text()
        written = re.search(rf'extern "C" __global__ void(?: __\w+__\([^)]*\))* {kernel.name}\(([^)]*)\)', text)[1]
        assert one_form(written) == one_form(kernel.signature), named(kernel)


def test_structs_passed_by_value_are_declared_as_in_their_headers():
    headers = "".join(path.read_text() for path in sorted((kernels_folder()/"device").glob("*.cuh")))
    structs = {type_of(argument): argument.dtype for kernel in KERNELS for argument in kernel.arguments if argument.dtype.names}
    assert structs
    for name, dtype in structs.items():
        written = re.search(rf"struct {name} {{(.*?)\n\n", headers, re.S)[1]
        fields = [(field, ctype) for ctype, fields in re.findall(r"^ *([a-z ]+) (\w+(?:, \w+)*);", written, re.M)
                  for field in fields.split(", ")]
        assert fields == [(field, type_of(Argument(field, dtype[field], False, False, False))) for field in dtype.names]
        assert dtype.isalignedstruct


def type_of(argument):
    """The C++ name of an argument's type."""
    return next(name for name, dtype in CTYPES.items() if np.dtype(dtype) == argument.dtype)


@needs_nvrtc
def test_each_kernel_of_a_file_is_told_its_own_resources(compiling):
    softmax = [kernel for kernel in KERNELS if kernel.file == "softmax_loss.cu"]
    of_file = list(map(int, re.findall(r"Used (\d+) registers", resources.compiled(softmax[0])[1])))
    told = [resources.resources(kernel, "sm_90a").registers for kernel in softmax]
    assert len(set(told)) > 2 and sorted(told) == sorted(of_file)


def test_every_global_function_is_declared():
    written = {(path.name, name) for path in kernels_folder().glob("*.cu")
               for name in re.findall(r'extern "C" __global__ void(?: __\w+__\([^)]*\))* (\w+)\(', path.read_text())}
    assert written == {(k.file, k.name) for k in KERNELS}


@needs_nvrtc
def test_table_of_resources_is_the_compilers(compiling):
    _, kept, _ = resources.between_marks(resources.README.read_text())
    made = resources.table()
    if kept.splitlines()[0] != made.splitlines()[0]:
        pytest.skip(f"the table is of another compiler: {kept.splitlines()[0]}")
    assert kept == made, "kernels/README.md is stale: run python -m bench resources"
    assert resources.LOOPS.read_text() == resources.loops(), "kernels/loops.json is stale: run python -m bench resources"


@needs_nvrtc
def test_all_kernels_are_compiled_ahead_each_file_once_for_each_of_its_settings(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(resources, "cached_cubin", lambda kernel, arch: asked.append((kernel, arch))
                        or tmp_path/f"{len(asked)}.cubin")
    main(["compile", "--arch", "sm_100a"])
    assert {arch for _, arch in asked} == {"sm_100a"}
    settings = [(kernel.file, str(kernel.defines)) for kernel, _ in asked]
    assert sorted(settings) == sorted(
        {(kernel.file, str(kernel.defines)) for kernel in KERNELS if kernel.arch in ("", "sm_100a")})
    assert f"{len(asked)} files for sm_100a in {tmp_path}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compile", "--arch", "sm_70"])
    assert "expected sm_80, " in capsys.readouterr().err


@needs_nvrtc
def test_a_kernel_that_does_not_compile_is_told_with_its_file_and_the_compilers_first_error():
    with pytest.raises(Expected, match=r"kernels/wrong.cu: expected source that NVRTC \d+\.\d+ compiles with -arch=sm_80, "
                                       r"got kernels/wrong.cu\(2\): error: .*nothing"):
        nvrtc.compile("\n__device__ int x = nothing;\n__device__ int y = other;", "kernels/wrong.cu", ("-arch=sm_80",), {})


def test_nvrtc_missing_is_told_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    nvrtc.library.cache_clear()
    try:
        with pytest.raises(Expected, match=r"NVRTC, the CUDA compiler library.*pip install -e"):
            nvrtc.version()
    finally:
        nvrtc.library.cache_clear()
