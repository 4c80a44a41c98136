"""A stranger's file is one sentence, or sound; nothing around it is touched, nothing grows without end."""
import gzip
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import textwrap
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.hostile import KINDS, a_checkpoint, a_packed_set, a_result, spoil, tree
from tests.spoken import in_one
from zfcore import files, results
from zfcore.__main__ import main as zfcore
from zfcore.analysis.sanity_checks import SanityChecks
from zfcore.analysis.top_activations import TopActivations, UnitViews
from zfcore.check import Expected
from zfcore.checkpoint import atomic, load
from zfcore.data import open_data
from zfcore.data.cifar import read_pickle
from zfcore.data.transforms import CorruptImage, decode
from zfcore.models import from_checkpoint

ROOT = Path(__file__).parents[1]
SLOW = "Occlusion.h5", "Invariance.h5", "Diagnosis.h5", "Evolution.h5"            # seconds to draw
QUICK = [kind for kind in KINDS if kind not in SLOW]
OUTSIDE = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]


# ---------------------------------------------------------------------------------------------------- many, at random
@pytest.mark.parametrize("kind", QUICK)
def test_a_spoiled_file_is_one_sentence_or_sound_and_nothing_around_it_is_touched(kind, tmp_path):
    write, read = KINDS[kind]
    place = tmp_path/"run"
    place.mkdir()
    write(place/kind)
    whole = (place/kind).read_bytes()
    (tmp_path/"precious.txt").write_text("mine")
    for seed in range(25):
        (place/kind).write_bytes(whole)
        what = spoil(np.random.default_rng(seed), place/kind)
        before = tree(tmp_path)
        try:
            read(place/kind)
        except Expected as sentence:
            assert "\n" not in str(sentence), (seed, what)
        after = tree(tmp_path)
        assert {path: after.get(path) for path in before} == before, (seed, what)
        assert all(path.endswith((".png", ".csv", ".md")) for path in after.keys() - before.keys()), (seed, what)


# ------------------------------------------------------------------------------------------------------- HDF5, by name
def renew(file, name, **how):
    array = file[name][()]
    del file[name]
    return file.create_dataset(name, array.shape, array.dtype, **how)


def with_link(kind):
    def change(file):
        del file["parameters/conv1/w"]
        file["parameters/conv1/w"] = kind
    return change


def virtual(file):
    array = file["parameters/conv1/w"][()]
    del file["parameters/conv1/w"]
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[...] = h5py.VirtualSource("other.h5", "x", array.shape, array.dtype)
    file.create_virtual_dataset("parameters/conv1/w", layout)


def relabelled(change):
    """Change the rows of the layer table."""
    def of(file):
        rows = json.loads(file.attrs["layers"])
        rows = change(rows) or rows
        file.attrs["layers"] = np.bytes_(json.dumps(rows).encode())
    return of


def frame(top, bottom):
    return {"kind": "Pad", "name": "rim", "top": top, "bottom": bottom, "left": 0, "right": 0}


