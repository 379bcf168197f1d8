"""`python -m tto.train …` and `accelerate launch -m tto.train …` are the command `tto train …`."""

import sys

from tto.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
