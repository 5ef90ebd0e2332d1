#!/usr/bin/env python3
"""Process every file of an external image test suite in one run of a job, and account for each of them.

    pip download --no-deps --no-binary :all: pillow==11.3.0     # or obtain its source archive in another way
    python benchmarks/image_suite.py --archive pillow-11.3.0.tar.gz --folder Tests/images --json suite.json

The files of the suite become one WebDataset tar, in which each file is a separate sample. `jobs/estimate_depth.py` runs
on it with the embedded model. Then every file must be one row, in data/ or, with a reason, in errors/; otherwise the
exit code is 1.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path, PurePosixPath

import pyarrow.dataset as ds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pipeline import hardware

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Parse the command line, run, print and store the numbers, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, required=True, help="tar archive that holds the suite")
    parser.add_argument("--folder", default="Tests/images", help="folder of its files within the archive (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="image-suite-") as work:
        names = write_suite(options.archive, options.folder, Path(work) / "suite.tar")
        began = time.perf_counter()
        code = run_job(Path(work) / "suite.tar", Path(work) / "out")
        found = {"exit_code": code, "seconds": round(time.perf_counter() - began, 1)}
        found |= account(names, Path(work) / "out")
    found = {"archive": options.archive.name, "date": date.today().isoformat(), "hardware": hardware(), **found}
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if code == 0 and not found["lost"] and not found["doubled"] else 1


def write_suite(archive: Path, folder: str, target: Path) -> dict[str, str]:
    """Copy the files of the suite into one tar with numbers as keys, and return their names by key."""
    names: dict[str, str] = {}
    with tarfile.open(archive) as source, tarfile.open(target, "w") as suite:
        for member in source:
            if not member.isfile() or f"/{folder}/" not in f"/{member.name}":
                continue
            content = source.extractfile(member)
            assert content is not None  # regular files have content
            key = f"{len(names):05d}"
            names[key] = PurePosixPath(member.name).name
            copied = tarfile.TarInfo(f"{key}{PurePosixPath(member.name).suffix or '.none'}")
            copied.size = member.size
            suite.addfile(copied, content)
    return names


def run_job(inputs: Path, output: Path) -> int:
    """Run the command, show its output, and return its exit code."""
    job = [sys.executable, str(ROOT / "jobs" / "estimate_depth.py"), "--input", str(inputs), "--output", str(output)]
    return subprocess.run([*job, "--max-error-rate", "1", "--views", "1"], check=False).returncode


def account(names: dict[str, str], output: Path) -> dict[str, object]:
    """Return what became of every file."""
    good = ds.dataset(output / "data").to_table(columns=["key"])["key"].to_pylist()
    errors = ds.dataset(output / "errors").to_table(columns=["key", "reason"]).to_pylist()
    rows = Counter([*good, *(row["key"] for row in errors)])
    refused = {names[row["key"]]: row["reason"] for row in errors}
    return {
        "files": len(names),
        "rows": len(good),
        "errors": len(errors),
        "lost": sorted(names[key] for key in names if key not in rows),
        "doubled": sorted(key for key, count in rows.items() if count > 1 or key not in names),
        "reasons": dict(sorted(refused.items())),
    }


if __name__ == "__main__":
    raise SystemExit(main())
