# What type checkers see of zfcore: its names, which zfcore/__init__.py imports when they are asked for. tests/test_types.py compares.
from zfcore import layers as layers
from zfcore import networks as networks
from zfcore import plots as plots
from zfcore import results
from zfcore import training as training
from zfcore.analysis.sanity_checks import SanityChecks as SanityChecks
from zfcore.analysis.sanity_checks import sanity_checks as sanity_checks
from zfcore.analysis.sanity_checks import shares_of_start as shares_of_start
from zfcore.analysis.correspondence import Correspondence as Correspondence
from zfcore.analysis.correspondence import correspondence as correspondence
from zfcore.analysis.diagnostics import Diagnosis as Diagnosis
from zfcore.analysis.diagnostics import diagnose as diagnose
from zfcore.analysis.evolution import Evolution as Evolution
from zfcore.analysis.evolution import evolution as evolution
from zfcore.analysis.invariance import Invariance as Invariance
from zfcore.analysis.invariance import invariance as invariance
from zfcore.analysis.occlusion import Occlusion as Occlusion
from zfcore.analysis.occlusion import occlusion as occlusion
from zfcore.analysis.matching import Matching as Matching
from zfcore.analysis.matching import matching as matching
from zfcore.analysis.probing import Probe as Probe
from zfcore.analysis.probing import feature_layers as feature_layers
from zfcore.analysis.probing import probe as probe
from zfcore.analysis.top_activations import TopActivations as TopActivations
from zfcore.analysis.top_activations import UnitViews as UnitViews
from zfcore.analysis.top_activations import top_activations as top_activations
from zfcore.analysis.top_activations import unit_views as unit_views
from zfcore.check import Expected as Expected
from zfcore.checkpoint import Checkpoint as Checkpoint
from zfcore.data import open_data as open_data
from zfcore.data.loader import DataSet as DataSet
from zfcore.data.loader import Pictures as Pictures
from zfcore.data.transforms import CorruptImage as CorruptImage
from zfcore.deconvnet import DECONVNET as DECONVNET
from zfcore.deconvnet import GRADIENT as GRADIENT
from zfcore.deconvnet import GUIDED as GUIDED
from zfcore.deconvnet import Projection as Projection
from zfcore.deconvnet import project as project
from zfcore.device import select as select
from zfcore.models import MODELS as MODELS
from zfcore.models import build as build
from zfcore.network import Network as Network
from zfcore.trained import Trained as Trained
from zfcore.trained import import_network as import_network
from zfcore.trained import open as open

load_result = results.load
save_result = results.save

__version__: str
