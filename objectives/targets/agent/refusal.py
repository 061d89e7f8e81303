"""A request that an agent refuses."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 (an answer, not an error of the agent)
    """A request is refused, and nothing was done.

    Attributes:
        status: Status of the HTTP answer.
        reason: What was expected, what was got, what to do.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Refuses for a reason."""
        super().__init__(reason)
        self.status = status
        self.reason = reason
