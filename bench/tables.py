"""python -m bench tables: the tables of the READMEs, written from the files in bench/results/.

Between `<!-- NAME:begin -->` and `<!-- NAME:end -->` nothing is typed by hand; FILES says which stand where:

    cpu          the whole network on NumPy in three lines, from cpu.json, endtoend.json, projections.json and occlusion.json
    analyses     how long each analysis takes, from analyses.json
    atlas        what an atlas takes, from atlas.json
    layers       all that they have, every convolution by itself too; behind it threads.json and shares.json
    loader       what loads and trains how fast, and which limits, from loader.json and every loader-*.json
    ranks        what several ranks cost, from ranks.json
    pack         what packed sets cost to make and to read, from pack.json and every pack-*.json
    train        what the default training run printed last, from train.txt
    trained      its first and its last epoch and its result
    table2       tables 2 and 3 of the paper in small, from the files of that name that python -m train.ablation writes
    table3
    claims       what these tables say of the paper's claims
    agreed       how many of them agree
    table4       tables 4 to 7 and figure 9, likewise from what python -m train.transfer writes
    ...
    figure9
    gpu          every kernel, from the newest <device>-<date>.json of each device
    deviations   what the paper leaves open and where runs differ from its recipe, from zfcore/training/deviations.py

tests/bench/test_tables.py fails where a table is not what the files say.
"""
import re
from functools import partial
from pathlib import Path

from bench import recipes
from bench.loader import verdict
from bench.ranks import beyond
from train.options import parser
from train.step_time import Link, by_factors_seconds, clock, exchange_seconds, traffic
from zfcore import networks
from zfcore.check import Expected
from zfcore.files import read_json
from zfcore.models import NATIVE_SIZE, build
from zfcore.terminal import plural
from zfcore.training import resolve
from zfcore.training.deviations import ANALYSES, deviations, open_questions

ROOT = Path(__file__).parents[1]
FILES = {"README.md": ("trained", "agreed", "cpu"), "zfcore/README.md": ("analyses", "atlas"),
         "train/README.md": ("train", "factors", "networks", "claims", "deviations"),
         "bench/README.md": ("gpu", "layers", "loader", "pack", "ranks", "recipes", "table2", "table3", "table4", "table5",
                             "table6", "table7", "table7-caltech", "figure9")}
RESULTS = ROOT/"bench"/"results"
NO_GPU = "No kernel has run on hardware yet: there is no figure to show."
CLASSES = {"fp32": "peers in fp32 without TF32", "fp32x3": "peers in fp32 without TF32", "tf32": "peers in TF32",
           "bf16": "peers in bfloat16, which read and write it too"}
ON_CPU = "cpu.json", "endtoend.json", "projections.json", "occlusion.json"
IN_SHORT = "forward", "training step", "projections from layer 5"            # each at its largest batch
BESIDE = {"forward": "forward pass", "whole": "every layer whole",
          # of layers, which have no other engine
          "channels first": "PyTorch, channels first", "channels last": "PyTorch, channels last"}


def main():
    for name, marks in FILES.items():
        path = ROOT/name
        path.write_text(renewed(path.read_text(), RESULTS, name, marks))
        print(f"tables written into {path}")


def renewed(text, results, name="README.md", marks=None):
    """`text` with every table between marks written anew from the folder `results`. Raises Expected for marks that do not
    come in pairs or are not among `marks` (None: those that there are)."""
    begun, ended = (re.findall(rf"<!-- (\S+):{end} -->", text) for end in ("begin", "end"))
    if begun != ended:
        raise Expected(name, "every <!-- NAME:begin --> to have its <!-- NAME:end -->", f"{begun} and {ended}")
    for mark in begun:
        if mark not in (marks or TABLES):
            raise Expected(name, f"marks {', '.join(marks or TABLES)}", mark)
        table = TABLES[mark](results)
        text = re.sub(rf"(<!-- {mark}:begin -->\n).*?(<!-- {mark}:end -->)", lambda ends: ends[1] + table + "\n" + ends[2],
                      text, flags=re.S)
    return text


def read(path):
    try:
        return read_json(path)
    except Expected as error:
        raise Expected(path.name, "JSON written by python -m bench", str(error), "remove it and measure again") from None


