"""What a request gets that cannot be served, in the shape that clients of embedding APIs read."""

from __future__ import annotations

from typing import Any

from clever_hub.errors import CleverError

_KINDS = {401: "authentication_error", 500: "server_error", 503: "overloaded_error"}


class ApiError(CleverError):
    """A request that cannot be served.

    Attributes:
        status: The HTTP status.
        code: A short name of the reason, for programs.
        param: The field of the request that is to blame, such as ``"input[2]"``; None for none.
        retry_after: After how many seconds the same request may succeed; None where it never will.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.param, self.retry_after = param, retry_after

    def body(self) -> dict[str, Any]:
        """The answer's JSON.

        Example:
            >>> ApiError(404, "model_not_found", "no such model").body()["error"]["type"]
            'invalid_request_error'
        """
        kind = _KINDS.get(self.status, "invalid_request_error")
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        }

    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def invalid(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """The error for a field of a wrong value, 400.

    Args:
        param: The field.
        message: What was expected, what came, and what to do; the field's name is put before it.
        code: The reason, for programs.

    Returns:
        The error, to be raised by the caller.
    """
    return ApiError(400, code, f"{param}: {message}" if param else message, param=param)


def too_many(most: int, got: str = "more") -> ApiError:
    """The error for a request of too many images, 400."""
    message = f"input: expected at most {most} images, got {got}. Send them in several requests"
    return ApiError(400, "too_many_inputs", message, param="input")
