"""Which rank a process is, by what started it."""
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from tests.ranks.test_sockets import in_threads
from train.launch import free_port
from zfcore import gpu
from zfcore.check import Expected
from zfcore.ranks import ALONE, environment
from zfcore.ranks.meeting import Place

HAND = {"RANK": "2", "WORLD_SIZE": "3", "MASTER_ADDR": "one", "MASTER_PORT": "29500"}
SLURM = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "1234567",
         "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[003-004]"}


@pytest.mark.parametrize("environ, who", [
    ({}, "nobody"), ({**HAND}, "hand"), ({"WORLD_SIZE": "1", "RANK": "0"}, "nobody"), ({"WORLD_SIZE": "4"}, "nobody"),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpiexec"), ({"OMPI_COMM_WORLD_SIZE": "1"}, "nobody"), ({"PMI_SIZE": "3"}, "mpiexec"),
    ({**SLURM}, "srun"), ({**SLURM, "PMI_SIZE": "16"}, "srun"), ({**SLURM, "OMPI_COMM_WORLD_SIZE": "16"}, "mpiexec"),
    ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, "nobody"),         # in the script itself, not in a step of it
    ({**HAND, "OMPI_COMM_WORLD_SIZE": "3"}, "hand")])
def test_who_has_started_it(environ, who):
    assert environment.starter(environ) == who and environment.is_rank(environ) == (who != "nobody")


def test_nobody_means_alone():
    assert environment.open("cpu", {}) is ALONE


def test_places_are_what_the_variables_say():
    hand = environment.by_variables({**HAND, "LOCAL_RANK": "1", "ZFCORE_TOKEN": "x"})
    assert hand == Place(2, 3, 1, "one", 29500, b"x")
    # torchrun listens at the other
    assert environment.by_variables({**HAND, "TORCHELASTIC_USE_AGENT_STORE": "True"}).port == 29501
    slurm = environment.by_slurm(SLURM)
    assert (slurm.rank, slurm.size, slurm.local, slurm.host) == (9, 16, 1, "gpu003") and 20000 <= slurm.port < 40000
    other = environment.by_slurm({**SLURM, "SLURM_STEP_ID": "1", "MASTER_ADDR": "two", "MASTER_PORT": "7"})
    assert (other.host, other.port) == ("two", 7) and other.token != slurm.token       # two steps of a job are two trainings


@pytest.mark.parametrize("machines, first", [("one", "one"), ("one,two", "one"), ("gpu[003-010,012],login1", "gpu003"),
                                             ("n[1,5]", "n1"), ("a-b7", "a-b7")])
def test_the_first_machine_of_a_list(machines, first):
    assert environment.first_machine(machines) == first


@pytest.mark.parametrize("environ, sentence", [
    ({"RANK": "0", "WORLD_SIZE": "2"}, "ranks: expected RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment, got no "
                                       "MASTER_ADDR, MASTER_PORT"),
    ({**HAND, "RANK": "3"}, "RANK: expected a whole number from 0 to 2 in the environment, got '3'"),
    ({**HAND, "WORLD_SIZE": "many"}, "WORLD_SIZE: expected"),
    ({**HAND, "MASTER_PORT": "0"}, "MASTER_PORT: expected a whole number from 1 to 65534"),
    ({**SLURM, "SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST: expected names"),
    ({**SLURM, "SLURM_PROCID": "-1"}, "SLURM_PROCID")])
def test_what_makes_no_rank_is_one_sentence(environ, sentence):
    with pytest.raises(Expected) as refused:
        environment.open("cpu", environ)
    assert str(refused.value).startswith(sentence)


def test_mpiexec_without_mpi4py_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(Expected, match=r'mpiexec: expected mpi4py, .*pip install "zfcore\[mpi\]"'):
        environment.open("cpu", {"OMPI_COMM_WORLD_SIZE": "2"})


def test_a_library_of_mpi_that_cannot_be_loaded_and_an_mpiexec_of_another_mpi_are_one_sentence(monkeypatch):
    class Broken:
        @property
        def MPI(self):
            raise RuntimeError("cannot load MPI library\nlong story")
    monkeypatch.setitem(sys.modules, "mpi4py", Broken())
    with pytest.raises(Expected, match=r"expected an MPI that begins, got cannot load MPI library;"):
        environment.open("cpu", {"OMPI_COMM_WORLD_SIZE": "2"})
    one = SimpleNamespace(COMM_WORLD=SimpleNamespace(size=1), Get_library_version=lambda: "Open MPI v5.0.11, package")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=one))
    with pytest.raises(Expected,
                       match=r"expected 2 ranks in mpi4py's MPI \(Open MPI v5.0.11\), got 1; this mpiexec is of another MPI"):
        environment.open("cpu", {"PMI_SIZE": "2"})


@pytest.mark.parametrize("visible, local, left", [(None, 3, "3"), ("4,5,7", 2, "7"), ("5", 3, "5"),
                                                  ("GPU-a,GPU-b", 0, "GPU-a")])
def test_a_rank_sees_its_own_gpu_alone(visible, local, left, monkeypatch):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(gpu, "card", lambda: gpu.Card("H200", environ["CUDA_VISIBLE_DEVICES"].encode()))
    assert environment.own_gpu("auto", local, environ) == ("H200", left.encode())
    assert environment.own_gpu("cpu", local, environ) is None


def test_more_ranks_than_gpus_and_no_gpu_at_all(monkeypatch):
    with pytest.raises(Expected, match="a GPU of its own for each rank of .*, 3 or more, got 2"):
        environment.own_gpu("gpu", 2, {"CUDA_VISIBLE_DEVICES": "0,1"})

    def none():
        raise Expected("--device gpu", "a CUDA device", "none")
    monkeypatch.setattr(gpu, "card", none)
    assert environment.own_gpu("auto", 0, {}) is None
    with pytest.raises(Expected, match="a CUDA device"):
        environment.own_gpu("gpu", 0, {})


@pytest.mark.parametrize("kinds", [("GPU", "CPU", "GPU"), ("CPU", "CPU", "GPU")])
def test_a_rank_on_another_kind_of_device_is_told_to_all(kinds, monkeypatch):
    of_rank, port = threading.local(), free_port()

    def card():
        if of_rank.kind == "CPU":
            raise Expected("--device gpu", "a CUDA device", "none")
        return gpu.Card("H200", b"GPU")
    monkeypatch.setattr(gpu, "card", card)

    def work(rank):
        of_rank.kind = kinds[rank]
        environment.open("auto", {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    found, other = in_threads(3, work), kinds.index("CPU" if kinds[0] == "GPU" else "GPU")
    assert all(isinstance(refused, Expected) and refused.status == 2 for refused in found)
    sentence = rf"rank {other} \(.+\): expected a {kinds[0]}, as rank 0 \(.+\) has, got a {kinds[other]}; "
    assert all(re.search(sentence, str(refused)) for refused in found)
