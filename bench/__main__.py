"""python -m bench: what the operations cost, beside the best that others offer. `python -m bench cpu` needs no GPU."""
import argparse
import sys

from bench import (analyses, atlas, cpu, endtoend, figures, gpu, loader, occlusion, pack, projections, ranks, recipes,
                   resources, shares, step, tables, threads, tune)
from zfcore.check import Expected, Parser, exit_with_message
from zfcore.device import select


def parser():
    p = Parser(prog="python -m bench", description=__doc__)
    gpu.add_arguments(p)
    where = p.add_subparsers(dest="where")
    cpu.add_arguments(where.add_parser("cpu", help="ZFNet on NumPy beside other engines on the same cores",
                                       formatter_class=argparse.ArgumentDefaultsHelpFormatter))
    loader.add_arguments(where.add_parser("loader", help="whether loading pictures or the device limits training"))
    pack.add_arguments(where.add_parser("pack", help="what packing pictures costs, and what reading the packed file costs"))
    ranks.add_arguments(where.add_parser("ranks", help="what several ranks cost here, and where more of them stop paying"))
    where.add_parser("resources", help="registers and shared memory of each kernel into kernels/README.md; no GPU needed")
    resources.add_arguments(where.add_parser("compile", help="every kernel into the cache of machine code, on all cores"))
    tune.add_arguments(where.add_parser("tune", help="which tiles of convolutions are quickest on this GPU, for zfcore to "
                                                     "choose by"))
    where.add_parser("tables", help="the tables of the READMEs from the files in bench/results/")
    figures.add_arguments(where.add_parser("figures", help="the figures of the READMEs from a run on the synthetic set"))
    recipes.add_arguments(where.add_parser("recipes", help="how the small recipe was found: error, start left, legibility"))
    return p


@exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    if args.where == "resources":
        return resources.main()
    if args.where == "compile":
        return resources.ahead(args)
    if args.where == "tables":
        return tables.main()
    if args.where == "tune":
        return tune.main(args)
    if args.where == "figures":
        return figures.main(args)
    if args.where in ("loader", "pack", "ranks", "recipes"):
        return {"loader": loader, "pack": pack, "ranks": ranks, "recipes": recipes}[args.where].main(args)
    if args.where == "cpu":
        apart = {"shares": shares, "endtoend": endtoend, "threads": threads, "projections": projections, "occlusion": occlusion,
                 "analyses": analyses, "atlas": atlas}
        cpu.say_forecast(args)
        if set(args.parts) - set(apart):
            cpu.main(args)
        for part in apart:
            if part in args.parts:
                apart[part].main(args.rounds, args.output)
        return
    try:
        select("gpu")
    except Expected as none:
        raise Expected("python -m bench", "a GPU", f"none ({none.got})",
                       "`python -m bench cpu` measures the NumPy forms and works here") from None
    failed = gpu.main(args, step)
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
