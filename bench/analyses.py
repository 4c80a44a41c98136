"""python -m bench cpu --parts analyses: how long one waits for each figure of the network `drawn`, by the command that a user
types.

Each command is a process of its own, from its start to its last file, once; the pictures are drawn before, since whoever looks
into a network has trained on them. Figure 4 needs the kept epochs of a run, which no network that comes along has. Results go
to analyses.json in the folder --output: seconds by the clock, and of the CPU.
"""
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.record import Record
from zfcore import trained

RUN = "drawn"
COMMANDS = {                      # what it shows: its module and options
    "top activations (figure 2)": "zfcore top-activations",
    "diagnostics (figure 6)": "zfcore diagnostics",
    "sanity checks": "zfcore sanity-checks",
    "invariance (figure 5)": "zfcore invariance --pictures 0:10 --against untrained",
    "occlusion (figure 7)": "zfcore occlusion --pictures 10,12,25",
    "correspondence (figure 8, table 1)": "zfcore correspondence --synthetic 40",
    "where it is wrong": "train.evaluate",
}


def main(rounds, folder):
    pictures = trained.open(RUN, "cpu").pictures()
    for i in range(len(pictures)):
        pictures.picture(i)
    record = Record(folder/"analyses.json", {"run": RUN})
    print(f"{'seconds':36}{'clock':>8}{'CPU':>8}")
    for name, command in COMMANDS.items():
        row = record.has("cases", name=name)
        if row is None:
            record.add("cases", row := {"name": name, **measured(command)})
        print(f"{name:36}{row['seconds']:8.1f}{row['cpu_seconds']:8.1f}", flush=True)
    record.finish()


def measured(command):
    """{"command", "seconds", "cpu_seconds"} of `command`, which writes into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", *command.split(), "--run", RUN]
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words, "--device", "cpu", "--output", str(Path(folder)/"out")], check=True,
                       capture_output=True)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"command": " ".join(["python", *words]), "seconds": seconds,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
