"""What the READMEs show in Python runs, and prints what they say; what they link to and draw is there."""
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT/folder/"README.md" for folder in ("", "train", "zfcore", "kernels", "tests", "bench")] + [ROOT/".github"/"CONTRIBUTING.md"]


def test_the_lines_of_the_readme_print_what_it_says(capsys):
    text = (ROOT/"README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], {})
    person, shape = re.search(r"prints `(\w+)` and three times `(.*?)`", text).groups()
    assert capsys.readouterr().out == f"{person}\n{shape}\n{shape}\n{shape}\n"


def test_the_walk_from_a_picture_to_a_projection_goes_as_it_is_told():
    failed, tried = doctest.testfile(str(ROOT/"zfcore"/"README.md"), module_relative=False)
    assert tried > 15 and not failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", text):
        assert not target or target.startswith("http") or (page.parent/target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", text):
        heads = re.findall(r"^#+ (.*)$", ((page.parent/target) if target else page).read_text(), re.M)
        assert anchor in [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads], f"{target}#{anchor}"
