"""zfcore installs the packages `zfcore`, with the CUDA sources inside it as `zfcore/kernels`, and `train`, and the command
`zfcore`; bench and tests are run from the checkout and are not installed."""
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="zfcore",
    version=re.search(r'__version__ = "(.+)"', (HERE/"zfcore/__init__.py").read_text())[1],
    description="The ZFNet of Zeiler & Fergus 2013, trained and looked into: NumPy, CuPy and our own CUDA kernels",
    license="MIT",
    python_requires=">=3.10",
    packages=[*find_packages(include=["zfcore", "zfcore.*", "train", "train.*"]), "zfcore.kernels", "zfcore.kernels.device"],
    package_dir={"zfcore.kernels": "kernels", "zfcore.kernels.device": "kernels/device"},
    package_data={"zfcore": ["py.typed", "*.pyi"], "zfcore.networks": ["*.h5", "*.json"], "zfcore.atlas": ["page/*"],
                  "train.paper": ["*.html"],
                  "zfcore.kernels": ["*.cu", "*.json", "README.md"], "zfcore.kernels.device": ["*.cuh"]},
    install_requires=["numpy>=2", "h5py>=3.10", "pillow>=10.1", "tqdm>=4.60", "matplotlib>=3.8", "threadpoolctl>=3.5",
                      "jinja2>=3.1"],
    entry_points={"console_scripts": ["zfcore = train.console:main"]},
    extras_require={
        "cuda13": ["cupy-cuda13x[ctk]>=14"],
        "cuda12": ["cupy-cuda12x[ctk]>=14"],
        "mpi": ["mpi4py>=4", "openmpi>=5; sys_platform != 'win32'"],         # with its mpiexec
        "nccl": ["nvidia-nccl-cu13>=2.27.7"],                  # beside cuda13
        "bench": ["nvidia-cudnn-frontend>=1.14"],
        "fast": ["numba>=0.61"],                               # pooling and normalisation in one pass on a CPU
        "import": ["onnx>=1.21", "protobuf>=4", "safetensors>=0.4"],                  # networks from elsewhere
        "atlas": ["scikit-learn>=1.3"],                        # the map of units
        "heif": ["pillow-heif>=0.20"],                         # pictures of iPhones (.heic)
        "docs": ["pdoc>=16"],
        "test": ["pytest>=8", "hypothesis>=6.100"],
        "onnx": ["onnx>=1.23"],                                # for tests alone: its cases of single operators
    },
)
