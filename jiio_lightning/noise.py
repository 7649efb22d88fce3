"""What libraries print that does not concern the user."""

from __future__ import annotations

import logging
import warnings

IRRELEVANT = (
    r".*isinstance\(treespec, LeafSpec\).*",  # a deprecation inside Lightning
    r".*does not have many workers.*",  # prepared arrays are gathered fastest without workers
    r".*Couldn't infer the batch indices.*",  # a batch brings its own
    r".*args parameter is intended to run from within Python.*",  # the command line, with its fragments made whole
)
LOGGERS = ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero", "pytorch_lightning")


def quieten() -> None:
    """Hide advertisements and warnings about the inside of Lightning in this process."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
    for message in IRRELEVANT:
        warnings.filterwarnings("ignore", message=message)


def _is_news(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
