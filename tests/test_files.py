"""Names of layers, classes and pictures as names of files."""
import ntpath
import os
import unicodedata
from pathlib import PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore.check import Expected
from zfcore.files import file_names, name

ODD = ["", ".", "..", "con", "CON", "Con.txt", "aux ", "nul.tar.gz", "lpt9", "com1 .x", "a/b", "a\\b", "C:x", "C:\\x", "a*?",
       "-rf", "~", ".hidden", "x.", "x ",
       "\udcff", "a\nb", "\x1b[2J", "x"*300, "\u4e00"*99, "Owl", "owl", "OWL", "gr\u00fcn", "gru\u0308n", "100%", "a%2Fb",
       "\x00", "\u202e", '"', "<|>"]


@given(st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=40), st.text(alphabet="aA./\\%: -~\udc80\u00e4", max_size=6)),
                unique=True, max_size=12))
@settings(max_examples=120, deadline=None)
def test_any_system_takes_them_and_no_two_are_one_there(names):
    found = file_names(names)
    assert len(found) == len(names)
    assert all(name("", called) == called and len(called.encode()) <= 100 for called in found)
    assert len({unicodedata.normalize("NFC", called).casefold() for called in found}) == len(names)


def test_what_any_system_takes_stays_as_it_is():
    names = ["conv1", "fc8", "English springer", "\u4e00\u4e8c", "a (b)", "tabby, tabby cat"]
    assert file_names(names) == names and file_names(["a/b", "con", "x."]) == ["a%2Fb", "%63on", "x%2E"]


@pytest.mark.parametrize("device", ["con", "Prn", "AUX", "nul", "CONIN$", "conout$", *(port + k for port in ("COM", "lpt")
                                                                                   for k in "0123456789¹²³⁴")])
def test_no_name_is_one_that_windows_reserves(device):
    """Python knows them, too."""
    is_reserved = getattr(ntpath, "isreserved", lambda called: PureWindowsPath(called).is_reserved())
    for called in (device, f"{device}.txt", f"{device} .tar.gz", f"{device}x", f"x{device}", device[:-1]):
        escaped, = file_names([called])
        assert not is_reserved(escaped) and (escaped == called) == (not is_reserved(called))
        if is_reserved(called):
            with pytest.raises(Expected, match="a name that a file could have"):
                name("layer", called)


def test_files_of_such_names_lie_where_they_should(tmp_path):
    for called in file_names(ODD):
        (tmp_path/f"{called}.png").write_text("")
    assert len(os.listdir(tmp_path)) == len(ODD)