# ---------------------------------------------------------------------------------------------------------- on a CPU
def cpu_table(results, with_layers=False):
    found = {name: read(results/name) for name in ON_CPU if (results/name).exists()}
    if not found:
        return "Not measured yet: `python -m bench cpu`."
    blocks = []
    for (cpu, cores, numpy, numba, pytorch), reports in by_machine(found).items():
        others = {name: version for report in reports.values() for name, version in report.get("engines", {}).items()
                  if name != "torch"}
        peer = "".join(f", {name} {version}" for name, version in (({"PyTorch": pytorch} if pytorch else {}) | others).items())
        lines = [f"{cpu}, {cores} cores, NumPy {numpy}{f' with numba {numba}' if numba else ''}{peer}, "
                 f"{min(report['date'] for report in reports.values())[:10]}{in_rounds(*reports.values())}.", "",
                 "| | N | ms each | beside it | ms each | ours / theirs within a round (spread) |", "|---|--:|--:|---|--:|--:|"]
        head = len(lines)
        for report in reports.values():
            largest = {row["name"]: row for row in report["cases"]}
            lines += map(cpu_line, report["cases"] if with_layers else (largest[name] for name in IN_SHORT if name in largest))
            if with_layers:
                lines += [f"| peak memory of a training step | {row['N']} | {row['gigabytes']:.2f} GB | | | |"
                          for row in report.get("peak_memory", [])]
        if len(lines) > head:                                  # a machine may have measured nothing of what is shown in short
            blocks.append("\n".join(lines))
    if with_layers:
        blocks += [block(read(results/name)) for name, block in (("threads.json", threads_block), ("shares.json", shares_block))
                   if (results/name).exists()]
    return "\n\n".join(blocks)


def threads_block(report):
    """Table of how the speed grows with the cores."""
    lines = [f"On fewer cores{in_rounds(report)}:", "", "| | N | cores | ms each | of linear |", "|---|--:|--:|--:|--:|"]
    return "\n".join(lines + [f"| {row['name']} | {row['N']} | {row['cores']} | {digits(row['milliseconds'])} | "
                              f"{100*row['of_linear']:.0f} % |"
                              for row in report["cases"]])


def shares_block(report):
    """Table of the operations that the time goes into."""
    lines = ["| share of the time | outside matrix products | by operation, the largest |", "|---|--:|---|"]
    for row in report["cases"]:
        largest = ", ".join(f"`{operation}` {100*share:.0f} %" for operation, share in list(row["by_operation"].items())[:5])
        lines.append(f"| {row['name']} | {100*row['no_product']:.0f} % | {largest} |")
    return "\n".join(lines)


def by_machine(reports):
    """{(cpu, cores, numpy, numba or None, pytorch or None): {file: report}}: what was measured alike shares a table."""
    machines = {}
    for name, report in reports.items():
        machines.setdefault((report["cpu"], report["cores"], report["numpy"], report.get("numba")), {})[name] = report
    return {(*key, next((r["pytorch"] for r in group.values() if r.get("pytorch")), None)): group
            for key, group in machines.items()}


def cpu_line(row):
    times = row["milliseconds"]
    text = f"| {row['name']} | {row['N']} | {digits(times['ours'])} |"
    if "best" not in row:
        return text + " | | |"
    low, high = row["spread"]
    beside = BESIDE.get(row["best"], row["best"])
    return text + f" {beside} | {digits(times[row['best']])} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) |"


def analyses_table(results):
    """A row a command that looks into the network that comes along, and all of them."""
    if not (results/"analyses.json").exists():
        return "Not measured yet: `python -m bench cpu --parts analyses`."
    report = read(results/"analyses.json")
    lines = [f"`{report['run']}`, seconds. {report['cpu']}, {report['cores']} cores, NumPy {report['numpy']}"
             f"{' with numba ' + report['numba'] if report['numba'] else ''}, {report['date'][:10]}.", "",
             "| | by the clock | of the CPU |", "|---|--:|--:|"]
    lines += [f"| {row['name']} | {digits(row['seconds'])} | {digits(row['cpu_seconds'])} |" for row in report["cases"]]
    total = (digits(sum(row[what] for row in report["cases"])) for what in ("seconds", "cpu_seconds"))
    return "\n".join([*lines, f"| all of them, one after the other | {' | '.join(total)} |"])


