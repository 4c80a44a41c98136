"""The result of an analysis comes back from its file as it was, or is refused in one sentence."""
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, make_dataclass

import h5py
import numpy as np
import pytest

from zfcore import results
from zfcore.check import Expected
from zfcore.results import keep, kind_of, load, save


@dataclass(frozen=True)
class Found:
    pixels: np.ndarray
    names: np.ndarray
    by_layer: dict
    model: str
    count: int
    share: float
    whole: bool
    note: str = None


@dataclass(frozen=True)
class Other:
    pixels: np.ndarray


@dataclass(frozen=True)
class Defaults:
    pixels: object = None
    count: int = 5
    layers: dict = field(default_factory=dict)


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    return Found(rng.standard_normal((3, 5, 2)).astype(np.float32), np.array([["dog", "Käfer"], ["", "日本"]]),
                 {"conv2": np.arange(6).reshape(2, 3), "conv10": np.zeros((0, 4), np.uint8), "conv1": np.array([True, False])},
                 "tiny", 7, 0.25, True)


def same(a, b):
    for name in (of.name for of in fields(a)):
        one, other = getattr(a, name), getattr(b, name)
        pairs = zip(one.values(), other.values()) if isinstance(one, dict) else [(one, other)]
        assert not isinstance(one, dict) or list(one) == list(other)
        for one, other in pairs:
            assert type(one) is type(other), name
            if isinstance(one, np.ndarray):
                assert one.shape == other.shape and (one.dtype == other.dtype or one.dtype.kind == "U")
            np.testing.assert_array_equal(one, other)


def test_what_is_read_is_what_was_written_arrays_texts_dicts_in_order_and_numbers(tmp_path, found):
    save(tmp_path/"found.h5", found)
    same(found, load(tmp_path/"found.h5", Found))
    noted = Found(**{**vars(found), "note": ""})
    save(tmp_path/"found.h5", noted)
    same(noted, load(tmp_path/"found.h5", Found))


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("value, line", [("svm", "text"), (7, "int 0..8"), (0.5, "float"), (np.arange(3), "int64 n 0..2"),
                                         ({"a": np.arange(2)}, "{a} int64 n"), ({"a": 1}, "{a} int"), (None, "text")])
def test_no_field_is_lost_to_what_the_file_says_of_itself(tmp_path, value, line, form):
    own = "format", "version", "kind", "digest"
    Odd = make_dataclass("Odd", [("size", int), *((name, object, None) for name in own)])
    if form:
        Odd.FORM = {"size": "int", **dict.fromkeys(own, line)}
    save(tmp_path/"odd.h5", odd := Odd(3, *[value]*4))
    same(odd, load(tmp_path/"odd.h5", Odd))
    assert kind_of(tmp_path/"odd.h5") == "Odd" and keep(tmp_path/"odd.h5", odd) == (tmp_path/"odd.h5", 1)


ODD = {"names": [{key: value} for key in ("", ".", "..", "a/b", "x\0", "a\n", 5, "\ud800", "a"*70_000) for value in (1, np.arange(3))],
       "arrays": [np.array(3.0), np.array("one"), np.array([1j]), np.zeros(2, [("a", int)]), np.array([object()]), 1j, {1, 2}, b"x",
                  np.arange(3, dtype=">f4"), np.array(["2020"], "M8[Y]"), {"a": {"b": np.arange(2)}}, {"a": None}],
       "masks": [np.ma.array([1., -9999.], mask=[0, 1]), np.ma.array([1, 2]), np.ma.masked, {"a": np.ma.array([1], mask=[1])}],
       "numbers and texts": [None, 2**64, -2**63 - 1, {"a": 2**64}, "\ud800", np.array(["\ud800"]), "a"*(2**24 + 1)]}


@pytest.mark.parametrize("odd", ODD)
def test_what_could_not_be_read_again_is_refused_before_it_is_written(tmp_path, odd):
    for value in ODD[odd]:
        for write in (save, keep):
            with pytest.raises(Expected, match=f"^{tmp_path/'odd.h5'}: pixels"):
                write(tmp_path/"odd.h5", Other(value))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["count", "layers"])
