"""Several ranks, here threads of one process, train to the bits of one: weights, velocities, log, whatever their number."""
import hashlib
import os
import shutil
import threading
from functools import partial

import numpy as np
import pytest

from tests.ranks.threads import together
from tests.train.test_accumulation import few_maps
from train.options import parser
from zfcore.check import Expected
from zfcore.checkpoint import load
from zfcore.data import open_data
from zfcore.data.loader import Pictures
from zfcore.ranks import ALONE
from zfcore.training import Stop, Training, accord, loop, resolve

CLOCKED = ("images_per_second", "seconds")     # columns of the log that no two runs share


def config(options, *more):
    """Batches of 8, 8, 8 and 6 pictures, in 8 leaves or 6; the learning rate falls, filters are scaled back."""
    return resolve(vars(parser().parse_args([*options, "--epochs", "3", "--patience", "1", "--rms-max", "0.01", "--lr", "1e-5",
                                             "--micro-batch", "1", *more])))


def outcome(folder):
    """What two runs must have in common."""
    kept, digest = load(folder/"latest.h5"), hashlib.sha256()
    for arrays in (kept.parameters, kept.velocity):
        for name, of_layer in sorted(arrays.items()):
            for key, array in sorted(of_layer.items()):
                digest.update(f"{name} {key}".encode() + array.tobytes())
    history = {column: list(map(repr, values)) for column, values in kept.history.items() if column not in CLOCKED}
    state = {key: value for key, value in kept.state.items() if key != "sums_seconds"}
    log = [[value for value, column in zip(row.split(","), columns) if column not in CLOCKED]
           for lines in [(folder/"log.csv").read_text().splitlines()] for columns in [lines[0].split(",")] for row in lines]
    return digest.hexdigest(), kept.mean_image.tobytes(), kept.epoch, kept.step, history, state, log


def run(folder, options, ranks, *more):
    training = Training.begin(config(options, *more), folder, ranks=ranks)
    training.run()
    return {(name, key): array.tobytes() for name, of_layer in training.network.parameters().items()
            for key, array in of_layer.items()}


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setattr(loop, "build", few_maps)


@pytest.fixture
def damaged(pictures):
    """One picture that cannot be read in each part."""
    for name in ("train/jade/03.png", "val/plum/01.png"):
        (pictures/name).write_bytes(b"no picture")


def stopped(folder, options, at, ranks):
    """A run that rank 1 stops after step `at`, and where it was stopped."""
    training = Training.begin(config(options), folder, ranks=ranks)
    if ranks.rank == ranks.size - 1:
        def one_step(*batch, step=training.one_step):
            step(*batch)
            training.interrupt.asked = 15*(training.step == at)
        training.one_step = one_step
    with pytest.raises(Stop) as stop:
        training.run()
    return training.step, stop.value.number


def resumed(folder, ranks):
    Training.resume(folder, ranks=ranks).run()


def test_the_bits_do_not_depend_on_the_number_of_ranks_nor_on_who_goes_on(options, damaged, tmp_path, capsys):
    run(tmp_path/"alone", options, ALONE)
    alone, told = outcome(tmp_path/"alone"), capsys.readouterr().err
    assert alone[2:4] == (3, 12) and len(set(alone[4]["lr"])) > 1 and int(float(alone[4]["filters_clamped"][-1])) > 0
    assert told.count("picture left out") == 2
    for size in (2, 3, 5):                                 # 2: with the mean image that the run alone has kept
        weights = together(size, partial(run, tmp_path/f"{size}", options))
        assert outcome(tmp_path/f"{size}") == alone and all(one == weights[0] for one in weights)
        assert capsys.readouterr().err == told
        shutil.rmtree(os.environ["ZFCORE_CACHE"])
    assert together(3, partial(stopped, tmp_path/"run", options, 6)) == [(6, 15)]*3
    assert load(tmp_path/"run"/"latest.h5").step == 6
    together(2, partial(resumed, tmp_path/"run"))
    assert outcome(tmp_path/"run") == alone


def test_a_batch_of_which_nothing_is_left_is_passed_over_by_all(options, pictures, tmp_path):
    small = "--batch-size", "3", "--epochs", "1"
    first = Training.begin(config(options, *small), tmp_path/"looked")
    for i in first.train.drawn(3, first.config.seed, 0)[1]:
        (pictures/first.train.dataset.names[i]).write_bytes(b"no picture")
    run(tmp_path/"alone", options, ALONE, *small)
    together(3, lambda ranks: run(tmp_path/"together", options, ranks, *small))
    assert outcome(tmp_path/"together") == outcome(tmp_path/"alone") and outcome(tmp_path/"alone")[3] == 9


