"""The errors a user can cause; the command line prints them as one sentence and exits with 2."""

from __future__ import annotations


class LabelgenError(Exception):
    """A mistake in input or settings; the message names the file, the value and a remedy."""


class VideoError(LabelgenError):
    """A video that gives no clip.

    Parameters
    ----------
    reason : str
        Code for ``failures.csv``: ``missing`` (no such file), ``unopenable`` (no decoder opens it,
        or no frame decodes), ``truncated`` (far fewer frames decode than the header claims),
        ``too_short`` (fewer frames than one clip) or ``size`` (frames absurdly large, or
        of two sizes). Where
        videos are made into shards there are also ``error`` (anything unforeseen), ``not_finite``
        (flow that is no number), ``crashed`` and ``timed_out`` (the worker process died on it, or
        was stopped, twice).
    message : str
        What was seen, in one sentence.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StorageError(LabelgenError):
    """A file that cannot be written: the disk is full, or went away."""


class Interrupted(Exception):  # noqa: N818  # like KeyboardInterrupt, it is no error
    """Work that nobody wants any more."""
