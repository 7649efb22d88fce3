"""The one exception that bad data raise."""


class DataError(Exception):
    """Data that cannot be used: the message says which, why, and what to do about it."""
