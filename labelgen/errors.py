"""The errors a user can cause; the command line prints them as one sentence and exits with 2."""

from __future__ import annotations


class LabelgenError(Exception):
    """A mistake in input or settings; the message names the file, the value and a remedy."""


class VideoError(LabelgenError):
    """A video that gives no clip.

    Parameters
    ----------
    reason : str
        Code for ``failures.csv``, one of `REASONS`.
    message : str
        What was seen, in one sentence.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


REASONS = {
    "missing": "the manifest lists it but no such file exists",
    "unopenable": "no decoder can open it, or it holds no decodable frame",
    "truncated": "far fewer frames decode than the header claims",
    "too_short": "it has fewer frames than one clip",
}
