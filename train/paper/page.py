"""Page, Markdown and CSV of a reproduction: index.html beside the items' figures, reproduction.md, numbers.csv."""
import html
import re
from functools import cache
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from train import report
from train.paper import ITEMS, outcome
from train.paper.outcome import VERDICTS
from zfcore.checkpoint import atomic, write_csv
from zfcore.terminal import printable

RULE = ("A claim is judged by differences from a control, one a picture, unit, fold or pair of seeds: it agrees where the "
        "whole interval of their mean lies on the claim's side of 0, does not agree where it lies on the other side, and is "
        "undecided otherwise. An interval is of 95 % unless the rule of its number says another: where a claim may be looked "
        "at several times, each look's is wider, so that those of all together are of 95 %. Facts without a spread agree where "
        "they are the paper's. Each claim is judged by itself: of claims without anything in them about one in forty would be "
        "found to agree by chance. Intervals over pictures or units are about this one network, those over seeds about such "
        "trainings.")
SIGNS = dict(zip(VERDICTS, ("✓", "✗", "?", "–")))


def write(setting):
    """Write all three from the outcomes that there are. Raises Unwritable where the disk refuses."""
    found = {name: one for name in ITEMS if (one := outcome.kept(setting.folder(name))) is not None}
    rows = [(name, n.what, n.paper, *("" if x is None else f"{x:.8g}" for x in (n.here, n.low, n.high)), n.unit, n.rule,
             n.verdict)
            for name, one in found.items() for n in one.numbers or [of_nothing(ITEMS[name], one)]]
    write_csv(setting.output/"numbers.csv", rows, "item", "what", "paper", "here", "low", "high", "unit", "rule", "verdict")
    for name, text in (("reproduction.md", markdown(setting, found)), ("index.html", page(setting, found))):
        with atomic(setting.output/name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def of_nothing(item, found):
    """The Number that stands for an Outcome without any."""
    return outcome.Number(item.claim or item.title, None, rule=found.lacking, verdict=found.verdict)


# -------------------------------------------------------------------------------------------------------------- in words
def clock(seconds):
    """"5 s", "3 min", "2.5 h"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds/60:.0f} min" if seconds < 5400 else f"{seconds/3600:.1f} h"


def shown(value):
    """A number as the page shows it: three digits that count, more where there are more before the point."""
    if value is None:
        return ""
    if abs(value) >= 1000 or value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def interval(number):
    return "" if number.low is None or number.high is None else f"{shown(number.low)} to {shown(number.high)}"


def verdict_in_words(found):
    """"3 agree, 1 undecided" of an Outcome; why it could not be measured."""
    if found.lacking:
        return f"not measurable here: {found.lacking}"
    return counted(found.verdicts) or "numbers alone"


def counted(verdicts):
    """"3 agree, 1 undecided" of {verdict: how many}; "" of none."""
    many = dict(zip(VERDICTS, ("agree", "do not agree", "undecided", "not measurable here")))
    return ", ".join(f"{count} {word if count == 1 else many[word]}" for word, count in verdicts.items() if count)


def took(found):
    """"12 s, said beforehand 10 s; 383 pictures; 6 networks trained"."""
    of = found.took
    return "; ".join([clock(of["seconds"]) + (f", said beforehand {clock(found.beforehand)}" if found.beforehand else ""),
                      *([f"{of['pictures']:,} pictures looked at"] if of["pictures"] else []),
                      *([f"{of['networks']} networks trained"] if of["networks"] else [])])


# -------------------------------------------------------------------------------------------------------------- Markdown
def markdown(setting, found):
    """The text of reproduction.md."""
    rows = [[name, plain(ITEMS[name].title), plain(verdict_in_words(one))] for name, one in found.items()]
    parts = ["# The paper reproduced", plain(setting.about()),
             f"Claims: {counted(claims(found)) or 'none'}; {facts(found)}{plain(apart(found))}.", RULE,
             report.table(["", "asks", "verdicts"], rows, text=(0, 1, 2))]
    for name, one in found.items():
        item, of = ITEMS[name], f"{', '.join(f'{key} {value}' for key, value in one.versions.items())}; seed {setting.seed}"
        parts.append(f"## {name}: {plain(item.title)}")
        parts.append(f"Paper, section {item.section}. {plain(item.claim)}" if item.claim
                     else f"Not in the paper ({item.section}).")
        if one.lacking:
            parts.append(f"**Not measurable here.** {plain(one.lacking)}")
        if one.numbers:
            rows = [[plain(n.what), plain(n.paper), shown(n.here), interval(n), plain(n.unit), n.verdict, plain(n.rule)]
                    for n in one.numbers]
            parts.append(report.table(["", "paper", "here", "interval", "", "verdict", "by"], rows, text=(0, 1, 4, 5, 6)))
        parts += [f"![{plain(picture.shows)}]({quote(name + '/' + picture.file)})" for picture in one.figures]
        parts += [plain(text) for text in (one.protocol, one.notes) if text]
        parts.append(f"It took {plain(took(one))}; {plain(of)}.")
    return "\n\n".join(parts) + "\n"


def plain(text):
    """Text that Markdown shows as it is: without tags of HTML, links, or ends of cells and lines."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", html.escape(printable(text), quote=False)).replace("|", "/")


# ------------------------------------------------------------------------------------------------------------------ page
def page(setting, found):
    """The text of index.html. Everything that comes from pictures, runs or files is escaped."""
    return template().render(
        about=setting.about(), run=setting.run, scale=setting.scale, seed=setting.seed, rule=RULE, counts=claims(found),
        facts=facts(found), made=found, signs=SIGNS,
        items=[shown_item(item, found.get(name)) for name, item in ITEMS.items()])


@cache
def template():
    """The template of index.html, compiled once: the page is written anew after each item."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(shown=shown, interval=interval, address=quote, printable=printable)
    return environment.from_string(files("train.paper").joinpath("page.html").read_text(encoding="utf-8"))


def shown_item(item, one):
    """Values that the page shows of an item, whose Outcome is None where it is not made yet."""
    if one is None:
        return {"item": item, "one": None}
    return {"item": item, "one": one, "words": verdict_in_words(one), "took": took(one), "sign": SIGNS.get(one.verdict, "~")}


def claims(found):
    """{verdict: how many claims of the paper have it} of {item: Outcome}; neither facts nor this project's own checks count."""
    of_paper = [one.verdicts for name, one in found.items() if ITEMS[name].claim and not ITEMS[name].facts]
    return {word: sum(of.get(word, 0) for of in of_paper) for word in VERDICTS}


def apart(found):
    """"; apart from the paper's, this project's sanity checks: 4 agree, 1 undecided" of {item: Outcome}; "" without any."""
    own = "; ".join(verdict_in_words(one) for name, one in found.items() if not ITEMS[name].claim and not ITEMS[name].facts)
    return own and f"; apart from the paper's, this project's sanity checks: {own}"


def facts(found):
    """"20 of 20 facts of arithmetic and architecture agree" of {item: Outcome}, or that none was looked at."""
    of_items, what = [one.verdicts for name, one in found.items() if ITEMS[name].facts], "facts of arithmetic and architecture"
    if not of_items:
        return f"no {what} were looked at"
    return f"{sum(of.get(VERDICTS[0], 0) for of in of_items)} of {sum(sum(of.values()) for of in of_items)} {what} agree"