def test_a_picture_that_is_damaged_while_they_train_is_left_out_by_all(options, pictures, tmp_path, capsys):
    def spoiled(folder, ranks):
        c = config(options, "--epochs", "1")
        parts = [Pictures(part, c.picture_size, c.image_size, workers=1, memory=0)
                 for part in open_data(c.data, c.picture_size)]
        training = Training.begin(c, folder, data=parts, ranks=ranks)
        if ranks.is_first:
            for name in ("train/jade/03.png", "val/plum/01.png"):
                (pictures/name).write_bytes(b"no picture")
        ranks.gather(b"")
        training.run()
        return [[*part.damaged] for part in parts]

    before = {name: (pictures/name).read_bytes() for name in ("train/jade/03.png", "val/plum/01.png")}
    alone, told = spoiled(tmp_path/"alone", ALONE), capsys.readouterr().err
    for name, content in before.items():
        (pictures/name).write_bytes(content)
    assert together(3, partial(spoiled, tmp_path/"together")) == [alone]*3 and sum(map(len, alone)) == 2
    assert outcome(tmp_path/"together") == outcome(tmp_path/"alone") and capsys.readouterr().err == told != ""


def test_too_many_that_are_damaged_end_all_after_the_same_step(options, pictures, tmp_path):
    def spoiled(ranks):
        c = config(options)
        parts = [Pictures(part, c.picture_size, c.image_size, workers=0, memory=0)
                 for part in open_data(c.data, c.picture_size)]
        training = Training.begin(c, tmp_path/"run", data=parts, ranks=ranks)
        ranks.gather(b"")
        if ranks.is_first:
            for path in (pictures/"train").rglob("*.png"):
                path.write_bytes(b"no picture")
        ranks.gather(b"")
        with pytest.raises(Expected, match="at most 3 damaged pictures"):
            training.run()
        return training.step, training.train.damaged

    found = together(2, spoiled)
    assert found[0] == found[1] and len(found[0][1]) > 3


def test_only_the_first_rank_writes_and_speaks(options, tmp_path, monkeypatch):
    said, saved = {}, []
    monkeypatch.setattr(loop, "save", lambda path, kept, save=loop.save: (saved.append(threading.current_thread()),
                                                                          save(path, kept)))

    def work(ranks):
        said[ranks.rank] = []
        training = Training.begin(config(options, "--micro-batch", "0"), tmp_path/"run", ranks=ranks)
        training.run(said[ranks.rank].append)
        return threading.current_thread(), training.config.micro_batch

    (first, size), *others = together(2, work)
    assert set(saved) == {first} and size == 1 and said[1] == []
    assert said[0][0] == ("2 ranks share each batch: 8 pictures in 8 pieces of 1, which decide about the bits, not the number "
                          "of ranks")
    assert Training.resume(tmp_path/"run").config.micro_batch == 1


@pytest.mark.parametrize("more, what", [(["--lr", "0.02"], "lr 1e-05, as rank 0 (here) has, got 0.02"),
                                        (["--limit-per-class", "7"], "limit_per_class 0, as"), (["--workers", "2"], None)])
def test_ranks_with_other_options_are_refused_by_name_and_field(more, what, options, tmp_path):
    other = lambda ranks: Training.begin(config(options, *(more if ranks.rank == 1 else [])), tmp_path/"run", ranks=ranks)
    if what is None:
        together(2, other)
        return
    with pytest.raises(Expected) as refusal:
        together(2, other)
    assert str(refusal.value).startswith(f"rank 1 (here): expected {what}") and not (tmp_path/"run").exists()


def test_ranks_whose_kernels_are_compiled_for_another_gpu_are_refused(options, tmp_path, monkeypatch):
    of_rank = threading.local()
    monkeypatch.setattr(accord, "architecture", lambda array: of_rank.name)

    def begin(ranks):
        of_rank.name = "sm_80" if ranks.rank == 2 else "sm_90a"
        Training.begin(config(options), tmp_path/"run", ranks=ranks)
    with pytest.raises(Expected,
                       match=r"^rank 2 \(here\): expected kernels sm_90a, as rank 0 \(here\) has, got sm_80; let all"):
        together(3, begin)
    assert not (tmp_path/"run").exists()


