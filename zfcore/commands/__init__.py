"""Floor 7: the commands of `python -m zfcore`, a file each; zfcore/commands/common.py says what a command is. TOOLS have no
result that is drawn: a HELP, OPTIONS of their own, `work(args)`, and whether one that was stopped GOES_ON."""
from zfcore.commands import (atlas, correspondence, diagnostics, evolution, exporting, importing, invariance, occlusion,
                             sanity_checks, top_activations)

COMMANDS = {module.__name__.rpartition(".")[2].replace("_", "-"): module
            for module in (top_activations, occlusion, invariance, correspondence, evolution, diagnostics, sanity_checks)}
TOOLS = {"atlas": atlas, "import": importing, "export": exporting}
