"""The paper's results, an item each: `train.reproduce` makes them and sets them beside the paper's numbers and claims.

    outcome.py      what an item leaves: numbers, verdicts, figures; the rules by which claims are judged
    setting.py      a run, its pictures, a folder, a scale; how long things take here
    facts.py        figures 1 and 3          looking.py      figures 2, 4, 5, 7, 8, table 1, sanity checks
    networks.py     tables 2, 3, figure 6    transfers.py    tables 4 to 7, figure 9
    page.py         the page, Markdown and CSV of them all
"""
from train.paper import facts, looking, networks, transfers

ORDER = ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "table1", "table2", "table3", "table4", "fig9", "table5",
         "table6", "table7", "sanity")
ITEMS = {item.name: item for item in sorted((*facts.ITEMS, *looking.ITEMS, *networks.ITEMS, *transfers.ITEMS),
                                            key=lambda item: ORDER.index(item.name))}
ALIASES = {"fig8": "table1"}      # one analysis, two results of the paper