def atlas_line(results):
    """A sentence on what the atlas of a network that comes along takes."""
    if not (results/"atlas.json").exists():
        return "Not measured yet: `python -m bench cpu --parts atlas`."
    found = read(results/"atlas.json")
    return (f"The atlas of `{found['run']}`, {found['units']} units over {found['pictures']} pictures: {found['seconds']:.0f} "
            f"s, {found['cpu_seconds']:.0f} s of the CPU, "
            f"{found['megabytes']:.0f} MB in {found['files']} files ({found['cpu']}, {found['cores']} cores, "
            f"{found['date'][:10]}).")


def digits(value):
    """Three figures, no exponent: 0.0123, 1.23, 12.3, 1230."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 0.1 else f"{value:.3g}"


# ----------------------------------------------------------------------------------------------------------- loading
def loading_table(results, what, block):
    """A block a file: `what`.json first, then every `what`-*.json."""
    found = [path for path in (results/f"{what}.json", *sorted(results.glob(f"{what}-*.json"))) if path.exists()]
    return "\n\n".join(block(read(path)) for path in found) or (
        f"Not measured yet: `python -m bench {what} --data DIR --output bench/results/{what}.json`.")


def circumstances(report, more=""):
    return (f"{report['cpu']}, {report['cores']} cores, load {report['load']:.1f} when it began; {report['date'][:10]}"
            f"{in_rounds(report) and in_rounds(report) + more}.")


def in_rounds(*reports):
    """Words behind a date on how many rounds medians are of: ", 7 rounds", ", 3 or 7 rounds"; "" where no file says it."""
    counts = sorted({report["rounds"] for report in reports if "rounds" in report})
    return f", {' or '.join(map(str, counts[:-1] + [plural(counts[-1], 'round')]))}" if counts else ""


def loader_block(report):
    lines = [f"**{report['data']}** ({report['kind']}): {report['pictures']} pictures brought to {report['picture_size']} "
             f"pixels; {report['model']} at {report['image_size']}, batch {report['batch_size']}, on {report['device']}. "
             f"{circumstances(report)}", "",
             "| | threads | pictures/s (spread) | of the device alone within a round (spread) |", "|---|--:|--:|--:|",
             *map(loader_line, report["cases"]), "", verdict(report)]
    return "\n".join(lines)


def loader_line(row):
    low, high = map(digits, row["spread"])
    text = f"| {row['name']} | {row['workers'] or ''} | {digits(row['pictures_per_second'])} ({low} to {high}) |"
    return text + (" {:.2f} ({:.2f} to {:.2f}) |".format(row["of_device"], *row["of_device_spread"]) if "of_device" in row
                   else " |")


def pack_block(report):
    again, file = report["resumed"], {True: "the same in every byte", False: "ANOTHER ONE"}
    packed = f", {report['packings']} of packing" if "packings" in report else ""
    lines = [f"**{report['data']}** at {report['size']} pixels. {circumstances(report, ' of reading' + packed)}", "",
             "| | threads | pictures/s (spread) | of decoding within a round, by the clock (spread) | by processor time (spread) |",
             "|---|--:|--:|--:|--:|"]
    for row in report["packing"] + report["cases"]:
        what = row.get("name") or f"packing {row['pictures']} as {row['encoding']}, {row['bytes_per_picture']/1000:.1f} kB each"
        speed = "{} ({} to {})".format(*map(digits, (row["pictures_per_second"], *row["spread"])))
        shares = ("" if what == "decoding" or key not in row else " {:.2f} ({:.2f} to {:.2f})".format(*row[key])
                  for key in ("of_decoding", "cpu_of_decoding"))
        lines.append(f"| {what} | {row['workers']} | {speed} |{' |'.join(shares)} |")
    return "\n".join([*lines, "", f"Killed with {again['pictures']} pictures packed, it packed on {again['seconds']:.1f} s "
                                  f"after it was "
                      f"started again, and the file was {file[again['same_bytes']]}."])


def ranks_table(results):
    path = results/"ranks.json"
    if not path.exists():
        return "Not measured yet: `python -m bench ranks --output bench/results/ranks.json`."
    report = read(path)
    lines = [f"{report['model']} at {report['image_size']}, batch {report['batch_size']}, on {report['device']}. "
             f"{circumstances(report)}", "",
             "| ranks | ms a step (spread) | predicted | communication that nothing hides |", "|--:|--:|--:|--:|"]
    for ranks, of in report["steps"].items():
        median, low, high, predicted = (digits(1e3*of[name]) for name in ("median", "lowest", "highest", "predicted"))
        lines.append(f"| {ranks} | {median} ({low} to {high}) | {predicted} | {100*beyond(of):+.0f} % |")
    lines += alone_table(report.get("alone", ()))
    for what, sizes in report["links"].items():
        lines += ["", f"| {what}, bytes | ms between {report['ranks']} ranks by {report['way']} (spread) |", "|--:|--:|"]
        lines += ["| {} | {} ({} to {}) |".format(size, *(f"{1e3*of[name]:.3g}" for name in ("median", "lowest", "highest")))
                  for size, of in sizes.items()]
    return "\n".join(lines)


def alone_table(rows):
    """Lines of the table of steps on one rank, as shares of steps that know of no ranks."""
    if not rows:
        return []
    lines = ["", "| a step on one rank, as a share of one that knows of none within a turn | ms | by the clock (spread) | that one "
             "once more | by the processor's time (spread) | that one once more |", "|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        shares = ("{median:.3f} ({lowest:.3f} to {highest:.3f})".format(**row[what][by])
                  for by in ("clock", "processor") for what in ("ranks", "again"))
        lines.append(f"| {row['model']} at {row['image_size']}, batch {row['batch_size']}, {row['turns']} turns | "
                     f"{digits(1e3*row['plain'])} | " + " | ".join(shares) + " |")
    return lines


def factors_table(results):
    """Predictions of what it would bring to send the factors of fully connected layers instead of their gradients; `results` is
    not asked."""
    links = {speed: Link(0.0, speed*1e9/8) for speed in (1, 10, 25, 100)}
    lines = [f"| predicted for batches of 128, on 2 to 16 ranks | {' | '.join(f'{speed} Gb/s' for speed in links)} |",
             "|---|" + "--:|"*len(links)]
    for model, name in (("zfnet", "ZFNet"), ("tiny", "`tiny`")):
        of = traffic(build(model, 1000, NATIVE_SIZE.get(model, 224)), 128)
        ways = {f"{name}'s gradients, {of.gradients/1e6:.1f} MB, travel in": partial(exchange_seconds, of.gradients),
                f"with {of.factors/1e6:.1f} MB of factors instead of {of.connected/1e6:.1f} MB of gradients":
                partial(by_factors_seconds, of)}
        for words, seconds in ways.items():
            times = (f"{clock(seconds(2, link))} to {clock(seconds(16, link))}" for link in links.values())
            lines.append(f"| {words} | {' | '.join(times)} |")
        least = [", by factors ".join(clock(2*seconds(2, link)) for seconds in ways.values()) for link in links.values()]
        lines.append(f"| ranks gain only where one device takes longer a step than | {' | '.join(least)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------- on a GPU
def gpu_table(results):
    newest = {}
    for path in sorted(results.glob("*-????-??-??.json")):
        report = read(path)
        newest[report["device"]] = report
    return "\n\n".join(map(gpu_block, newest.values())) or NO_GPU


def gpu_block(report):
    ceilings = report["ceilings"]
    peers = ", ".join(f"{what} {report[key]}" for what, key in (("PyTorch", "pytorch"), ("cuDNN", "cudnn")) if report[key])
    lines = [f"**{report['device']}**, {report['date'][:10]}, commit {report['commit'] or 'unknown'}: driver "
             f"{report['driver'] or 'unknown'}, CUDA {report['cuda']}, CuPy {report['cupy']}, {peers or 'no peer installed'}. "
             f"Batch {report['N']}{', at most ' + plural(report['rounds'], 'round') if 'rounds' in report else ''}. "
             f"Measured ceilings: copy {ceilings['copy_gb_s']:.0f} GB/s; TFLOP/s: fp32 "
             f"{ceilings['fma_tflop_s']:.1f}, mma.sync in tf32 {ceilings['tf32_tflop_s']:.0f}, in bf16 "
             f"{ceilings['bf16_tflop_s']:.0f}. {chosen_by(report['choices'])}"]
    lines += steps_table(report["steps"])
    for precision, beside in CLASSES.items():
        rows = [row for row in report["cases"] if row["precision"] == precision]
        if rows:
            lines += ["", f"Products in {precision}, beside {beside}:", "",
                      "| operation | µs (spread) | rate | of the floor | best peer | µs | ratio within a round (spread) | error | peer's |",
                      "|---|--:|--:|--:|---|--:|--:|--:|--:|", *map(gpu_line, rows)]
    return "\n".join(lines)


def chosen_by(choices):
    """Sentence on what the kernels of a report were chosen by."""
    known = f"by a table of `python -m bench tune` ({plural(len(choices), 'choice')}) and, where that knows nothing, " if choices else ""
    return f"Kernels are chosen {known}by the model of a GPU."


def steps_table(steps):
    """The whole training step, a column a contestant; [] where none was measured."""
    names = list(dict.fromkeys(name for row in steps for name in row["contestants"]))
    if not names:
        return []
    lines = ["", "A whole training step, ms (spread):", "", f"| products in | launches | {' | '.join(names)} |",
             "|---|--:" + "|--:"*len(names) + "|"]
    for row in steps:
        cells = [row["contestants"].get(name, {}) for name in names]
        shown = ["failed" if "failed" in cell else "{:.2f} ({:.2f} to {:.2f})".format(cell["ms"], *cell["spread"]) if cell
                 else ""
                 for cell in cells]
        lines.append(f"| {row['precision']} | {row.get('launches', '')} | {' | '.join(shown)} |")
    return lines


def gpu_line(row):
    if "failed" in row:
        return f"| {row['name']} | failed: {row['failed'].replace('|', '/')} | | | | | | | |"
    seconds = row["us"]/1e6
    rate = f"{row['bytes']/seconds/1e9:.0f} GB/s" if row["bound"] == "memory" else f"{row['flops']/seconds/1e12:.1f} TFLOP/s"
    low, high = row["spread"]
    text = (f"| {row['name']} | {digits(row['us'])} ({digits(low)} to {digits(high)}) | {rate} "
            f"| {100*row['share_of_floor']:.0f} % |")
    if "best_peer" not in row:
        return text + f" | | | {row['error']:.0e} | |"
    peer, (low, high) = row["peers"][row["best_peer"]], row["ratio_spread"]
    theirs = "" if peer["error"] is None else f"{peer['error']:.0e}"
    return text + (f" {row['best_peer']} | {digits(peer['us'])} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) "
                   f"| {row['error']:.0e} | {theirs} |")


# ---------------------------------------------------------------------------------------------------------- training
def train_table(results):
    path = results/"train.txt"
    if not path.exists():
        return "Not recorded yet."
    return "```\n" + path.read_text().strip("\n") + "\n```"


def trained_table(results):
    lines = train_table(results).split("\n")
    epochs = re.findall("^epoch .*(?:\n  .*)?", "\n".join(lines), flags=re.M)             # two lines each
    result = [line for line in lines if line.startswith("validation error")]
    return "\n".join(["```", epochs[0], "...", epochs[-1], *result, "```"] if epochs else lines)


def study_table(results, name, command):
    path = results/f"{name}.md"
    return path.read_text(encoding="utf-8").strip("\n") if path.exists() else f"Not trained yet: `{command}`."


def claims_table(results):
    """Verdicts of table 2, with more seeds, on its two networks in claims 1 and 4, and of table 3 on the others: the lines that
    begin with a claim's number, below the head that they have there, which says of how many % their intervals are."""
    both = {name: TABLES[name](results) for name in ("table2", "table3")}
    heads = set(re.findall(r"^\| claim of the paper .*\n.*", "\n".join(both.values()), flags=re.M))
    if not heads:
        return "No network of tables 2 and 3 is trained yet."
    if len(heads) > 1:
        raise Expected("tables 2 and 3", "as many looks at the claims of both", "intervals of two kinds",
                       "collect both with the same --until-decided")
    lines = [line for name, of in (("table2", "1"), ("table3", "[23]"), ("table2", "4"))
             for line in re.findall(rf"^\| {of} .*", both[name], flags=re.M)]
    return "\n".join([heads.pop().replace("claim of the paper", "claim of the paper (section 5.1)"), *lines])


