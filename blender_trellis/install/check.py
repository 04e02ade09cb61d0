# SPDX-License-Identifier: GPL-3.0-or-later
"""Run in the engine's Python: imports all that the engine needs, computes something, and prints a line of JSON about it."""

from __future__ import annotations

import importlib
import json
import platform
import time
from importlib.metadata import version


def main() -> None:
    """Print what is there; an exception ends it with another exit code than 0."""
    import fast_simplification  # noqa: F401
    import igl  # noqa: F401
    import numpy
    import PIL  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.sparse  # noqa: F401
    import torch

    device, name = "cpu", platform.processor() or platform.machine()
    if torch.cuda.is_available():  # AMD's too: PyTorch calls them all cuda
        device, name = "cuda", torch.cuda.get_device_name(0)
    elif torch.backends.mps.is_available():
        device = "mps"
    try:
        matte = importlib.import_module("onnxruntime").__version__
    except ImportError as error:  # the engine can do without: it cuts out by colour then
        matte = f"cannot be loaded: {error}"
    started = time.perf_counter()
    matrix = torch.ones(256, 256, device=device)
    assert float((matrix @ matrix).sum()) == 256.0**3, "the device computes wrongly"
    seconds = time.perf_counter() - started
    found = {
        "torch": torch.__version__,
        "device": "rocm" if torch.version.hip else device,
        "name": name,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pillow": version("pillow"),
        "onnxruntime": matte,
        "seconds": round(seconds, 3),
    }
    print(json.dumps(found))  # noqa: T201  this is what the installer reads


main()
