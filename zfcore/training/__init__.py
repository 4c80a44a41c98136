"""Floor 7: training as a library; `python -m train` is its command line.

    from zfcore.training import TrainConfig, Training
    training = Training.begin(TrainConfig(epochs=3), "runs/mine")      # or Training.resume("runs/mine", epochs=5)
    training.run()
    model = training.trained                                           # as zfcore.open gives one

    config.py        TrainConfig: every option of a run, its default, its checks, what it forecasts; the presets (`resolve`)
    loop.py          Training: the steps and epochs of a run
    folder.py        a run's folder: made, locked, its config.json
    start.py         the weights of another run as a start (`init_from`)
    accord.py        what several ranks must have in common
    watch.py         what an epoch adds up, a loss that does not fall, Ctrl-C
    evaluation.py    Score, evaluate, predict: the error of a network or an ensemble, from one crop or ten
    deviations.py    where a run differs from the paper's recipe, and what the paper leaves open

`begin` also takes data sets (`zfcore.DataSet`) and a network of one's own, data=(train, val) and network=.

Several ranks (zfcore/ranks), each of which makes the same Training with its `ranks`, share the steps of a run: the bits are
those of one.

A Training is complete when it is made: whoever has one can call any of its methods. Two doors make one, `begin` for a new run
and `resume` for one that is there; what is wrong with options, pictures, weights or folders is an `Expected` there, before the
first step. Nothing here reads a command line or leaves the process. On standard error there are bars, or where that is no
terminal a line at least every 30 seconds, damaged pictures by name, classes without pictures in a part, the folder that drawn
pictures are kept in and the answer to Ctrl-C; the lines of a run's log go to whom `run(say=...)` names.
"""
from zfcore.training.config import PRESETS, TrainConfig, resolve
from zfcore.training.evaluation import Score, evaluate, predict
from zfcore.training.loop import Training
from zfcore.training.watch import Stop

__all__ = ["PRESETS", "Score", "Stop", "TrainConfig", "Training", "evaluate", "predict", "resolve"]
