"""`python -m layover.cli`, where the package's scripts are not on the PATH."""

from layover.cli.main import main

if __name__ == "__main__":
    main()
