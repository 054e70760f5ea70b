"""`python -m mpcnode` is the command `mpcnode`."""

from mpcnode.cli import main

main()
