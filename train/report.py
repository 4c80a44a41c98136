"""Report of a study: numbers as a table says them, tables as Markdown, and a table's three files."""
from train.claims import LITTLE, MOST_PAIRS, confidence_of
from zfcore import plots
from zfcore.checkpoint import atomic, write_csv
from zfcore.terminal import in_table


def mean_spread(pair):
    """"12.3 ± 0.4" of a (mean, spread), "12.3" where the spread is None, "" for None."""
    if pair is None:
        return ""
    mean, spread = pair
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def interval(mean, half):
    """"+1.2 (+0.3 to +2.1)", "+1.2" where the half is None."""
    return f"{mean:+.1f}" if half is None else f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def level(looks):
    """"97.5 %" of the intervals by which claims are judged that may be looked at so often."""
    return f"{100*confidence_of(looks):.4g} %"


def csv_of(pair):
    """The two cells of a (mean, spread or half of an interval) in a CSV file."""
    return f"{pair[0]:.6g}", "" if pair[1] is None else f"{pair[1]:.4g}"


def table(head, rows, text=(0,)):
    """A Markdown table; the columns with the numbers `text` hold text, the others numbers."""
    lines = [head, ["---" if k in text else "--:" for k in range(len(head))], *rows]
    return "\n".join(in_table(*line) for line in lines)


def claims_table(judgements, of, looks):
    """The Judgements as a table; `of` are the words for what claims are of, and intervals are those of one of the looks."""
    rows = []
    for claim, paper, mean, half, word, pairs, needed in judgements:
        ours = interval(mean, half) + ("" if half is None else f", {pairs} pairs")
        if word == "undecided":
            word += f"; {f'about {needed}' if needed else f'more than {MOST_PAIRS}'} pairs"
        rows.append([claim.text, of[claim.of], "" if paper is None else f"{paper:+.1f}", ours, word])
    return table(["claim of the paper", "difference of", "paper", f"here ({level(looks)})", ""], rows, text=(0, 1, 4))


def verdicts(judgements, looks):
    """Meaning of the words of the table of claims, and how many claims are decided."""
    decided = sum(not one.undecided for one in judgements)
    text = (f"{decided} of {len(judgements)} claims are decided. Differences in points: of two rows seed by seed, with an "
            f"ensemble from every seed to its one number, which is taken to be spread as these are. "
            f"\"agrees\": the whole {level(looks)} interval (Student's) lies on the "
            f"claim's side, for what hardly matters within ±{LITTLE:g} points; \"does not agree\": it lies on the other side; "
            f"\"undecided\": neither; beside it an estimate, how many pairs would decide were their mean and spread the true "
            f"ones.")
    if any(one.claim.little for one in judgements):
        text += (f" That something hardly matters is therefore undecided where the interval holds +{LITTLE:g} or -{LITTLE:g}, "
                 f"though all of it may lie on one side of 0.")
    if len(looks) > 1:
        text += (f" Rows of undecided claims got more seeds: at most {len(looks)} looks at a claim, after "
                 f"{', '.join(map(str, looks))} seeds, fixed beforehand. An interval of one look is one of {level(looks)}, so "
                 f"that those of all looks together hold the true difference in 95 % of studies at least. Each claim is judged "
                 f"by the first look that decides it.")
    return text


def write(folder, name, paragraphs, header, rows, draw):
    """NAME.md, NAME.csv and NAME.png in `folder`, each whole or not at all. A paragraph that is "" is left out; `draw()` gives
    the figure, or None for none, when the numbers are on the disk. Returns the Markdown. Raises Unwritable where it refuses."""
    text = "\n\n".join(filter(None, paragraphs)) + "\n"
    with atomic(folder/f"{name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_csv(folder/f"{name}.csv", rows, *header)
    if (figure := draw()) is not None:
        plots.save(figure, folder/f"{name}.png")
    return text