def agreed_table(results):
    """Sentence that counts the claims that agree."""
    table = claims_table(results)
    said = [line.split("|")[-2].strip() for line in table.split("\n")[2:]]
    if not said:
        return table
    counts = (sum(word.startswith(how) for word in said) for how in ("agrees", "does not agree", "undecided"))
    return ("Of the {} differences between rows of tables 2 and 3 that the paper builds on, {} agree in small, {} do not and "
            "{} are\nundecided: [the claims](train/README.md#which-layers-matter-tables-2-and-3).").format(len(said), *counts)


def recipes_table(results):
    path = results/"recipes.json"
    if not path.exists():
        return "Not measured yet: `python -m bench recipes --output DIR`."
    return recipes.table(read(path))


def networks_table(results):
    """The networks that come with zfcore, from their cards; `results` is not asked."""
    lines = ["| `--run` | network | data | epochs | top-1 error, centre crop | ten crops | start left in conv5 | conv5 in the "
             "box | another unit's | untrained | MB |", "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for card in map(networks.card, networks.names()):
        of, box = card["legible"]["conv5"], "{:.0f} %".format
        errors = (f"{100*card['validation'][crops]['top1']:.1f} %" for crops in ("centre", "ten"))
        boxes = (box(100*of["in_the_box"][name]) for name in ("as trained", "another unit", "untrained"))
        lines.append(f"| `{card['name']}` | {card['model']}, {card['input']}x{card['input']} | "
                     f"{card['options']['data'] or 'ten drawn classes'} | {card['epoch']} | {' | '.join(errors)} | "
                     f"{100*card['start_left']['conv5']:.0f} % | {' | '.join(boxes)} (the box: {100*of['box_area']:.0f} % of "
                     f"the area) | {card['bytes']/1e6:.1f} |")
    return "\n".join(lines) if len(lines) > 2 else "None is there yet: `python -m train.reference drawn`."


# ------------------------------------------------------------------------------------------------------- the recipe
def deviations_table(results):
    """The open questions of the paper's presets, those of its analyses, and where the default preset departs; `results` is
    not asked."""
    zfnet, alexnet, tiny = (resolve(vars(parser().parse_args(["--preset", name]))) for name in ("zfnet", "alexnet", "tiny"))
    of_zfnet = open_questions(zfnet)
    other = [entry for entry in open_questions(alexnet) if entry not in of_zfnet]
    rows = of_zfnet + [entry._replace(what=f"`alexnet`: {entry.what}") for entry in other] + list(ANALYSES)
    small = deviations(tiny) + [entry for entry in open_questions(tiny) if entry not in of_zfnet]
    rows += [entry._replace(what=f"`tiny`: {entry.what}") for entry in small]
    return "\n".join(["| open | the paper | here | why |", "|---|---|---|---|",
                      *(f"| {what} | {paper or 'silent'} | {here} | {why} |" for what, paper, here, why in rows)])


TABLES = {"cpu": cpu_table, "layers": lambda results: cpu_table(results, with_layers=True), "train": train_table,
          "trained": trained_table, "gpu": gpu_table, "loader": partial(loading_table, what="loader", block=loader_block),
          "pack": partial(loading_table, what="pack", block=pack_block), "deviations": deviations_table,
          "ranks": ranks_table, "factors": factors_table, "recipes": recipes_table, "networks": networks_table,
          "analyses": analyses_table, "atlas": atlas_line,
          **{name: partial(study_table, name=name, command=f"python -m train.ablation {name} --output runs/tables")
             for name in ("table2", "table3")}, "claims": claims_table, "agreed": agreed_table,
          **{name: partial(study_table, name=name, command=f"python -m train.transfer {name.split('-')[0]} --run RUN --data "
                                                           f"DIR")
             for name in ("table4", "table5", "table6", "table7", "table7-caltech", "figure9")}}