@pytest.mark.parametrize("change, place", [
    (lambda f: renew(f, "parameters/conv1/w", external=OUTSIDE), "/parameters/conv1/w: expected data in the file itself"),
    (virtual, "/parameters/conv1/w: expected data in the file itself"),
    (with_link(h5py.ExternalLink("other.h5", "/x")), "/parameters/conv1/w: expected a dataset in the file itself"),
    (with_link(h5py.SoftLink("/parameters/conv1/b")), "/parameters/conv1/w: expected a dataset in the file itself"),
    (lambda f: renew(f, "parameters/conv1/w"), "/parameters/conv1/w: expected 432 bytes of data, got 0"),
    (lambda f: renew(f, "parameters/conv1/w", chunks=(1, 3, 3, 4)), "/parameters/conv1/w: expected 432 bytes of data, got 0"),
    (lambda f: (f.__delitem__("preprocessing/mean_image"),
                f.create_dataset("preprocessing/mean_image", (3, 10**6, 10**6), "f4", chunks=(1, 99, 99))),
     "/preprocessing/mean_image: expected at most"),
    (lambda f: (f.__delitem__("parameters/conv1/w"), f.__setitem__("parameters/conv1/w", np.zeros((3, 7), np.int8))),
     r"/parameters/conv1/w: expected float32 or float16 \(3, 3, 3, 4\), got int8 \(3, 7\)"),
    (lambda f: renew(f, "parameters/conv1/w", compression="lzf"), "filter number 32000"),
    (lambda f: f.__setitem__("parameters/conv1/more", np.zeros(3, np.float32)), "/parameters/conv1: expected w, b, got"),
    (lambda f: f["state"].attrs.update(plateau_update=1), "'plateau_update'"),
    (lambda f: f["state"].attrs.update(seed=np.bytes_(b"foo")), "state: seed: expected a whole number"),
    (lambda f: f.attrs.update(classes=5), "classes: expected a text"),
    (relabelled(lambda rows: rows[0].update(groups=0)), "groups: expected a whole number from 1"),
    (relabelled(lambda rows: rows[0].update(K="7")), "K: expected a whole number from 1"),
    (relabelled(lambda rows: rows[0].update(S=-2)), "S: expected a whole number from 1"),
    (relabelled(lambda rows: rows*400), "layers: expected a list of 1 to 1000"),
    (relabelled(lambda rows: rows[0].update(name="../../x")), "name: expected a name that a file could have"),
    (relabelled(lambda rows: rows[0].update(name="a\nb")), "name: expected a name that a file could have"),
    (relabelled(lambda rows: rows[0].update(name="con")), "name: expected a name that a file could have"),
    (relabelled(lambda rows: rows.insert(1, frame(2**14 + 1, 0))), "top: expected a whole number from -16384 to 16384"),
    (relabelled(lambda rows: rows.insert(1, frame(2**14, 2**14))),
     "rim: expected at most 268435456 numbers in the padded maps"),
    (relabelled(lambda rows: rows.insert(1, frame(-5, -3))), "rim: expected fewer rows to cut off than the 8 of the map, got 5 "
                                                             "and 3"),
    (relabelled(lambda rows: rows.insert(1, {"kind": "LocalResponseNormWithin", "name": "norm", "n": 4})), "norm: expected an "
                                                                                                           "odd n"),
    (lambda f: f["preprocessing/mean_image"].write_direct(np.full((3, 19, 19), np.nan, np.float32)),
     "mean_image: expected finite values"),
], ids=range(25))
def test_what_a_checkpoint_must_not_be_is_named_with_its_place(tmp_path, change, place):
    path = tmp_path/"best.h5"
    a_checkpoint(path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(Expected, match=place) as caught:
        from_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_compressed_dataset_whose_chunk_unfolds_to_gigabytes_is_refused(tmp_path):
    path = tmp_path/"p.h5"
    a_packed_set(path)
    with h5py.File(path, "r+") as file:
        array = file["train/names"][()]
        del file["train/names"]
        names = file.create_dataset("train/names", array.shape, array.dtype, chunks=array.shape, compression="gzip")
        folder = zlib.compressobj(9)
        names.id.write_direct_chunk((0,), b"".join(folder.compress(bytes(2**24)) for _ in range(20)) + folder.flush())
    with pytest.raises(Expected, match="/train/names: expected chunks of at most"):
        open_data(str(path), 8)


def test_a_result_whose_arrays_were_changed_together_with_their_checksums_is_found_and_one_without_digest_opens(tmp_path):
    path = tmp_path/"r.h5"
    a_result(UnitViews)(path)
    with h5py.File(path, "r+") as file:
        file["values"][0, 0] += 1
    with pytest.raises(Expected, match="arrays that fit their checksum"):
        results.load(path, UnitViews)
    with h5py.File(path, "r+") as file:
        del file.attrs["digest"]
    assert results.load(path, UnitViews).layer == "conv1"


def test_redraw_looks_at_all_files_before_it_draws_one(tmp_path, capsys):
    for name in ("a.h5", "b.h5"):
        a_result(SanityChecks)(tmp_path/name)
    with h5py.File(tmp_path/"b.h5", "r+") as file:
        cosine = file["cosine"][()]
        del file["cosine"]
        file["cosine"] = cosine[:, :1]
    with pytest.raises(SystemExit) as left:
        zfcore(["redraw", str(tmp_path/"a.h5"), str(tmp_path/"b.h5")])
    assert left.value.code == 2 and "b.h5: /cosine: expected shape (2, 3), got (2, 1)" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_redraw_names_the_pass_that_lies_among_results_and_draws_these(tmp_path, capsys):
    a_result(TopActivations)(tmp_path/"strongest.h5")
    a_result(SanityChecks)(tmp_path/"a.h5")
    zfcore(["redraw", *(str(tmp_path/name) for name in ("strongest.h5", "a.h5"))])
    said = in_one(capsys.readouterr().out)
    assert "strongest.h5 holds TopActivations, which no command draws" in said and [p.name for p in tmp_path.glob("*.png")] == ["a.png"]
    with pytest.raises(SystemExit) as left:
        zfcore(["redraw", str(tmp_path/"strongest.h5")])
    assert left.value.code == 2 and "expected a result that a command draws" in in_one(capsys.readouterr().err)


# ------------------------------------------------------------------------------------------- what is no file; links
def no_files(folder):
    os.mkfifo(folder/"fifo")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(folder/"socket"))
    (folder/"link").symlink_to("/dev/zero")
    (folder/"folder").mkdir()
    return [folder/"fifo", folder/"socket", folder/"link", folder/"folder", Path("/dev/zero")]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
