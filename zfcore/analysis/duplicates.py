"""Floor 6: pictures that two sets share, or nearly. What finds them is zfcore/data/alike.py, where the split of a set needs it
too."""
from zfcore.data.alike import ABOVE, Duplicates, near_duplicates, thumbnails

__all__ = ["ABOVE", "Duplicates", "near_duplicates", "thumbnails"]
