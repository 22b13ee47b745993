"""``python -m catmorph``."""

from catmorph.cli import main

main()
