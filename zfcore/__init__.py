"""zfcore: networks of Zeiler & Fergus 2013, trained and looked into, on NumPy or CuPy with CUDA kernels of our own.

    import zfcore
    model = zfcore.open("drawn")                                 # a trained network, with all that it takes to use it
    top = zfcore.top_activations(model, model.pictures(), ["conv5"])
    views = zfcore.unit_views(model, model.pictures(), top, "conv5", [3])
    zfcore.plots.unit_blocks(views)                              # what unit 3 of conv5 has seen; a notebook shows it

What there is, from the outside in (zfcore/README.md walks through it):

    open, Trained, networks         a trained network; those that come along
    import_network                  one of ONNX, Caffe, PyTorch, safetensors or Keras
    top_activations, unit_views     figure 2            evolution       figure 4            invariance      figure 5
    diagnose                        figure 6            occlusion       figure 7            correspondence  figure 8, table 1
    sanity_checks                   what projections owe to what was learned                probe           table 7
    matching                        which units of two networks answer alike
    feature_layers, shares_of_start                              layers by the paper's numbers; how much of the start is left
    project, GRADIENT, DECONVNET, GUIDED                         one activation back to the pixels, by the paper's three rules
    build, MODELS, Network, layers                               networks as tables of layers
    open_data, DataSet, Pictures, CorruptImage                   pictures, also of one's own making
    training                                                     TrainConfig, Training: what `python -m train` does
    save_result, load_result, plots                              arrays to files, arrays to figures
    Checkpoint                                                   a state of a training, as `training` keeps it
    select                                                       a device by its name
    Expected                                                     the one exception for input that cannot be used

Each is imported when it is asked for first, so that `import zfcore` costs nothing.
"""
import importlib
import os
import signal
import sys



def _is_command():
    """Return whether Python is about to run a command of zfcore or of a package beside it, and not a program of somebody else's that
    imports it, whatever the one is called and the other's options are."""
    words = getattr(sys, "argv", None) or [""]
    asked = "train.console" if os.path.basename(words[0]) == "zfcore" else ""             # the command that is installed
    if words[0] == "-m":                                   # as long as Python looks for the module, which stands before its words
        asked = (sys.orig_argv[-len(words):] or [""])[0]
        asked = asked.partition("m")[2] if asked.startswith("-") else asked                # "-mtrain"
    package = sys.modules.get(asked.partition(".")[0])
    return os.path.dirname(__path__[0]) in map(os.path.dirname, getattr(package, "__path__", ()))


if _is_command() and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # until the command begins (terminal.at_work) Ctrl-C ends it without a word
    signal.signal(signal.SIGINT, signal.SIG_DFL)

__version__ = "0.1.0"

_PLACES = {                       # {module: what of it is public here}
    "zfcore.trained": ("open", "import_network", "Trained"),
    "zfcore.analysis.top_activations": ("top_activations", "unit_views", "TopActivations", "UnitViews"),
    "zfcore.analysis.evolution": ("evolution", "Evolution"),
    "zfcore.analysis.invariance": ("invariance", "Invariance"),
    "zfcore.analysis.diagnostics": ("diagnose", "Diagnosis"),
    "zfcore.analysis.occlusion": ("occlusion", "Occlusion"),
    "zfcore.analysis.correspondence": ("correspondence", "Correspondence"),
    "zfcore.analysis.sanity_checks": ("sanity_checks", "SanityChecks", "shares_of_start"),
    "zfcore.analysis.matching": ("matching", "Matching"),
    "zfcore.analysis.probing": ("probe", "Probe", "feature_layers"),
    "zfcore.deconvnet": ("project", "Projection", "GRADIENT", "DECONVNET", "GUIDED"),
    "zfcore.models": ("build", "MODELS"),
    "zfcore.network": ("Network",),
    "zfcore.data": ("open_data",),
    "zfcore.data.loader": ("DataSet", "Pictures"),
    "zfcore.data.transforms": ("CorruptImage",),
    "zfcore.device": ("select",),
    "zfcore.check": ("Expected",),
    "zfcore.checkpoint": ("Checkpoint",),
}
_RENAMED = {"save_result": ("zfcore.results", "save"), "load_result": ("zfcore.results", "load")}
_MODULES = "layers", "networks", "plots", "training"
_PUBLIC = {**{name: (module, name) for module, names in _PLACES.items() for name in names}, **_RENAMED}

__all__ = sorted([*_PUBLIC, *_MODULES])


def __getattr__(name):
    if name == "plots":
        from zfcore.late import read_when_used
        # matplotlib: half a second, which a command that draws nothing saves
        globals()[name] = read_when_used("zfcore.plots")
        return globals()[name]
    if name in _MODULES:
        return importlib.import_module(f"zfcore.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"zfcore has no {name!r}; it has {', '.join(__all__)}")
    module, its_name = _PUBLIC[name]
    globals()[name] = getattr(importlib.import_module(module), its_name)
    return globals()[name]


def __dir__():
    return sorted([*globals(), *__all__])
