"""What a failed request means, and how often it is tried again."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from still_core.errors import StoreError
from still_core.store.retry import Failure, RetryPolicy, classify, with_retries


def reply(code: str, status: int) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": "CANARY"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (reply("SlowDown", 503), Failure.TRANSIENT),
        (reply("InternalError", 500), Failure.TRANSIENT),
        (reply("InternalError", 200), Failure.TRANSIENT),
        (reply("RequestTimeout", 400), Failure.TRANSIENT),
        (reply("BadDigest", 400), Failure.TRANSIENT),
        (reply("ConditionalRequestConflict", 409), Failure.TRANSIENT),
        (reply("429", 429), Failure.TRANSIENT),
        (reply("ExpiredToken", 400), Failure.CREDENTIALS),
        (reply("AccessDenied", 403), Failure.CREDENTIALS),
        (reply("403", 403), Failure.CREDENTIALS),
        (reply("InvalidAccessKeyId", 403), Failure.CREDENTIALS),
        (reply("SignatureDoesNotMatch", 403), Failure.CREDENTIALS),
        (reply("PreconditionFailed", 412), Failure.CONFLICT),
        (reply("404", 404), Failure.MISSING),
        (reply("NoSuchKey", 404), Failure.MISSING),
        (reply("NoSuchBucket", 404), Failure.FATAL),
        (reply("InvalidArgument", 400), Failure.FATAL),
        (reply("400", 400), Failure.CREDENTIALS),
        (NoCredentialsError(), Failure.CREDENTIALS),
        (EndpointConnectionError(endpoint_url="http://x"), Failure.TRANSIENT),
        (ReadTimeoutError(endpoint_url="http://x"), Failure.TRANSIENT),
        (ConnectionResetError(), Failure.TRANSIENT),
        (TimeoutError(), Failure.TRANSIENT),
        (TypeError("a bug"), Failure.FATAL),
    ],
)
def test_a_failure_is_told_by_its_code(error: Exception, failure: Failure) -> None:
    found, code = classify(error)
    assert found is failure
    assert "CANARY" not in code


def run(errors: list[Exception], attempts: int = 4) -> tuple[object, list[float]]:
    waits: list[float] = []

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    policy = RetryPolicy(attempts=attempts, base_s=1.0, cap_s=3.0)
    result = with_retries(
        call,
        policy,
        give_up=lambda error, failure, code: StoreError(f"{failure} {code}"),
        sleep=waits.append,
    )
    return result, waits


def test_transient_failures_are_tried_again_with_growing_waits() -> None:
    result, waits = run([reply("SlowDown", 503)] * 3)
    assert result == "done"
    assert len(waits) == 3
    assert all(0 <= wait <= limit for wait, limit in zip(waits, [1, 2, 3], strict=True))


def test_the_number_of_tries_is_bounded() -> None:
    errors: list[Exception] = [reply("SlowDown", 503)] * 9
    with pytest.raises(StoreError, match="transient SlowDown"):
        run(errors)
    assert len(errors) == 5


def test_refused_credentials_are_not_tried_again() -> None:
    errors: list[Exception] = [reply("ExpiredToken", 400)] * 9
    with pytest.raises(StoreError, match="credentials ExpiredToken"):
        run(errors)
    assert len(errors) == 8
