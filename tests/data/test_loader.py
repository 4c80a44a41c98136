"""Batches of prepared pictures, and the mean image."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import h5py
import numpy as np
import PIL
import pytest
from PIL import Image

from tests.real_data import REAL_DATA, needs
from zfcore.backend import Device
from zfcore.check import Expected
from zfcore.data import loader as module
from zfcore.data.folders import PictureFiles, open_folders
from zfcore.data.loader import SEEN, Pictures, cache_folder, shuffled
from zfcore.data.synthetic import Synthetic
from zfcore.data.transforms import CorruptImage

SIZE = 6


class Drawn:
    """A data set of n small pictures that are what their number says; it counts how often each is asked for."""
    classes = ["even", "odd", "none"]

    def __init__(self, n, damaged=(), height=8, width=11):
        self.shape, self.damaged = (height, width, 3), dict.fromkeys(damaged, "scratched")
        self.labels, self.names = np.arange(n) % 2, [f"picture {i}" for i in range(n)]
        self.asked = np.zeros(n, int)

    def __len__(self):
        return len(self.names)

    def picture(self, i):
        self.asked[i] += 1
        if i in self.damaged:
            raise CorruptImage(self.names[i], self.damaged[i])
        return Image.fromarray(np.random.default_rng(i).integers(0, 256, self.shape, dtype=np.uint8))


class Telling(Drawn, module.BuiltIn):
    """One of zfcore's own, which may know its mean image."""


class Fingered(Drawn):
    """One that has a fingerprint, so that its mean image is kept."""
    print = "A"

    def fingerprint(self):
        return self.print


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not threads()


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pictures")]


def pictures(dataset, workers=2, memory=2**20, size=SIZE, crop=5, **options):
    return Pictures(dataset, size, crop, workers=workers, memory=memory, **options)


def same(batches, others):
    batches, others = list(batches), list(others)
    return len(batches) == len(others) and all(np.array_equal(a, b) for one, other in zip(batches, others)
                                               for a, b in zip(one, other))


# --------------------------------------------------------------------------------------------------------- order
def test_an_epoch_has_every_picture_once_with_its_own_pixels_and_label():
    dataset = Drawn(53)
    loader, seen = pictures(dataset), []
    for pixels, labels, indices in loader.batches(8, seed=1, epoch=0):
        assert pixels.dtype == np.uint8 and pixels.shape == (len(indices), SIZE, SIZE, 3)
        assert labels.dtype == indices.dtype == np.int64
        assert labels.tolist() == (indices % 2).tolist()
        for row, i in zip(pixels, indices):
            assert np.array_equal(row, pictures(Drawn(53), workers=0).picture(i))
        seen += indices.tolist()
    assert sorted(seen) == list(range(53)) and seen != list(range(53))


def test_the_last_short_batch_is_kept():
    assert [len(indices) for _, _, indices in pictures(Drawn(53)).batches(8, 1, 0)] == [8]*6 + [5]


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
@pytest.mark.parametrize("memory", [0, 2**20])
def test_batches_are_the_same_for_any_number_of_workers_and_any_memory(workers, memory):
    loader = pictures(Drawn(53, damaged=[]), workers, memory)
    for epoch in range(2):
        assert same(loader.batches(8, 3, epoch), pictures(Drawn(53), 1, 0).batches(8, 3, epoch))


def test_the_order_depends_on_seed_and_epoch_and_not_on_the_batch_size():
    def order(batch_size, seed, epoch):
        return np.concatenate([indices for _, _, indices in pictures(Drawn(53)).batches(batch_size, seed, epoch)]).tolist()

    assert order(8, 1, 2) == order(5, 1, 2)
    assert len({tuple(order(8, *key)) for key in [(1, 2), (2, 1), (1, 3), (0, 0)]}) == 4


def test_the_order_never_changes_between_versions():
    assert shuffled(9, 1, 2).tolist() == [4, 2, 0, 6, 1, 5, 8, 7, 3]       # a run resumed years later goes on where it was


