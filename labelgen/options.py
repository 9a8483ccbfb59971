"""Options that several commands of a program share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def grouped(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Declare several options, in this order."""

    def declared(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return declared
