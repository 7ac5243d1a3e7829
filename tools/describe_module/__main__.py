"""Run as a folder: python3 tools/describe_module."""

import pathlib
import sys

if __package__ in (None, ""):
    # The first entry is this folder itself, whose files are a package's.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from describe_module.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