def test_every_place_is_equally_likely():
    places = np.array([shuffled(7, 0, epoch) for epoch in range(4000)])
    counts = np.array([np.bincount(place, minlength=7) for place in places.T])
    assert np.abs(counts - 4000/7).max() < 5*np.sqrt(4000/7)


def test_without_shuffling_pictures_come_in_their_own_order():
    found = [indices.tolist() for _, _, indices in pictures(Drawn(7)).batches(3, 1, 0, shuffle=False)]
    assert found == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 4, 6, 7, 99])
def test_starting_in_the_middle_equals_going_on_and_decodes_nothing_before(workers, start):
    whole = list(pictures(Drawn(53)).batches(8, 1, 5))
    dataset = Drawn(53)
    assert same(pictures(dataset, workers).batches(8, 1, 5, start=start), whole[start:])
    assert dataset.asked.sum() == sum(len(indices) for _, _, indices in whole[start:])


# -------------------------------------------------------------------------------------------------------- memory
def test_a_set_that_fits_in_memory_is_decoded_once():
    dataset = Drawn(20)
    loader = pictures(dataset, memory=20*SIZE*SIZE*3)
    first = list(loader.batches(8, 1, 0))
    assert same(loader.batches(8, 1, 0), first) and same(loader.batches(8, 1, 0), first)
    assert dataset.asked.tolist() == [1]*20


def test_a_set_one_byte_too_large_is_not_kept():
    dataset = Drawn(20)
    loader = pictures(dataset, memory=20*SIZE*SIZE*3 - 1)
    assert same(loader.batches(8, 1, 0), list(loader.batches(8, 1, 0)))
    assert dataset.asked.tolist() == [2]*20


def test_a_batch_may_be_overwritten_without_spoiling_what_is_kept():
    loader = pictures(Drawn(20))
    for pixels, _, _ in loader.batches(8, 1, 0):
        pixels[:] = 0
    assert same(loader.batches(8, 1, 1), pictures(Drawn(20)).batches(8, 1, 1))


def test_a_single_picture_is_read_only_whether_kept_or_not():
    loader = pictures(Drawn(20))
    for _ in range(2):
        assert not loader.picture(3).flags.writeable
    assert loader.dataset.asked[3] == 1


def test_threads_work_ahead_of_the_consumer_but_not_through_the_whole_epoch():
    dataset = Drawn(400)
    batches = pictures(dataset, memory=0).batches(4, 1, 0)
    next(batches)
    end = time.monotonic() + 10
    while dataset.asked.sum() < 12 and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.05)
    assert 12 <= dataset.asked.sum() <= 80
    batches.close()


def test_no_workers_decode_in_the_callers_thread_and_nothing_ahead():
    names = set()
    dataset = Drawn(40)
    picture = dataset.picture
    dataset.picture = lambda i: names.add(threading.current_thread().name) or picture(i)
    batches = pictures(dataset, workers=0).batches(4, 1, 0)
    next(batches)
    assert dataset.asked.sum() == 4 and names == {threading.current_thread().name}


def test_workers_decode_in_their_own_threads():
    names = set()
    dataset = Drawn(40)
    dataset.picture = lambda i: names.add(threading.current_thread().name) or Drawn.picture(dataset, i)
    list(pictures(dataset, workers=2).batches(4, 1, 0))
    assert all(name.startswith("pictures") for name in names)


# ------------------------------------------------------------------------------------------------- ending early
@pytest.mark.parametrize("leave", [GeneratorExit, KeyboardInterrupt, ZeroDivisionError])
def test_leaving_early_ends_the_threads_and_their_work(leave):
    dataset = Drawn(4000)
    batches = pictures(dataset, memory=0).batches(16, 1, 0)
    next(batches)
    assert threads()
    if leave is GeneratorExit:
        batches.close()
    else:
        with pytest.raises(leave):
            batches.throw(leave)
    assert not threads()
    asked = dataset.asked.sum()
    time.sleep(0.02)
    assert dataset.asked.sum() == asked < 200


