"""Whose conventions the labels follow, and which crops each can label."""

from __future__ import annotations

from labelgen.errors import LabelgenError

PROFILES = ("paper", "authors")
"""``paper`` follows the paper; ``authors`` repeats the released code, quirks included."""


def check_profile(profile: str, crops: object) -> None:
    """Raise `LabelgenError` if the profile is unknown or does not go with the crops."""
    if profile not in PROFILES:
        raise LabelgenError(f"unknown profile {profile!r}; use one of {', '.join(PROFILES)}")
    if profile == "authors" and isinstance(crops, str) and crops == "all":
        raise LabelgenError(
            "profile authors cuts the crop before it takes derivatives, so its labels are only "
            "made for a few crops; use center, grid:S or random:K"
        )
