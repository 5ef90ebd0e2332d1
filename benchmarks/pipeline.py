#!/usr/bin/env python
"""What the data plane costs: time, memory and planning of chunked jobs, with a fake model of known cost.

    python benchmarks/pipeline.py efficiency          # the pipeline over the bare model loop; goal 1.05 and 1.10
    python benchmarks/pipeline.py efficiency --busy   # the same with a model on this CPU
    python benchmarks/pipeline.py startup             # the command on one sample
    python benchmarks/pipeline.py memory              # peaks at 1,000 and 20,000 samples
    python benchmarks/pipeline.py planning            # 1,000,000 samples in 1,000 shards; 100,000 finished chunks
    python benchmarks/pipeline.py encoding            # publishing one image; goal 10 ms of a core
    python benchmarks/pipeline.py scaling             # up to 64 actors on this machine; goal 0.9

Prints JSON, which --json FILE also writes to a file. `COMMAND --help` shows the sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import efficiency, encoding, memory, planning, scaling, startup

PARTS = {
    "efficiency": efficiency,
    "encoding": encoding,
    "startup": startup,
    "memory": memory,
    "planning": planning,
    "scaling": scaling,
}


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="part", required=True)
    for name, part in PARTS.items():
        command = commands.add_parser(name, help=(part.__doc__ or "").splitlines()[0], description=part.__doc__)
        part.add_options(command)
        command.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args()
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "results": rounded(PARTS[options.part].measure(options)),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def hardware() -> str:
    """Describe the machine."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[0]
    torch = sys.modules.get("torch")  # imported only with a real model
    gpu = f"{torch.cuda.get_device_name()}; " if torch and torch.cuda.is_available() else ""
    return f"{gpu}{os.cpu_count()} cores, {platform.machine()}, {memory_gb:.0f} GB; load {load:.1f} at the end"


def rounded(value: Any) -> Any:
    """Round all numbers in a nested result to four decimal places."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
