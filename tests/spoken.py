"""What commands print, whatever lines of 100 columns it is on."""


def spoken(text):
    """The sentences of a text, each on one line: what is further in than the line above it goes on with that."""
    lines = []
    for line in text.strip().splitlines():
        if lines and line.startswith("  ") and not lines[-1].startswith("  "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return lines


def in_one(text):
    """The text on one line."""
    return " ".join(text.split())
