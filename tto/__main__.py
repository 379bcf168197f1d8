"""`python -m tto` is the command `tto`."""

from tto.cli import main

if __name__ == "__main__":
    main()
