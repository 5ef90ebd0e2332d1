"""Engines: models that estimate conditions or make images, each family in one small file, behind one interface.

    spec = parse_engine("controlnet-aux:canny", ["low_threshold=50"])
    engine = spec.load(None, "cpu")
    edges = engine.estimate([image], "canny", seeds=[0])[0]                       # float32 (H, W) in [0, 1]

`families.py` lists them. A description (`EngineSpec`) is light and can be pickled; `load` builds the model where it
runs. Importing this package imports neither torch nor Ray.

Tested in tests/engines/.
"""

from engines.families import FAMILIES
from engines.spec import EngineSpec, parse_engine

__all__ = ["FAMILIES", "EngineSpec", "parse_engine"]
