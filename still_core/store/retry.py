"""Which failures of a remote store are worth another try, and how long to wait for it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: wait uniform(0, min(cap, base * 2^k)) after try k."""

    attempts: int = 10
    base_s: float = 0.2
    cap_s: float = 10.0
    timeout_s: float = 60.0
    """Longest wait for one reply, and for each block of it."""

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after the 0-based `attempt` failed."""
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2**attempt))


class Failure(StrEnum):
    """What a failed request means for the caller."""

    MISSING = "missing"
    CONFLICT = "conflict"
    """A condition of the request does not hold."""
    CREDENTIALS = "credentials"
    TRANSIENT = "transient"
    FATAL = "fatal"


_CREDENTIAL_CODES = {
    "AccessDenied",
    "AccountProblem",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NotSignedUp",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
_TRANSIENT_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_CREDENTIAL_TYPES = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "NoAuthTokenError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}
_FATAL_TYPES = {
    "AssertionError",
    "AttributeError",
    "ImportError",
    "InvalidEndpointConfigurationError",
    "InvalidRegionError",
    "InvalidS3AddressingStyleError",
    "MemoryError",
    "NameError",
    "ParamValidationError",
    "TypeError",
}


def classify(error: BaseException) -> tuple[Failure, str]:
    """The meaning of `error` and a short code for the user; never text that could hold a secret."""
    response: Any = getattr(error, "response", None)
    if not isinstance(response, dict) or "Error" not in response:
        kind = type(error).__name__
        if kind in _CREDENTIAL_TYPES:
            return Failure.CREDENTIALS, kind
        return (Failure.FATAL if kind in _FATAL_TYPES else Failure.TRANSIENT), kind
    code = str(response["Error"].get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return _classify_reply(code, status), code or str(status)


def _classify_reply(code: str, status: int) -> Failure:
    if code in _CREDENTIAL_CODES:
        return Failure.CREDENTIALS
    if code in _TRANSIENT_CODES or status in (408, 409, 429) or status >= 500 or status == 200:
        return Failure.TRANSIENT
    # A refusal without a body, as every HEAD's is, says 400 where a token has expired.
    if code in ("400", "401", "403") or status in (401, 403):
        return Failure.CREDENTIALS
    if code == "PreconditionFailed" or status == 412:
        return Failure.CONFLICT
    if code in ("404", "NoSuchKey", "NotFound") or (status == 404 and code != "NoSuchBucket"):
        return Failure.MISSING
    return Failure.FATAL


def with_retries(
    call: Callable[[], Result],
    policy: RetryPolicy,
    *,
    give_up: Callable[[BaseException, Failure, str], Exception],
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """`call()`, tried again after transient failures only.

    Raises:
        Exception: what `give_up(error, failure, code)` makes of the last error.
    """
    for attempt in range(policy.attempts):
        try:
            return call()
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            failure, code = classify(error)
            if failure is not Failure.TRANSIENT or attempt + 1 == policy.attempts:
                raise give_up(error, failure, code) from error
        sleep(policy.wait_s(attempt))
    raise AssertionError("a retry policy has at least one attempt")