def test_a_fifo_a_socket_a_device_and_a_folder_are_refused_at_once_wherever_a_file_is_read_or_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)                            # names of sockets are short
    for path in no_files(Path(".")):
        for mode in ("rb", "r+b", "w", "ab"):
            with pytest.raises(OSError):
                open(path, mode, opener=files.opener)
        for read in (load, lambda path: results.kind_of(path), lambda path: open_data(str(path), 8)):
            with pytest.raises(Expected):
                read(path)


@pytest.mark.skipif(os.name == "nt", reason="needs rights on Windows")
def test_a_link_is_not_written_through_and_leads_out_of_no_folder(tmp_path):
    (tmp_path/"run").mkdir()
    (tmp_path/"precious.txt").write_text("mine")
    for name in (".latest.h5.part", "lock"):
        (tmp_path/"run"/name).symlink_to(tmp_path/"precious.txt")
    with pytest.raises(OSError):
        open(tmp_path/"run"/"lock", "w", opener=files.opener)
    with atomic(tmp_path/"run"/"latest.h5") as temporary:
        temporary.write_text("new")
    assert (tmp_path/"precious.txt").read_text() == "mine" and (tmp_path/"run"/"latest.h5").read_text() == "new"
    a_checkpoint(tmp_path/"other.h5")
    (tmp_path/"run"/"best.h5").symlink_to(tmp_path/"other.h5")
    with pytest.raises(Expected, match="a link that leads out of it"):
        from_checkpoint(tmp_path/"run")
    (tmp_path/"run"/"best.h5").unlink()
    a_checkpoint(tmp_path/"run"/"epoch_0001.h5")
    (tmp_path/"run"/"best.h5").symlink_to("epoch_0001.h5")                   # in its folder
    assert from_checkpoint(tmp_path/"run")[0].name == "small"


# ------------------------------------------------------------------------------------------------------------- JSON
@pytest.mark.parametrize("text, sentence", [
    ("["*100_000 + "]"*100_000, "too deep"), ('{"a": ' + "1"*400 + "}", "a number of 400 digits"),
    ('{"a": 1, "a": 2}', "'a' twice"), ("\xff", "JSON in UTF-8"), ("", "expected JSON"), ("[1]", "expected an object"),
    ('{"x": 1e999}', "x: expected a number"),
    ('{"x": NaN}', "x: expected a number"), ('{"x": true}', "x: expected a number"), ('{"y": 1}', "one without x"),
    ('{"x": 1, "z": 1}', "'z' too")])