def test_leaving_early_waits_for_the_pictures_in_hand_alone():
    dataset, gate = Drawn(400), threading.Event()

    def slow(i):
        picture = Drawn.picture(dataset, i)
        assert i < 16 or gate.wait(10)
        return picture

    dataset.picture = slow
    batches = pictures(dataset, workers=2, memory=0).batches(16, 1, 0, shuffle=False)
    next(batches)
    end = time.monotonic() + 10
    while dataset.asked.sum() < 18 and time.monotonic() < end:      # until each of the two threads holds one picture
        time.sleep(0.001)
    threading.Timer(0.05, gate.set).start()
    batches.close()
    assert dataset.asked.sum() == 18


@pytest.mark.parametrize("workers", [0, 2])
def test_leaving_early_frees_the_batches_made_ahead(workers):
    made, empty = [], np.empty

    def counted(shape, dtype):
        array = empty(shape, dtype)
        made.append(weakref.ref(array))
        return array

    batches = pictures(Drawn(400), workers, memory=0).batches(16, 1, 0, device=Device("cpu", "", pinned=counted))
    pixels, _, _ = next(batches)
    batches.close()
    assert [ref() is not None for ref in made] == [True] + [False]*(len(made) - 1) and len(made) >= 3
    del pixels
    assert made[0]() is None


def test_break_ends_the_threads():
    for _ in pictures(Drawn(400), memory=0).batches(4, 1, 0):
        break
    assert not threads()


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
@pytest.mark.parametrize("where", ["for _ in batches: print('ready', flush=True); time.sleep(20)",
                                   "print('ready', flush=True); slow.wait = 20; list(batches)"],
                         ids=["in the body of the loop", "waiting for a batch"])
