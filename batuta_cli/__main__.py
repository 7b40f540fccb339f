"""`python -m batuta_cli` is the `batuta` command."""

from batuta_cli.cli.start import main

if __name__ == "__main__":
    main()
