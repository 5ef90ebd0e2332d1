"""The families of engines by name. To add one, write a file like `marigold.py` and add its family here."""

from __future__ import annotations

from collections.abc import Mapping

from engines.controlnet_aux import ControlNetAux
from engines.interfaces import Family

FAMILIES: Mapping[str, Family] = {family.name: family for family in (ControlNetAux(),)}
