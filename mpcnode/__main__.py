"""The command `mpcnode`, which is also `python -m mpcnode`."""

from mpcnode import heap


def main() -> None:
    """Run it, with the heap as a node keeps it; first, as numpy has threads once it is imported."""
    heap.keep()
    from mpcnode import cli

    cli.main()


if __name__ == "__main__":
    main()
