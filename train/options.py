"""The command line of `python -m train`: a flag for every option of a TrainConfig, and what else can be asked for."""
import argparse
from dataclasses import fields

from zfcore import check
from zfcore.kernel import PRECISIONS
from zfcore.models import MODELS
from zfcore.training.config import PRESETS, TrainConfig, flag

HELP = {
    "data": "class folders ROOT/CLASS/*.JPEG, or ROOT/train/CLASS/*.JPEG and ROOT/val/..., tars of them; drawn:combinations "
            "(126 classes of drawn pictures), drawn:unseen (30 others); without it: the synthetic set, drawn:objects",
    "model": "network to train: " + ", ".join(MODELS),
    "image_size": "side of the network's input in pixels",
    "micro_batch": "walk a batch in pieces of so many pictures, for a small memory: the same step up to rounding; 0: whole, "
                   "or for several devices eight pieces",
    "keep_prob": "probability with which dropout keeps a unit",
    "init": "gaussian (N(0, 0.01)) or he",
    "weight_decay": "decay of weights, not of biases",
    "start_left": "choose the weight decay that leaves this share of the random start at the end, instead of --weight-decay",
    "init_from": "run or checkpoint whose weights are the start; its model and size are then the defaults, and layer 8 is "
                 "drawn anew unless the classes are the same",
    "rms_max": "limit of a convolution filter's RMS, 0 for none",
    "patience": "epochs without a better validation error before lr is divided by 10",
    "drop_after": "epochs after which lr is divided by 10, instead of by --patience",
    "crops": "training crops: ten (the paper's) or random",
    "device": "auto, cpu or gpu",
    "precision": f"how products are formed: {', '.join(PRECISIONS)} (on a CPU: fp32); "
                 "in bf16 maps are stored so too; parameters are float32 in all",
    "workers": "threads that decode pictures",
    "limit_per_class": "use only so many pictures of each class, 0 for all",
    "val_fraction": "share of the pictures of ROOT/CLASS/*.JPEG that is for validation, chosen by name",
    "keep_epochs": "epochs whose checkpoints are kept",
}


def parser():
    """The command line of `python -m train`. An option that is not typed is absent from the result, so that presets,
    a config file and a resumed run can tell a typed value from a default."""
    p = check.Parser(prog="python -m train", argument_default=argparse.SUPPRESS,
                     description="Train a ZFNet. Without any option: a small one, on drawn pictures, in minutes.")
    p.add_argument("--preset", choices=PRESETS, help="defaults to start from (tiny, unless --model is given)")
    for f in fields(TrainConfig):
        if f.name == "preset":
            continue
        if f.name == "upscale":
            p.add_argument("--upscale", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
                           help="enlarge pictures smaller than --image-size, or refuse them")
        elif type(f.default) is tuple:
            p.add_argument(flag(f.name), type=int, nargs="*", metavar="N", help=HELP[f.name])
        else:
            p.add_argument(flag(f.name), type=type(f.default), metavar=f.name.upper(), help=HELP.get(f.name))
    p.add_argument("--config", metavar="FILE",
                   help="JSON file of options, such as another run's config.json, for a new run; with other --epochs, the decay "
                        "of its --start-left and its preset's --drop-after are those for the new number")
    p.add_argument("--output", metavar="DIR", help="the run's folder (default: runs/<date>-<time>-<model>)")
    p.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, from its latest checkpoint")
    p.add_argument("--devices", type=check.whole_number(1, 1024), metavar="N",
                   help="train on so many GPUs of this machine, or in so many processes that share its cores: the same bits as "
                        "on one")
    p.add_argument("--restarts", type=check.whole_number(0, 1000), metavar="N",
                   help="with --devices: go on so often, from the latest checkpoint with those that are left, when a process "
                        "is lost")
    p.add_argument("--eval-only", action="store_true",
                   help="print the validation error of --resume RUN or --init-from RUN (centre crop), train nothing, write "
                        "nothing")
    p.add_argument("--lr-test", action="store_true",
                   help="find a learning rate: some hundred steps with a growing one, a curve and a suggestion; no run is "
                        "begun")
    p.add_argument("--dry-run", action="store_true", help="print the options and the network, train nothing")
    return p
