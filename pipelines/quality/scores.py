"""Scores of single images, for filters: entropy and sharpness.

Tested in tests/pipelines/quality/test_scores.py.
"""

import numpy as np
from PIL import Image
from scipy import ndimage, stats

WORKING_AREA_PX = 256 * 256
"""Area to which images are scaled before their sharpness is measured."""


def entropy(image: Image.Image) -> float:
    """Return the entropy of the gray levels in bits: 0 for one color, 8 for equally frequent levels."""
    return float(stats.entropy(image.convert("L").histogram(), base=2))


def sharpness(image: Image.Image) -> float:
    """Return the variance of the Laplacian of the gray levels (0 to 255), measured at `WORKING_AREA_PX`.

    Blurred images have a low variance (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a
    comparative study", https://doi.org/10.1109/ICPR.2000.903548). Because the image is scaled first, a copy of another
    resolution has the same sharpness, unless it is smaller than the working area and therefore lacks detail.
    """
    scale = (WORKING_AREA_PX / (image.width * image.height)) ** 0.5
    size_px = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    gray = image.convert("L").resize(size_px, Image.Resampling.BILINEAR)
    return float(ndimage.laplace(np.asarray(gray, np.float32)).var())
