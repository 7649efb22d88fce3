"""``python -m jiio_lightning`` is ``jiio``."""

import sys

from jiio_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
