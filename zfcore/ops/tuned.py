"""Table of what a card has found quickest: `python -m bench tune` writes it there, in the folder of its compiled kernels.

A table decides about speed alone: all kernels among which it chooses give the same bits (kernels/conv2d.cu, order). What it
does not know, the model decides (model.py)."""
import hashlib

from zfcore.check import Expected
from zfcore.cubin import cache_folder, kernels_folder
from zfcore.files import mapping, read_json, real, slug, table, text
from zfcore.ops.model import words
from zfcore.terminal import warn

ANSWER = table({"quickest": text(), "us": mapping(real(above=0), text())})
FORM = table({"device": text(), "kernels": text(), "choices": mapping(ANSWER, text())},
             {"driver": text(), "date": text()})


class Choices(dict):
    """{a question in words: the kernel in words that is its answer}."""

    def quickest(self, question, kernels, seconds):
        """The answer to `question` among `kernels`; where there is none the kernel of which `seconds` says the least time."""
        found = self.get(question)
        return next((kernel for kernel in kernels if words(kernel) == found), None) or min(kernels, key=seconds)


current = Choices()


def path_of(device):
    """The file of the table of a device of this name."""
    return cache_folder()/f"{slug(device)}.json"


def version():
    """A digest of the sources of the kernels among which tables choose."""
    folder = kernels_folder()
    paths = sorted([*folder.glob("conv2d*.cu"), *(folder/"device").glob("*.cuh")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def known(device):
    """{question: {"quickest": kernel, "us": {kernel: microseconds}}} that a card of this name has written; {} where it has not.
    Told in a sentence and left out is a file that is no such table, another device's or one of other kernels."""
    try:
        found = read_json(path_of(device), FORM)
        for what, here in {"device": device, "kernels": version()}.items():
            if found[what] != here:
                raise Expected(what, here, found[what])
    except FileNotFoundError:
        return {}
    except (OSError, Expected) as error:
        warn(f"{path_of(device)} is not used, kernels are chosen by a model of the GPU ({error}); run python -m bench tune "
             f"again")
        return {}
    return found["choices"]


def of_card(device):
    """The Choices that a card of this name has written."""
    return Choices({question: answer["quickest"] for question, answer in known(device).items()})


def use(choices):
    """Let these Choices be in force from now on."""
    global current
    current = choices
