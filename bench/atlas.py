"""python -m bench cpu --parts atlas: what `zfcore atlas --run drawn` takes, made once in an empty folder, its pictures drawn
before.

Results go to atlas.json in the folder --output: seconds by the clock and of the CPU, how many projections and pages, how many MB in how
many files. The cache of drawn pictures is filled first, since whoever makes an atlas has trained on them.
"""
import json
import os
import platform
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from bench.record import cpu_name
from zfcore import trained
from zfcore.__main__ import main as zfcore
from zfcore.cpu import CORES

RUN = "drawn"


def main(rounds, folder):
    model = trained.open(RUN, "cpu")
    pictures = model.pictures()
    for i in range(len(pictures)):
        pictures.picture(i)
    with tempfile.TemporaryDirectory() as made:
        began, cpu = time.perf_counter(), time.process_time()
        zfcore(["atlas", "--run", RUN, "--output", str(Path(made)/"atlas"), "--device", "cpu"])
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        files = [path for path in Path(made).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    units = sum(model.network.shapes[model.network.index(layer.name) + 1][0] for layer in model.network.weighted)
    report = {"cpu": cpu_name(), "cores": CORES, "numpy": np.__version__, "python": platform.python_version(),
              "load_before": os.getloadavg(),
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "run": RUN, "pictures": len(pictures),
              "units": units, "seconds": seconds, "cpu_seconds": cpu, "megabytes": size/1e6, "files": len(files)}
    path = folder/"atlas.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{RUN}: {units} units, {len(pictures)} pictures in {seconds:.0f} s, {cpu:.0f} s of the CPU; {size/1e6:.0f} MB in "
          f"{len(files)} files")
    print(f"written to {path}")
