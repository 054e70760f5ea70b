"""The command `mpcnode`, which is also `python -m mpcnode`."""

from mpcnode import process


def main() -> None:
    """Run it, in a process that is prepared for that."""
    process.prepare()
    from mpcnode import cli  # and with it numpy, which has threads

    cli.main()


if __name__ == "__main__":
    main()