def test_control_c_ends_the_program_at_once(where):
    code = f"""
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)         # what runs in the background may inherit "ignore"
from tests.data.test_loader import Drawn, pictures
slow = Drawn(4000)
slow.wait = 0.01
slow.picture = lambda i: time.sleep(min(slow.wait, 0.3)) or Drawn.picture(slow, i)
batches = pictures(slow, memory=0).batches(8, 1, 0)
{where}
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert said.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [ZeroDivisionError, MemoryError, SystemExit, KeyboardInterrupt])
def test_an_exception_in_a_worker_reaches_the_consumer_with_its_cause(workers, kind):
    dataset = Drawn(4000)

    def picture(i):
        if i == 50:
            raise kind("in picture 50") from LookupError("the cause")
        return Drawn.picture(dataset, i)

    dataset.picture = picture
    batches, got = pictures(dataset, workers, memory=0).batches(8, 1, 0, shuffle=False), []
    with pytest.raises(kind, match="in picture 50") as caught:
        for _, _, indices in batches:
            got += indices.tolist()
    assert got == list(range(48)) and not threads()
    assert isinstance(caught.value.__cause__, LookupError)
    assert "picture" in [entry.name for entry in caught.traceback]               # down to the line that raised it
    assert dataset.asked.sum() < 400                                             # the others stopped too
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_smaller_than_the_crop_ends_the_loop_with_its_name(workers):
    dataset = Drawn(100, height=5)
    with pytest.raises(Expected, match="^data: expected a shorter side of at least 6 pixels"):
        list(pictures(dataset, workers, crop=6).batches(8, 1, 0, shuffle=False))
    assert len(list(pictures(dataset, workers, crop=6, upscale=True).batches(8, 1, 0))) == 13


# ------------------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("memory", [0, 2**20])
def test_damaged_pictures_are_named_once_counted_and_left_out(workers, memory, capsys):
    loader = pictures(Drawn(300, damaged=[17, 140]), workers, memory)
    for epoch in range(3):
        got = [(indices, pixels) for pixels, _, indices in loader.batches(8, 1, epoch)]
        assert sorted(np.concatenate([indices for indices, _ in got])) == sorted(set(range(300)) - {17, 140})
        whole = [indices for _, _, indices in pictures(Drawn(300)).batches(8, 1, epoch)]
        assert all(np.array_equal(indices, full[~np.isin(full, [17, 140])]) for (indices, _), full in zip(got, whole))
        assert all(np.array_equal(row, loader.picture(i)) for indices, pixels in got for i, row in zip(indices, pixels))
    assert loader.damaged == {17: "scratched", 140: "scratched"}
    said = capsys.readouterr().err
    assert said.count("picture left out: picture 17: scratched\n") == 1 == said.count("picture 140")


def test_a_damaged_picture_is_not_tried_again():
    dataset = Drawn(300, damaged=[17])
    loader = pictures(dataset, memory=0)
    for epoch in range(3):
        list(loader.batches(8, 1, epoch))
    assert dataset.asked[17] == 1 and dataset.asked[18] == 3
    with pytest.raises(CorruptImage, match="picture 17: scratched"):
        loader.picture(17)


def test_a_picture_found_damaged_in_a_later_epoch_is_left_out_from_then_on(capsys):
    dataset = Drawn(300)
    loader = pictures(dataset, memory=0)
    assert sum(len(indices) for _, _, indices in loader.batches(8, 1, 0)) == 300
    dataset.damaged[9] = "vanished"
    assert sorted({len(indices) for _, _, indices in loader.batches(100, 1, 1)}) == [99, 100]
    assert capsys.readouterr().err == "picture left out: picture 9: vanished\n"


@pytest.mark.parametrize("count, most", [(1, 0), (2, 1), (9, 1), (19, 1), (60, 5), (200, 5), (700, 7)])
def test_one_in_a_hundred_or_a_few_may_be_damaged_and_not_more(count, most):
    damaged = [i % count for i in range(3, 4 + most)]
    assert sum(len(labels) for _, labels, _ in pictures(Drawn(count, damaged=damaged[1:])).batches(8, 1, 0)) == count - most
    with pytest.raises(Expected,
                       match=rf"data: expected {f'at most {most}' if most else 'no'} damaged pictures?.*, got {most + 1} of "
                             rf"{count}, "
                                       rf"the first being picture {min(damaged)} \(scratched\)"):
        list(pictures(Drawn(count, damaged=damaged)).batches(8, 1, 0, shuffle=False))


def test_a_batch_of_which_nothing_is_left_comes_empty_so_that_batches_keep_their_numbers():
    loader = pictures(Drawn(201, damaged=[0, 200]))
    assert [len(labels) for _, labels, _ in loader.batches(50, 1, 0, shuffle=False)] == [49, 50, 50, 50, 0]
    one_by_one = list(loader.batches(1, 1, 0, shuffle=False))
    assert [len(labels) for _, labels, _ in one_by_one] == [0] + [1]*199 + [0]
    assert one_by_one[0][0].shape == (0, SIZE, SIZE, 3) and one_by_one[0][2].dtype == np.int64
    assert same(loader.batches(1, 1, 0, shuffle=False, start=150), one_by_one[150:])


def unreadable(dataset, i, times):
    """Let reading picture i of `dataset` fail so many times."""
    def picture(k):
        pixels = Drawn.picture(dataset, k)
        if k == i and dataset.asked[k] <= times:
            raise CorruptImage(dataset.names[k], "Stale file handle", lasting=False)
        return pixels
    dataset.picture = picture
    return dataset


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_read_is_tried_once_more_after_a_while(workers, monkeypatch, capsys):
    monkeypatch.setattr(module, "RETRY", 0.1)
    dataset = unreadable(Drawn(101), 7, times=1)
    started = time.monotonic()
    assert same(pictures(dataset, workers).batches(8, 1, 0), pictures(Drawn(101)).batches(8, 1, 0))
    assert time.monotonic() - started >= 0.1
    assert dataset.asked[7] == 2 and capsys.readouterr().err == ""


def test_a_file_that_cannot_be_read_twice_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(module, "RETRY", 0.01)
    loader = pictures(unreadable(Drawn(101), 7, times=99), memory=0)
    for epoch in range(2):
        assert sum(len(labels) for _, labels, _ in loader.batches(8, 1, epoch)) == 100
    assert loader.dataset.asked[7] == 2
    assert capsys.readouterr().err == "picture left out: picture 7: Stale file handle\n"


def test_a_share_that_stays_away_ends_the_loop_with_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.01)
    dataset = Drawn(200)

    def gone(i):
        raise CorruptImage(dataset.names[i], "Transport endpoint is not connected", lasting=False)

    dataset.picture = gone
    with pytest.raises(Expected,
                       match=r"at most 5 damaged pictures, 1 % or 5, got 8 of 200, the first being picture 0 \(Transport"):
        list(pictures(dataset, workers=2).batches(8, 1, 0, shuffle=False))


def test_leaving_early_does_not_wait_for_a_second_try():
    dataset = unreadable(Drawn(400), 30, times=99)
    batches = pictures(dataset, memory=0).batches(8, 1, 0, shuffle=False)
    next(batches)
    while not dataset.asked[30]:
        time.sleep(0.001)
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 0.5


def test_a_damaged_picture_is_not_tried_a_second_time():
    dataset = Drawn(101, damaged=[7])
    started = time.monotonic()
    list(pictures(dataset).batches(8, 1, 0))
    assert dataset.asked[7] == 1 and time.monotonic() - started < 0.9


# ---------------------------------------------------------------------------------------------------- mean image
def test_the_mean_image_is_the_float64_mean_rounded_once():
    mean = pictures(Drawn(150)).prepare(progress=False)
    everything = [pictures(Drawn(150)).picture(i).astype(np.float64) for i in range(150)]
    assert mean.dtype == np.float32 and mean.shape == (3, SIZE, SIZE) and mean.flags.c_contiguous
    assert np.array_equal(mean, np.mean(everything, axis=0).transpose(2, 0, 1).astype(np.float32))


def test_the_mean_image_leaves_damaged_pictures_out_and_finds_them(capsys):
    loader = pictures(Drawn(150, damaged=[149]), workers=0)
    everything = [pictures(Drawn(150)).picture(i) for i in range(149)]
    assert np.array_equal(loader.prepare(progress=False).transpose(1, 2, 0), np.mean(everything, axis=0).astype(np.float32))
    assert loader.damaged == {149: "scratched"} and "picture 149" in capsys.readouterr().err


def test_a_set_with_its_own_mean_image_of_this_size_is_not_passed_through(cache):
    dataset = Telling(20)
    dataset.mean_image = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE)).astype(np.float32)
    assert np.array_equal(pictures(dataset).prepare(progress=False), dataset.mean_image)
    assert dataset.asked.sum() == 0 and not cache.exists()


@pytest.mark.parametrize("own", [None, np.zeros((3, SIZE + 1, SIZE + 1), np.float32)], ids=["none", "of another size"])
def test_a_set_whose_own_mean_image_does_not_fit_is_passed_through(own):
    dataset = Telling(20)
    dataset.mean_image = own
    assert np.array_equal(pictures(dataset).prepare(progress=False), pictures(Drawn(20)).prepare(progress=False))
    assert dataset.asked.sum() == 20


def test_the_mean_image_does_not_overflow_on_white_pictures():
    dataset = Drawn(300)
    dataset.picture = lambda i: Image.new("RGB", (8, 8), "white")
    assert (pictures(dataset).prepare(progress=False) == 255).all()


def test_the_pass_shows_a_bar_that_reaches_the_end_although_some_are_damaged(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    pictures(Drawn(150, damaged=[149])).prepare()
    assert "150/150" in capsys.readouterr().err
    pictures(Drawn(150)).prepare(progress=False)
    assert capsys.readouterr().err == ""


def test_a_second_run_reads_the_mean_image_and_the_damaged_ones_and_decodes_a_few(cache, capsys):
    first = pictures(Fingered(150, damaged=[30]))
    mean = first.prepare(progress=False)
    assert [path.suffix for path in cache.iterdir()] == [".h5"]
    said = capsys.readouterr().err
    dataset = Fingered(150, damaged=[30])
    second = pictures(dataset)
    assert np.array_equal(second.prepare(progress=False), mean) and second.prepare(progress=False).dtype == np.float32
    assert dataset.asked.sum() == SEEN
    assert second.damaged == first.damaged and capsys.readouterr().err == said


def test_a_set_without_fingerprint_leaves_nothing_on_disk(cache):
    pictures(Drawn(20)).prepare(progress=False)
    assert not cache.exists()


@pytest.mark.parametrize("change", [dict(size=7), dict(crop=4), dict(upscale=True)])
def test_another_size_crop_or_upscaling_is_another_mean_image(change):
    pictures(Fingered(20)).prepare(progress=False)
    dataset = Fingered(20)
    assert pictures(dataset, **change).prepare(progress=False).shape[1] == change.get("size", SIZE)
    assert dataset.asked.sum() == 20


def test_another_fingerprint_is_another_mean_image():
    pictures(Fingered(20)).prepare(progress=False)
    dataset = Fingered(20)
    dataset.print = "B"
    pictures(dataset).prepare(progress=False)
    assert dataset.asked.sum() == 20


@pytest.mark.parametrize("change", [dict(classes=["even", "odd", "some"]), dict(labels=np.arange(20)[::-1] % 2), dict(n=21),
                                    dict(names=[f"other {i}" for i in range(20)]),
                                    dict(picture=lambda i: Drawn(20).picture(18 if i == 17 else i))])
def test_two_sets_of_somebodys_own_with_one_fingerprint_have_each_their_mean_image_and_damaged_ones(capsys, change):
    pictures(Fingered(20, damaged=[3])).prepare(progress=False)
    dataset = Fingered(change.get("n", 20))
    vars(dataset).update({name: of for name, of in change.items() if name != "n"})
    everything = [pictures(dataset).picture(i) for i in range(len(dataset))]
    loader = pictures(dataset)
    assert np.array_equal(loader.prepare(progress=False).transpose(1, 2, 0), np.mean(everything, axis=0).astype(np.float32))
    assert not loader.damaged


def test_the_mean_image_of_class_folders_is_found_where_it_was_kept_and_nothing_is_decoded(cache, root, monkeypatch):
    given = lambda: open_folders(root, shorter_side=SIZE)[0]
    mean = pictures(given()).prepare(progress=False)
    facts = [given().fingerprint(), SIZE, 5, False, PIL.__version__]
    assert [path.name for path in cache.glob("mean-*")] == [f"mean-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.h5"]
    monkeypatch.setattr(PictureFiles, "picture", None)
    assert np.array_equal(pictures(given()).prepare(progress=False), mean)


def cut(path):
    os.truncate(path, path.stat().st_size//2)


def emptied(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"no HDF5 at all"*100)


def one_pixel_changed(path):
    with h5py.File(path, "r+") as file:
        file["mean_image"][1, 2, 3] += 1


def a_damaged_one_forgotten(path):
    with h5py.File(path, "r+") as file:
        file["damaged"][()] = "[]"


def misshapen(path):
    with h5py.File(path, "r+") as file:
        mean = file["mean_image"][()]
        del file["mean_image"]
        file["mean_image"] = mean.reshape(-1)


def no_mean(path):
    with h5py.File(path, "r+") as file:
        del file["mean_image"]


def of_another_set(path):
    own = path.read_bytes()
    other = Fingered(150)
    other.print = "B"
    pictures(other).prepare(progress=False)
    theirs = [file for file in path.parent.iterdir() if file != path]
    theirs[0].replace(path)
    assert path.read_bytes() != own


@pytest.mark.parametrize("spoil", [cut, emptied, garbage, one_pixel_changed, a_damaged_one_forgotten, misshapen, no_mean,
                                   of_another_set], ids=lambda spoil: spoil.__name__)
def test_a_spoiled_file_is_never_trusted_but_made_again(cache, spoil):
    mean = pictures(Fingered(150, damaged=[30])).prepare(progress=False)
    path, = cache.iterdir()
    spoil(path)
    again = Fingered(150, damaged=[30])
    assert np.array_equal(pictures(again).prepare(progress=False), mean) and again.asked.sum() == 150
    third = Fingered(150, damaged=[30])
    assert np.array_equal(pictures(third).prepare(progress=False), mean) and third.asked.sum() == SEEN
    assert list(cache.iterdir()) == [path]


def test_two_processes_that_write_the_same_mean_image_do_not_meet(cache, tmp_path, capsys):
    """One is in the middle of its file when another one begins and ends its own."""
    mean = pictures(Fingered(20)).prepare(progress=False)
    path, = cache.iterdir()
    path.unlink()
    kept = module._KeptMean(pictures(Fingered(20)))
    with module.new_hdf5(path) as file:
        file["mean_image"] = mean
        code = f"""if True:
            from pathlib import Path
            from zfcore.checkpoint import new_hdf5
            with new_hdf5(Path({str(path)!r})) as file:
                file["mean_image"] = 0"""
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=True)
    with h5py.File(path) as file:
        assert np.array_equal(file["mean_image"], mean)
    kept.write(mean, {})
    assert kept.read() is not None and list(cache.iterdir()) == [path] and not capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_a_line_and_not_the_run(cache, capsys):
    cache.write_text("a file where the folder should be")
    assert pictures(Fingered(20)).prepare(progress=False).shape == (3, SIZE, SIZE)
    assert capsys.readouterr().err.startswith("the mean image is not kept for the next run: ")


def test_nothing_is_kept_when_a_file_could_not_be_read(cache, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.01)
    dataset = Fingered(150)

    def picture(i):
        if i == 30:
            raise CorruptImage("picture 30", "Input/output error", lasting=False)
        return Drawn.picture(dataset, i)

    dataset.picture = picture
    loader = pictures(dataset)
    loader.prepare(progress=False)
    assert loader.damaged == {30: "Input/output error"} and not cache.exists()


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ZFCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/zfcore"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/zfcore"


# --------------------------------------------------------------------------------------------------- class folders
@pytest.fixture
def root(tmp_path):
    """Two classes of 110 and 20 pictures of many sizes."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 110), ("val", 20)):
        for label in ("cat", "owl"):
            (tmp_path / "set" / part / label).mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 256, (*rng.integers(8, 20, 2), 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / part / label / f"{k:03}.png")
    return tmp_path / "set"


