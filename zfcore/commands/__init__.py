"""Floor 7: the commands of `python -m zfcore`, a file each; zfcore/commands/common.py says what a command is."""
from zfcore.commands import correspondence, diagnostics, evolution, invariance, occlusion, sanity_checks, top_activations

COMMANDS = {module.__name__.rpartition(".")[2].replace("_", "-"): module
            for module in (top_activations, occlusion, invariance, correspondence, evolution, diagnostics, sanity_checks)}
