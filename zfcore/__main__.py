"""Floor 8: python -m zfcore COMMAND ...: run a command of zfcore/commands, save what it finds (HDF5), draw it beside that, say
it.

    python -m zfcore redraw FILE.h5 ...      draws figures again from what was saved, of any command; it needs no network
    python -m zfcore import FILE ...         a network of another engine becomes a run; export RUN ... is the way back
"""
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from zfcore import check, results
from zfcore.commands import COMMANDS, TOOLS
from zfcore.commands.common import FORMAT, SHARED
from zfcore.files import numbered
from zfcore.terminal import printable, say, status_of, warn
from zfcore.training import Stop

WRITTEN = tuple(f".{kind}" for kind in (*results.FIGURES, "md", "csv"))
REDRAW = "draw figures again from saved arrays, of any command; needs no network"


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    try:
        with check.told_of("--layers" if "layers" in args else "--layer", "layer"):
            if args.command in TOOLS:
                TOOLS[args.command].work(args)
            else:
                redraw(args) if args.command == "redraw" else work(COMMANDS[args.command], args)
    except (KeyboardInterrupt, Stop) as stop:              # here, or at one of the processes of --devices
        goes_on = args.command not in TOOLS or TOOLS[args.command].GOES_ON
        warn("\nstopped; what is on the disk is whole, and the same command goes on with a pass over pictures" if goes_on
             else "\nstopped")
        sys.exit(status_of(stop))


def parser():
    p = check.Parser(prog="python -m zfcore", description="Look into a trained network.")
    names = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        one = names.add_parser(name, help=command.HELP, description=command.HELP, conflict_handler="resolve")      # its own win
        for flags, keywords in [*SHARED, *command.OPTIONS]:
            one.add_argument(*flags, **keywords)
    for name, tool in TOOLS.items():
        one = names.add_parser(name, help=tool.HELP, description=tool.HELP, conflict_handler="resolve")
        for flags, keywords in tool.OPTIONS:
            one.add_argument(*flags, **keywords)
    again = names.add_parser("redraw", help=REDRAW, description=REDRAW)
    again.add_argument("files", nargs="+", metavar="FILE.h5", type=Path)
    again.add_argument(*FORMAT[0], **FORMAT[1])
    return p


def work(command, args, say=say):
    """Run a command: what it finds is saved and drawn as it comes, what belongs together is drawn at the end. Results that are
    there already, of other pictures or options, stay: new ones get a number. What is to be said goes to `say`. Returns the
    files of the results, and those of the figures."""
    found, files, figures, highest, closing = [], [], [], 1, getattr(command, "closing", None)
    with ExitStack() as args.left:
        for asked, result in command.run(args):
            file, number = results.keep(asked, result)
            if number > 1:
                say(f"{printable(asked)} holds another result, which stays; this one is {file.name}")
            highest = max(highest, number)
            files.append(file)
            if command.TOGETHER or closing:                  # else it goes: all units of a layer would fill the memory
                found.append(result)
            if not command.TOGETHER:
                figures.append(file.with_suffix(f".{args.format}"))
                say(command.draw(result, figures[-1]))
    if command.TOGETHER:
        figures.append(numbered(file.with_name(f"{command.TOGETHER}.{args.format}"), highest))
        say(command.draw(found, figures[-1]))
    if closing:
        say(closing(args, found))
    return files, [figure for figure in figures if figure.is_file()]


def redraw(args):
    """The figures of saved results, each as its command draws it; those that share a figure are drawn together. All files are
    looked at before the first is drawn: where one is damaged or none is a figure's, none is; a pass that lies among them, of
    which there is no figure, is named."""
    kinds = {command.RESULT.__name__: command for command in COMMANDS.values()}
    check.different("FILE.h5", map(os.path.realpath, args.files), "files")
    for file in args.files:
        if file.suffix.lower() in WRITTEN:
            raise check.Expected(file, "a result's .h5", f"{file.suffix}, the ending of what is drawn and written beside one",
                                 "rename it if it is a result")
        if (kind := results.kind_of(file)) in kinds:
            results.load(file, kinds[kind].RESULT)         # and let go: all units of a layer would fill the memory
    kind_of = {file: results.kind_of(file) for file in args.files}
    others = [file for file, kind in kind_of.items() if kind not in kinds]
    if len(others) == len(kind_of):
        raise check.Expected(others[0], f"a result that a command draws, one of {', '.join(kinds)}", kind_of[others[0]])
    for file in others:
        say(f"{printable(file)} holds {kind_of[file]}, which no command draws")
    together = {}
    for file, kind in kind_of.items():
        if kind not in kinds:
            continue
        found = results.load(file, kinds[kind].RESULT)
        if kinds[kind].TOGETHER:
            together.setdefault(kind, []).append((file, found))
        else:
            say(kinds[kind].draw(found, file.with_suffix(f".{args.format}")))
    for kind, of_kind in together.items():
        (first, _), *_ = of_kind
        say(kinds[kind].draw([found for _, found in of_kind], first.with_name(f"{kinds[kind].TOGETHER}.{args.format}")))


if __name__ == "__main__":
    main()
