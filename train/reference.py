"""The networks that come with zfcore, trained, measured and written with their cards: zfcore/networks/NAME.h5 and NAME.json.

    python -m train.reference drawn|drawn-wide [--output DIR]

The run is an ordinary one in DIR (default: runs/reference-NAME); stopped or killed, it goes on when the command is given again.
What is written is its best checkpoint without what only training needs, its weights rounded to float16; the card tells what
that network, not the one before rounding, does, and that the pictures of its errors chose the epoch.
"""
import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

import zfcore
from zfcore import check, networks, trained
from zfcore.analysis.diagnostics import JUDGED, judge, judged_layers
from zfcore.analysis.sanity_checks import shares_of_start
from zfcore.analysis.top_activations import top_activations
from zfcore.checkpoint import atomic, load, save
from zfcore.data import learned_from
from zfcore.files import anything, read_json, table
from zfcore.models import checkpoint_file
from zfcore.terminal import Bar, plural, printable, say
from zfcore.training import Stop, Training, evaluate, resolve
from zfcore.training.folder import stored_config

EPOCHS = (1, 2, 5, 10, 20, 30, 40)
# Trained as long as the validation error falls; drawn-wide, which takes longer, keeps more of its start (its card says how
# much).
RECIPES = {
    "drawn": dict(preset="tiny", epochs=40, start_left=0.03, drop_after=(30,), keep_epochs=EPOCHS),
    "drawn-wide": dict(preset="tiny", model="small", image_size=128, epochs=20, start_left=0.1, drop_after=(15,),
                       keep_epochs=EPOCHS),
}


def parser():
    p = check.Parser(prog="python -m train.reference", description=__doc__.split("\n\n")[0])
    p.add_argument("name", choices=RECIPES)
    p.add_argument("--output", metavar="DIR", help="folder of the run (default: runs/reference-NAME)")
    return p


@check.exit_with_message
def main(arguments=None):
    args = parser().parse_args(arguments)
    run = Path(args.output or f"runs/reference-{args.name}")
    try:
        train_to_the_end(resolve(RECIPES[args.name]), run)
    except Stop as stop:
        say(f"stopped and saved; the same command goes on with {printable(run)}")
        sys.exit(stop.status)
    say(write(args.name, run))


def train_to_the_end(config, run, kind=Training):
    """Begin a run in the folder `run`, a Training of that `kind`, or go on with it. Raises Expected where one with other
    options is there."""
    if (run/"config.json").is_file():
        stored = stored_config(run)
        chosen = stored.weight_decay if config.weight_decay is None else config.weight_decay
        if stored != replace(config, weight_decay=chosen):
            raise check.Expected(run, "a run with the options of this recipe", "one with others", "name another folder")
        training = kind.resume(run)
    else:
        training = kind.begin(config, run)
    training.run(say=say)


def write(name, run):
    """Write the network of a finished run as zfcore's network `name`, with its card, both or neither. Returns what was written,
    in words."""
    checkpoint = load(checkpoint_file(run), velocity=False)
    rounded = {layer: {key: array.astype(np.float16) for key, array in of_layer.items()}
               for layer, of_layer in checkpoint.parameters.items()}
    file, limit = networks.FOLDER/f"{name}.h5", resolve(RECIPES[name]).limit_per_class
    with atomic(file) as new, atomic(file.with_suffix(".json")) as new_card:
        save(new, replace(checkpoint, parameters=rounded, velocity={}, history={},
                          state={key: checkpoint.state[key] for key in ("data", "seed", "init")}))
        model = trained.open(new, "cpu")
        card = {"name": name, "file": file.name, "sha256": hashlib.sha256(new.read_bytes()).hexdigest(),
                "bytes": new.stat().st_size,
                "made_by": f"python -m train.reference {name}", "model": model.name, "input": model.crop,
                "parameters": model.network.parameter_count(), "classes": model.classes,
                "learned_from": learned_from(model.size, len(model.dataset(part="train", limit_per_class=limit))),
                **about_the_run(checkpoint_file(run), checkpoint),
                **measured(model.pictures(limit_per_class=limit), model, trained.open(run, "cpu"))}
        new_card.write_text(json.dumps(card, indent=1) + "\n")
    return f"{printable(file)}: {card['bytes']/1e6:.1f} MB; {card['validation']['centre']['in_words']}"


def about_the_run(file, checkpoint):
    """Facts that the run's config.json tells, and how long it took."""
    needed = dict.fromkeys(("started", "device", "versions", "options"), anything)
    config = read_json(file.parent/"config.json", table(needed, others=anything))
    chosen = f"the best of {plural(config['options']['epochs'], 'epoch')}, by the validation pictures on which its errors are told"
    return {"epoch": checkpoint.epoch, "chosen": chosen, "seconds": round(sum(checkpoint.history["seconds"])),
            "trained": config["started"][:10], "device": config["device"], "versions": {**config["versions"], "zfcore": zfcore.__version__},
            "options": config["options"]}


def measured(pictures, model, before):
    """Errors of a model on validation pictures, what rounding it changed, what is left of the start, how legible projections
    are."""
    errors = {}
    for crops in ("centre", "ten"):
        with Bar(len(pictures), "picture", f"validation, {crops}", stays=False) as bar:
            score = evaluate([model], pictures, 64, crops, bar=bar, of="validation pictures")
        errors[crops] = {**asdict(score), "in_words": str(score)}
    images = np.stack([pictures.picture(i) for i in range(min(64, len(pictures)))])
    logits, logits_before = (of.network.forward(of.inputs(images))[0] for of in (model, before))
    layers = judged_layers(model.network)
    legible, areas = judge(model, pictures, top_activations(model, pictures, layers, 1), layers)
    return {"validation": errors,
            "rounding": {"largest_change_of_a_score": float(np.abs(logits - logits_before).max()),
                         "largest_score": float(np.abs(logits_before).max())},
            "start_left": {layer: round(share, 4) for layer, share in shares_of_start(model.network, model.start).items()},
            "legible": {layer: {"in_the_box": dict(zip(JUDGED, legible[layer][:, 0].round(4).tolist())),
                                "box_area": round(float(areas[layer][0]), 4),
                                "in_the_parts": dict(zip(JUDGED, legible[layer][:, 1].round(4).tolist())),
                                "parts_area": round(float(areas[layer][1]), 4)} for layer in legible}}


if __name__ == "__main__":
    main()