def test_json_is_read_in_the_form_that_is_expected_or_refused(tmp_path, text, sentence):
    (tmp_path/"a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Expected, match=sentence) as caught:
        files.read_json(tmp_path/"a.json", files.table({"x": files.real()}))
    assert str(tmp_path/"a.json") in str(caught.value) and len(str(caught.value)) < 400


# ---------------------------------------------------------------------------- what unfolds; in a process of its own
def png(width, height, colour, depth=8, whole=True):
    """A PNG of zeros; not `whole`: one row of them."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    row, folder = bytes(1 + width*depth//8*{0: 1, 2: 3, 6: 4}[colour]), zlib.compressobj(9)
    rows = b"".join([folder.compress(row*64) for _ in range(-(-height//64) if whole else 1)] + [folder.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bounded(code, gigabytes=2.0):
    """Run Python with so much address space; it must end well, saying one sentence."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({int(gigabytes*2**30)},)*2)\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limit of Linux")
@pytest.mark.parametrize("picture", [(6000, 6000, 0, 16), (6000, 6000, 6, 8)], ids=["16 bits", "transparent"])
def test_a_small_file_of_a_large_picture_takes_less_than_a_gigabyte(tmp_path, picture):
    (tmp_path/"a.png").write_bytes(png(*picture))
    bounded(f"""
        from zfcore.data.transforms import decode
        print(decode("a", open({str(tmp_path/'a.png')!r}, "rb").read()).size)""", gigabytes=0.9)


def test_a_picture_of_60000_by_60000_pixels_is_damaged():
    with pytest.raises(CorruptImage, match="60000x60000|more than the 89 million"):
        decode("a", png(60000, 60000, 2, whole=False))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limit of Linux")
def test_a_gzip_that_unfolds_to_gigabytes_is_one_sentence_soon(tmp_path):
    with open(tmp_path/"cifar-10-python.tar.gz", "wb") as file:
        for name, size in (("data_batch_1", 512), ("test_batch", 3*2**30)):
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = size
            file.write(gzip.compress(member.tobuf()))
            file.write(gzip.compress(bytes(min(size, 2**24)))*max(1, size//2**24))       # one stream behind another
    said = bounded(f"""
        from zfcore.check import Expected
        from zfcore.data import open_data
        try: open_data({str(tmp_path/'cifar-10-python.tar.gz')!r}, 32)
        except Expected as sentence: print(sentence)""")
    assert "unfold" in said or "one piece" in said


def test_a_pickle_that_makes_more_of_itself_is_refused():
    body = b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", 10**6) + b"a"*10**6 + b"q\x01X\x06\x00\x00\x00latin1q\x02"
    with pytest.raises(Expected, match="again and again"):
        read_pickle("x", body + b"h\x00h\x01h\x02\x86R"*1000 + b".")
    with pytest.raises(Expected, match="instructions"):
        read_pickle("x", b"\x80\x02" + b"N"*1_000_002 + b".")
    assert read_pickle("x", pickle.dumps({"a": [1, 2]}, 2)) == {"a": [1, 2]}


def test_a_name_in_a_tar_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path/"a.tar", "wb") as file:
        long = tarfile.TarInfo("././@LongLink")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, 3*2**30
        file.write(long.tobuf())
        file.truncate(4*2**30)                             # a hole
    with pytest.raises(Expected, match="one cut short or damaged|a file that is none"):
        open_data(str(tmp_path/"a.tar"), 8)


def test_a_tar_of_headers_for_headers_is_a_sentence(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    (tmp_path/"a.tar").write_bytes(header.tobuf()*5000 + bytes(1024))
    with pytest.raises(Expected):
        open_data(str(tmp_path/"a.tar"), 8)