def test_a_changed_file_makes_the_mean_image_anew(root):
    before = pictures(open_folders(root)[0]).prepare(progress=False)
    Image.new("RGB", (9, 9), "white").save(root / "train/cat/007.png")
    after = pictures(open_folders(root)[0])
    assert not np.array_equal(after.prepare(progress=False), before)


def test_a_file_that_vanishes_in_the_third_epoch_is_named_and_left_out(root, capsys, monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.01)
    loader = pictures(open_folders(root)[0], memory=0)
    counts = []
    for epoch in range(4):
        if epoch == 2:
            (root / "train/owl/011.png").unlink()
        counts.append(sum(len(labels) for _, labels, _ in loader.batches(16, 1, epoch)))
    assert counts == [220, 220, 219, 219]
    assert capsys.readouterr().err == "picture left out: train/owl/011.png: No such file or directory\n"


def test_a_file_damaged_in_the_third_epoch_is_named_and_left_out(root, capsys):
    loader = pictures(open_folders(root)[0], memory=0)
    counts = []
    for epoch in range(4):
        if epoch == 2:
            (root / "train/owl/011.png").write_bytes((root / "train/owl/011.png").read_bytes()[:60])
        counts.append(sum(len(labels) for _, labels, _ in loader.batches(16, 1, epoch)))
    assert counts == [220, 220, 219, 219]
    said = capsys.readouterr().err
    assert said.startswith("picture left out: train/owl/011.png: ") and said.count("\n") == 1


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no picture")], ids=["vanished", "damaged"])
def test_what_is_kept_in_memory_outlives_its_file(root, spoil, capsys):
    loader = pictures(open_folders(root)[0], memory=220*SIZE*SIZE*3)
    first = list(loader.batches(16, 1, 0))
    for path in sorted((root / "train/owl").iterdir()):
        spoil(path)
    assert same(loader.batches(16, 1, 0), first) and capsys.readouterr().err == ""


