"""Floor 7: `zfcore export RUN --format onnx --output FILE`: a network of zfcore's in the file of another engine."""
from importlib import import_module
from pathlib import Path

from zfcore import check
from zfcore.backend import to_host
from zfcore.commands.common import open_run, option
from zfcore.interchange.preprocessing import as_exported
from zfcore.terminal import printable, say

HELP = "a trained network as a file of ONNX, safetensors or PyTorch"
FORMATS = {"onnx": ("onnx_writer", (".onnx",)), "safetensors": ("safetensors", (".safetensors",)),
           "torch": ("pytorch", (".pth", ".pt"))}
GOES_ON = False
OPTIONS = [
    option("run", metavar="RUN", help="a run's folder, a checkpoint file, or a network that comes with zfcore, e.g. drawn"),
    option("--format", choices=tuple(FORMATS), required=True),
    option("--output", metavar="FILE", type=Path, required=True),
    option("--with-preprocessing", action="store_true", help="onnx: the graph takes uint8 RGB pictures, and subtracts the mean "
                                                             "itself"),
]


def work(args):
    """Run the command."""
    module, suffixes = FORMATS[args.format]
    if args.output.suffix.lower() not in suffixes:
        raise check.Expected("--output", f"a file whose name ends in {' or '.join(suffixes)}", args.output)
    if args.with_preprocessing and args.format != "onnx":
        raise check.Expected("--with-preprocessing", "--format onnx, whose graph can do it", args.format)
    model, writer = open_run(args.run, "RUN", "cpu"), import_module(f"zfcore.interchange.{module}")
    how, mean = {"preprocessing": True} if args.with_preprocessing else {}, to_host(model.mean)
    writer.write(model.network, args.output, mean, model.classes, **how)
    say(f"takes:  {as_exported(model.network.input_shape, mean, args.with_preprocessing)}", f"  {printable(args.output)}")
    if args.format != "onnx":
        say("", import_module("zfcore.interchange.pytorch").sequential(model.network))
