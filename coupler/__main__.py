"""``python -m coupler``: the command line, for where its script is not on the path."""

from coupler.cli import main

main()
