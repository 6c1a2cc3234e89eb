"""`python -m raffel_cli` is `raffel`."""

from raffel_cli.main import main

if __name__ == "__main__":
    main(prog_name="raffel")
