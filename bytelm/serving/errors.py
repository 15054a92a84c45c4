"""Errors as clients get them."""

from typing import Any


class RequestError(Exception):
    """A request that is not served.

    Args:
        status: of the HTTP response.
        message: where, what was found, what was expected.
        kind: ``type`` in OpenAI's format.
        param: the field that is wrong.
        code: for programs.
        retry_after_s: when to try again; None: the client is not told.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.retry_after_s = retry_after_s

    def to_json(self) -> dict[str, Any]:
        """In OpenAI's format."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def bad_request(param: str, message: str, code: str | None = None) -> RequestError:
    """400: the field ``param`` is wrong; ``message`` says what was found and expected."""
    return RequestError(400, f"{param}: {message}", param=param, code=code)
