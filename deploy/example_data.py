"""Write and register an example's data for its owners, once: `example_data.py EXAMPLE FOLDER`, where FOLDER holds a
folder for each owner.

EXAMPLE/owners.py says what they hold.  For a trial on one machine: real owners register their own files.
"""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

from mpcnode.datasets import REGISTRY, Datasets


def main(example: Path, folder: Path) -> None:
    if all((owner / REGISTRY).exists() for owner in folder.iterdir()):
        print("the data is there already")
        return
    spec = importlib.util.spec_from_file_location("owners", example / "owners.py")
    assert spec is not None and spec.loader is not None
    owners = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(owners)
    for line in owners.register(SimpleNamespace(folder=folder, datasets=lambda owner: Datasets(folder / owner))):
        print(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