def test_none_is_no_value_of_a_field_that_is_something_else_by_default(tmp_path, name):
    save(tmp_path/"a.h5", Defaults())
    assert load(tmp_path/"a.h5", Defaults) == Defaults()
    with pytest.raises(Expected, match=f"b.h5: {name}: expected a value, since None is not the field's default, got None"):
        save(tmp_path/"b.h5", Defaults(**{name: None}))
    assert not (tmp_path/"b.h5").exists()


def test_a_dict_of_any_order_and_any_names_that_can_be_printed_comes_back_equal(tmp_path):
    for entries in ({"b": 1, "a": np.arange(3), "c": "text", "é ü": np.arange(2)}, {"z": 2**64 - 1, "y": -2**63, "x"*2**15: 0.5},
                    {**{f"k{-k}": k for k in range(20)}, **{f"l{-k}": np.arange(k) for k in range(20)}}):
        save(tmp_path/"found.h5", Other(entries))
        found = load(tmp_path/"found.h5", Other).pixels
        assert found.keys() == entries.keys() and all(np.array_equal(found[key], entries[key]) for key in entries)
        assert keep(tmp_path/"found.h5", Other(entries))[1] == 1


def test_of_results_that_are_kept_at_once_none_is_lost(tmp_path, monkeypatch):
    def slowly(*given, write=results._write_all):
        time.sleep(0.05)                                   # in which the others look which number is free
        write(*given)
    monkeypatch.setattr(results, "_write_all", slowly)
    with ThreadPoolExecutor(4) as pool:
        kept = [*pool.map(lambda k: keep(tmp_path/"a.h5", Other(np.arange(k % 3 + 1))), range(6))]
    assert {k % 3: load(file, Other).pixels.size for k, (file, _) in enumerate(kept)} == {0: 1, 1: 2, 2: 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a_2.h5", "a_3.h5"]


def test_the_file_explains_itself_and_every_dataset_has_a_checksum(tmp_path, found):
    save(tmp_path/"found.h5", found)
    with h5py.File(tmp_path/"found.h5") as file:
        assert file.attrs["kind"] == b"Found" and file.attrs["model"] == b"tiny" and file.attrs["count"] == 7
        assert file["names"].asstr()[0, 1] == "Käfer"
        assert all(file[name].fletcher32 for name in ("pixels", "names", "by_layer/conv2", "by_layer/conv1"))


def test_a_flipped_bit_or_a_cut_is_found(tmp_path, found):
    path = tmp_path/"found.h5"
    save(path, found)
    whole = bytearray(path.read_bytes())
    at = bytes(whole).index(found.pixels.tobytes()[:16])
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    with pytest.raises(Expected, match="cut short or damaged"):
        load(path, Found)
    path.write_bytes(whole[:len(whole)//2])
    with pytest.raises(Expected, match="cut short or damaged"):
        load(path, Found)


def test_another_kind_another_file_and_no_file_are_told_apart(tmp_path, found):
    save(tmp_path/"found.h5", found)
    with pytest.raises(Expected, match="a result of kind Other, got Found"):
        load(tmp_path/"found.h5", Other)
    with pytest.raises(Expected, match="which does not exist"):
        load(tmp_path/"none.h5", Found)
    with h5py.File(tmp_path/"plain.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(Expected, match="got another HDF5 file"):
        load(tmp_path/"plain.h5", Found)
    with h5py.File(tmp_path/"found.h5", "a") as file:
        del file["names"]
    with pytest.raises(Expected, match="none called names"):
        load(tmp_path/"found.h5", Found)
    with h5py.File(tmp_path/"found.h5", "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(Expected, match="format version 1, got 99"):
        load(tmp_path/"found.h5", Found)


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path, found, monkeypatch):
    path = tmp_path/"found.h5"
    save(path, found)
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(results, "write_array", lambda *_: 1/0)
        save(path, found)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["found.h5"]
    with pytest.raises(Expected, match="writing"):
        save(tmp_path/"no"/"folder"/"found.h5", found)
