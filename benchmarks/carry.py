"""Files to a machine without a network, in portions that a transfer allows: packed here, put together there.

    python benchmarks/carry.py pack PARTS PATH... --most 50
    python benchmarks/carry.py unpack PARTS FOLDER

A portion is a file ``part-<n>-of-<count>``; `parts.json` beside each says what the whole is.
"""

import argparse
import hashlib
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

MIB = 2**20


def pack(parts: Path, paths: Sequence[Path], most: float) -> list[Path]:
    """Write the paths, each under its own name, into portions of at most so many MiB; return these.

    Args:
        parts: each portion gets a folder of its own in it, ``1``, ``2``, ...
    """
    parts.mkdir(parents=True, exist_ok=True)
    whole = parts / "whole.tar"
    with tarfile.open(whole, "w") as archive:
        for path in paths:
            archive.add(path, arcname=path.name)
    packed = whole.read_bytes()
    whole.unlink()
    size = int(most * MIB)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    written = []
    for number, piece in enumerate(pieces, start=1):
        folder = parts / str(number)
        folder.mkdir(exist_ok=True)
        (folder / f"part-{number}-of-{len(pieces)}").write_bytes(piece)
        said = {"count": len(pieces), "sha256": hashlib.sha256(packed).hexdigest()}
        (folder / "parts.json").write_text(json.dumps(said), encoding="utf-8")
        written.append(folder)
    return written


def unpack(parts: Path, folder: Path) -> None:
    """Put portions together, wherever they lie below a folder, and unpack them into another."""
    said = [json.loads(path.read_text(encoding="utf-8")) for path in parts.rglob("parts.json")]
    if not said or any(each != said[0] for each in said):
        raise SystemExit(f"{parts} should hold the portions of one archive; got those of {len(set(map(str, said)))}.")
    count = said[0]["count"]
    found = {path.name: path for path in parts.rglob("part-*-of-*")}
    names = [f"part-{number}-of-{count}" for number in range(1, count + 1)]
    if missing := [name for name in names if name not in found]:
        raise SystemExit(f"{parts} lacks {', '.join(missing)}. Bring them too.")
    packed = b"".join(found[name].read_bytes() for name in names)
    if hashlib.sha256(packed).hexdigest() != said[0]["sha256"]:
        raise SystemExit(f"the portions in {parts} are not what was packed. Bring them again.")
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.tar"
    whole.write_bytes(packed)
    with tarfile.open(whole) as archive:
        archive.extractall(folder, filter="data")
    whole.unlink()


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    what = parser.add_subparsers(dest="what", required=True)
    packing, unpacking = what.add_parser("pack"), what.add_parser("unpack")
    packing.add_argument("parts", type=Path)
    packing.add_argument("paths", type=Path, nargs="+")
    packing.add_argument("--most", type=float, default=50, metavar="MIB", help="size of a portion")
    unpacking.add_argument("parts", type=Path)
    unpacking.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.what == "pack":
        for folder in pack(options.parts, options.paths, options.most):
            print(folder)
    else:
        unpack(options.parts, options.folder)


if __name__ == "__main__":
    main()
