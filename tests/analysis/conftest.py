"""Figures are drawn where a test is marked `figures`: with matplotlib they take longer than the analyses of small networks."""
import pytest
from PIL import Image

from zfcore import plots


@pytest.fixture(autouse=True)
def drawn_where_marked(request):
    """Elsewhere each is one pixel."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("figures"):
            for name in ("occlusion", "invariance", "evolution", "diagnostics", "sanity_checks", "correspondence"):
                patch.setattr(plots, name, lambda *_, **__: None)
            patch.setattr(plots, "save", lambda drawn, path, save=plots.save: save(drawn, path) if drawn
                          else Image.new("RGB", (1, 1)).save(path))
        yield