def test_a_mended_file_is_taken_again_in_the_next_run(root):
    path = root / "train/cat/007.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    first, second = pictures(open_folders(root)[0]), pictures(open_folders(root)[0])
    first.prepare(progress=False)
    path.write_bytes(whole)
    second.prepare(progress=False)
    assert list(first.damaged) == [7] and not second.damaged


def test_a_set_opened_for_another_size_is_refused(root):
    train, _ = open_folders(root, shorter_side=SIZE)
    assert pictures(train).picture(3).shape == (SIZE, SIZE, 3)
    with pytest.raises(Expected, match=f"size: expected {SIZE}, as the data set was opened with, got 7"):
        pictures(train, size=7)


@pytest.mark.parametrize("make, sentence", [
    (lambda: pictures(Drawn(0)), "pictures: expected one or more in each part"),
    (lambda: pictures(Drawn(9), crop=SIZE + 1), "crop: expected 1 to 6 pixels"),
    (lambda: pictures(Drawn(9), workers=-1), "workers: expected a whole number of 0 or more"),
    (lambda: pictures(Drawn(9)).batches(0, 1, 0), "batch_size: expected a whole number of 1 or more"),
    (lambda: pictures(Drawn(9)).picture(9), "picture: expected a whole number from 0 to 8, got 9"),
    (lambda: pictures(Drawn(9)).picture(-1), "picture: expected a whole number from 0 to 8, got -1"),
    (lambda: pictures(Drawn(9)).batches(3, 1, 0, device="gpu"), "device: expected Device, got str; zfcore.select"),
    (lambda: pictures(Drawn(9)).batches(3, 1, 0, start=-1), "start: expected a whole number of 0 or more"),
], ids=["no pictures", "crop", "workers", "batch size", "picture", "-1", "device", "start"])
def test_a_wrong_argument_is_refused_at_once(make, sentence):
    with pytest.raises(Expected, match=sentence):
        make()


def test_small_numbers_of_numpy_are_the_numbers_that_they_are():
    """And do not overflow where sizes are multiplied."""
    plain = pictures(Drawn(40), size=100, crop=90, upscale=True)
    dressed = pictures(Drawn(40), np.uint8(2), np.int32(2**20), np.uint8(100), np.int8(90), upscale=True)
    assert (plain._kept is None) == (dressed._kept is None)
    for start in (0, 2):
        assert same(plain.batches(100, 1, 2, start=start),
                    dressed.batches(np.int8(100), np.uint64(1), np.int8(2), start=np.int8(start)))


@needs("imagenette160")
def test_real_pictures_arrive_the_same_with_and_without_threads():
    _, val = open_folders(REAL_DATA/"imagenette160", limit_per_class=9)
    one, other = Pictures(val, 73, 64, workers=0, memory=0), Pictures(val, 73, 64, workers=3)
    assert same(one.batches(16, 1, 0), other.batches(16, 1, 0))
    assert np.array_equal(one.prepare(progress=False), other.prepare(progress=False))


def test_pictures_tell_what_they_are():
    assert repr(Pictures(Synthetic("val", 20, 24), 24, 20)) == "<Pictures of Synthetic: 20 pictures of 10 classes, 24x24 pixels>"
