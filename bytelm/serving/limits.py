"""What a server takes on."""

import dataclasses

from bytelm.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits(Config):
    """Limits of a server; a request beyond one of them is answered by an error that says so.

    Attributes:
        max_batch: rows that run together; a request with more is refused.
        max_queue: requests that wait for room in the batch; further ones are refused with 429.
        max_prompt_bytes: UTF-8 bytes of all prompts of a request.
        timeout_s: seconds from the arrival of a request to the last byte of its answer.
        grace_s: seconds that running requests have to finish after SIGTERM.
    """

    max_batch: int = 32
    max_queue: int = 256
    max_prompt_bytes: int = 65_536
    timeout_s: float = 300.0
    grace_s: float = 10.0

    def validate(self) -> None:
        """Check every limit."""
        for name in ("max_batch", "max_queue", "max_prompt_bytes"):
            self.require(getattr(self, name) >= 1, name, "a number of at least 1")
        self.require(self.timeout_s > 0, "timeout_s", "a number above 0")
        self.require(self.grace_s >= 0, "grace_s", "a number of at least 0")
