"""Floor 7: `zfcore import FILE`: a network of another engine becomes a run that every command takes."""
import json
from pathlib import Path

import numpy as np

from zfcore import check, interchange
from zfcore.checkpoint import Checkpoint, atomic, save
from zfcore.commands.common import option
from zfcore.data.folders import is_system
from zfcore.files import folder_made, read_text
from zfcore.interchange import certificate
from zfcore.interchange.means import read_answers, read_mean
from zfcore.terminal import command, plural, printable, say

HELP = "a network of ONNX, Caffe, PyTorch, safetensors or Keras becomes a run"
GOES_ON = False
OPTIONS = [
    option("file", metavar="FILE", type=Path, help=", ".join(interchange.SUFFIXES)),
    option("--graph", metavar="PROTOTXT", type=Path, help="the layers of a .caffemodel (default: the .prototxt beside it)"),
    option("--model", metavar="NAME", help="the layers of a file that holds weights alone: a model of zfcore's, or a JSON file "
                                           "with a layer table"),
    option("--output", metavar="RUN", help="folder to write (default: runs/NAME of the file)"),
    option("--labels", metavar="FILE", type=Path, help="names of the classes, one a line"),
    option("--channels", choices=("rgb", "bgr", "grey"), help="the order in which it has the colours (default: what the file "
                                                              "says, or RGB)"),
    option("--mean", metavar="R,G,B", help="what is subtracted from pixels: numbers, or a .npy or .binaryproto in the "
                                           "network's own order"),
    option("--std", metavar="R,G,B", help="what pixels less the mean are divided by"),
    option("--scale", type=float, help="what they are multiplied by, e.g. 0.00392157"),
    option("--picture-size", metavar="N", type=check.whole_number(1, 4096),
           help="pictures are brought to NxN pixels, whose middle the network is given"),
    option("--check", metavar="X.npz", type=Path, help="inputs x (N,C,H,W) as the network was made for and answers y "
                                                       "(N,classes) that must come out: scores, their softmax or its logarithm"),
]
RECORD = "import.json"


def work(args):
    """Run the command: nothing is written unless the network is shown to be the one in the file, as far as that can be shown
    here."""
    output = Path(args.output or Path("runs")/args.file.stem)
    if output.exists() and (not output.is_dir() or not all(is_system(entry.name) for entry in output.iterdir())):
        raise check.Expected("--output", "a new or empty folder", output)
    if output.is_symlink() and not output.exists():
        raise check.Expected("--output", "a new or empty folder", f"{output}, a link that leads nowhere")
    found = interchange.import_network(args.file, args.graph, args.model, labels_of(args.labels), channels=args.channels,
                                       mean=mean_of(args.mean), std=numbers("--std", args.std), scale=args.scale,
                                       size=args.picture_size)
    answers = []
    if args.check:
        answers = [certificate.against_answers(found.seen, found.lowered, *read_answers(args.check))]
        certificate.check_answers(args.check, answers[0])
    write(found, output)
    say(*in_words(found, answers), f"  {printable(output/'best.h5')}   {printable(output/RECORD)}", "",
        f"next:  {command('python', '-m', 'zfcore', 'top-activations', '--run', output, '--data')} FOLDER      what its units "
        f"see")


def in_words(found, answers):
    """The lines of the record: what it is, how it sees, what was assumed and folded, how far it is from the file's own
    engine."""
    network, foreign = found.lowered.network, found.foreign
    weights = sum(array.size for of_layer in network.parameters().values() for array in of_layer.values())
    yield (f"{printable(foreign.path)} ({foreign.format}): {'x'.join(map(str, foreign.input_shape))}, "
           f"{plural(len(found.classes), 'class')}, {weights:,} parameters")
    yield f"sees:   {found.lowered.seen.in_words()}"
    for line in found.notes:
        yield f"note:   {printable(line)}"
    if found.differences:
        yield f"beside {foreign.engine_name}, {certificate.PICTURES} pictures of random pixels:"
        yield from certificate.table(found.differences)
    for one in answers:
        yield f"answers of --check: within {one.relative:.1e} of the largest"


def write(found, output):
    """best.h5 and import.json in a new folder; neither where the disk refuses one."""
    network, record = found.lowered.network, json.dumps(found.record(), indent=1)
    with folder_made(output), atomic(output/RECORD) as temporary:
        temporary.write_text(record + "\n", encoding="utf-8")
        save(output/"best.h5", Checkpoint(network.name, network.input_shape, network.table(), found.classes, network.parameters(),
                                          mean_image=found.lowered.mean, buffers=network.buffers(), state={"imported": record}))


# --------------------------------------------------------------------------------------------------------------- options
def numbers(name, words):
    """The numbers of an option, "0.485,0.456,0.406" -> float64 (3,); None for none."""
    if words is None:
        return None
    try:
        array = np.array([float(word) for word in words.split(",")])
    except ValueError:
        raise check.Expected(name, "numbers with commas between them", repr(words)) from None
    check.finite(name, array)
    return array


def mean_of(words):
    """The numbers of --mean, or the array of the file that it names."""
    if words is not None and Path(words).suffix.lower() in (".npy", ".binaryproto"):
        return read_mean(Path(words))
    return numbers("--mean", words)


def labels_of(path):
    """The names in a file, a line each; None without one."""
    if path is None:
        return None
    try:
        names = [line.strip() for line in read_text(path, 2**24).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise check.Expected("--labels", "a text file, one name a line",
                             f"{path} ({getattr(error, 'strerror', error)})") from None
    if not names:
        raise check.Expected("--labels", "a text file, one name a line", f"{path}, which holds none")
    return names