@pytest.mark.parametrize("what, variable", [("BLAS", "OPENBLAS_CORETYPE"), ("NumPy's vector code", "NPY_DISABLE_CPU_FEATURES")])
def test_ranks_whose_cpus_run_other_code_are_refused(what, variable, options, tmp_path, monkeypatch):
    of_rank = threading.local()
    monkeypatch.setattr(accord, "arithmetic", lambda: {"BLAS": "this", "NumPy's vector code": "this", what: of_rank.code})

    def begin(ranks):
        of_rank.code = "other" if ranks.rank == 1 else "this"
        Training.begin(config(options), tmp_path/"run", ranks=ranks)
    sentence = rf"^rank 1 \(here\): expected {what} this, as rank 0 \(here\) has, got other; .*{variable}"
    with pytest.raises(Expected, match=sentence):
        together(3, begin)
    assert not (tmp_path/"run").exists()


def test_ranks_with_other_pictures_are_refused(options, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path/"others")
    same = lambda ranks: Training.begin(config([*options, *(["--data", str(tmp_path/"others")] if ranks.rank else [])]),
                                        tmp_path/"run", ranks=ranks)
    together(2, same)                                      # wherever they lie
    shutil.rmtree(tmp_path/"run")
    (tmp_path/"others"/"val"/"plum"/"01.png").unlink()
    with pytest.raises(Expected,
                       match=r"rank 1 \(here\): expected validation pictures 12 \(\w+\), as rank 0 \(here\) has, got 11 "
                             r"\(\w+\)"):
        together(2, same)


def test_a_rank_with_other_weights_is_named_with_the_step(options, tmp_path):
    def work(ranks):
        training = Training.begin(config(options), tmp_path/"run", ranks=ranks)
        if ranks.rank == 1:
            def validate(score=training.validate):
                training.network["fc8"].parameters["b"][0] += 1e-3
                return score()
            training.validate = validate
        training.run()

    with pytest.raises(Expected, match=r"^rank 1 \(here\): expected the weights of the other ranks after step 4, got others"):
        together(3, work)
    assert load(tmp_path/"run"/"latest.h5").step == 0


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_and_nothing_moved(options, tmp_path):
    def work(ranks):
        training = Training.begin(config(options), tmp_path/"run", ranks=ranks)
        before = {name: {key: array.copy() for key, array in of.items()} for name, of in training.network.parameters().items()}
        training.begin_sums()
        batch = next(training.arriving())
        if ranks.rank == 1:
            training.device_mean = np.full_like(training.device_mean, np.nan)
        training.one_step(*batch)
        with pytest.raises(Expected, match="a finite loss, got nan at epoch 1, step 1"):
            training.look()
        return all(np.array_equal(array, before[name][key]) for name, of in training.network.parameters().items()
                   for key, array in of.items())

    assert together(2, work) == [True, True]


def test_validation_scores_that_are_not_finite_on_one_rank_end_all_by_the_same_sentence_without_saving(options, tmp_path):
    def work(ranks):
        training = Training.begin(config(options), tmp_path/"run", ranks=ranks)

        def validate(score=training.validate):
            if ranks.rank == 1:
                training.device_mean = np.full_like(training.device_mean, np.nan)
            return score()
        training.validate = validate
        with pytest.raises(Expected, match="a finite loss, got nan on the validation pictures at epoch 1, after step 4; "):
            training.run()
        return True

    assert together(2, work) == [True, True]
    assert load(tmp_path/"run"/"latest.h5").step == 0


def test_more_ranks_than_pieces_are_refused(options, tmp_path):
    with pytest.raises(Expected,
                       match="ranks: expected at most 2, of which each has a piece of 4 pictures of a batch of 8, got 3"):
        together(3, lambda ranks: Training.begin(config(options, "--micro-batch", "4"), tmp_path/"run", ranks=ranks))


def test_alone_and_in_one_piece_a_step_adds_nothing(options, tmp_path, monkeypatch):
    monkeypatch.setattr("zfcore.reduce.tree_sum", lambda *_: pytest.fail("there is nothing to add"))
    training = Training.begin(config(options, "--micro-batch", "0"), tmp_path/"run")
    assert training.config.micro_batch == 0
    training.run()
