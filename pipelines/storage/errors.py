"""Messages for the errors of remote storage: the rule, what happened, the remedy, and never a secret.

Storage drivers raise many different exceptions (botocore, aiohttp, google.auth, azure.core). They are distinguished by
class names and by the error codes of the S3 protocol, so that no driver is imported here.

Tested in tests/pipelines/storage/test_s3.py and test_files.py.
"""

import errno
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.storage.uris import WEB, protocol

NO_CREDENTIALS = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
    + ("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "DefaultCredentialsError")
)
CREDENTIALS_HELP = (
    "no usable credentials were found. They come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE), from the machine's role, or from fsspec's configuration; FSSPEC_S3_ANON=true reads public buckets "
    "without any"
)
REJECTED_CREDENTIALS = frozenset(
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")
    + ("RequestTimeTooSkewed", "RefreshError", "ClientAuthenticationError")
)
DENIED = frozenset(("AccessDenied", "AllAccessDisabled", "AccountProblem", "PermissionError", "403", "401"))
NO_BUCKET = frozenset(("NoSuchBucket", "ContainerNotFound", "BucketNotFound"))
NO_NAME = frozenset(("ParamValidationError", "InvalidBucketName", "InvalidURI", "KeyTooLongError", "InvalidObjectName"))
NO_RANGE = frozenset(("InvalidRange", "416"))
OTHER_REGION = frozenset(("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"))
PLAIN_CAUSES = (
    (NO_NAME, "no object can have this name. Check the spelling", "name"),
    (NO_RANGE, "the object has none of the bytes that were asked for", "range"),
    (OTHER_REGION, "the bucket lives in another region. Set AWS_DEFAULT_REGION to the bucket's own", "region"),
)
"""(names, what they mean, kind)"""
UNREACHABLE = frozenset(
    ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError")
    + ("ClientConnectorError", "ServerDisconnectedError", "ClientPayloadError", "ResponseStreamingError")
    + ("ConnectionError", "TimeoutError", "FSTimeoutError", "ServiceRequestError", "ServiceResponseError")
    + ("ClientConnectionError", "ClientOSError", "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded")
    + ("Throttling", "ThrottlingException", "ThrottledException", "BandwidthLimitExceeded", "ServerBusy")
    + ("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "408", "425", "429")
    + tuple(map(str, range(500, 600)))
)
UNTRUSTED = frozenset(("ClientConnectorCertificateError", "SSLCertVerificationError"))
SECRET_VARIABLES = re.compile(r"SECRET|TOKEN|PASSWORD|ACCOUNT_KEY|CONNECTION_STRING|CREDENTIAL|ACCESS_KEY|SAS", re.I)
SHORTEST_SECRET = 6
"""Shorter values of secret variables may be words that a message needs."""

WRONG_PLACE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
)
"""The errors of a disk that mean a wrong setting rather than a temporary failure."""


class StorageError(OSError):
    """The storage refused a request or did not answer after all retries. No sample is at fault."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind
        """`credentials`, `denied`, `bucket`, `name`, `region`, `range`, `refused`, `unreachable` or `other`."""

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.kind)


def is_refusal(error: OSError) -> bool:
    """Return whether the storage refuses this place or these credentials permanently."""
    if isinstance(error, StorageError):
        return error.kind in ("credentials", "denied", "bucket", "name", "region", "refused")
    return error.errno in WRONG_PLACE


def is_unreachable(error: Exception) -> bool:
    """Return whether an exception of a storage driver means that a host does not answer for now."""
    return bool(_names(error) & UNREACHABLE)


@contextmanager
def explained(uri: str, action: str) -> Iterator[None]:
    """Turn the exceptions of a remote storage's driver into StorageErrors that say what to do.

    A missing object stays a FileNotFoundError (a missing bucket does not), and exceptions that do not come from the
    storage are not changed.

    Args:
        uri: The file or folder, for the message.
        action: The verb after "cannot" in the message, such as `read` or `list`.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        translated = _translated(error, uri, action)
        if translated is None:
            raise
        raise translated from error


class ExplainedFile(io.RawIOBase):
    """A driver's file whose errors are explained."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri = uri
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with explained(self._uri, "read"):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def redacted(text: str, secrets: Sequence[str] | None = None) -> str:
    """Remove passwords in addresses, signatures in queries, and values of secret environment variables from a text.

    Args:
        text: The text.
        secrets: `secret_values()`, for callers that need it often.
    """
    if "//" in text:
        text = re.sub(r"//[^/@\s]+:[^/@\s]+@", "//***@", text)
    if "=" in text:
        text = re.sub(
            r"(?i)((?:signature|sig|credential|security-token|secret|token|password)=)[^&\s'\"]+", r"\1***", text
        )
    for value in secret_values() if secrets is None else secrets:
        text = text.replace(value, "***")
    return text


def secret_values() -> list[str]:
    """Return the values of environment variables with names of secrets."""
    return [
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST_SECRET and SECRET_VARIABLES.search(name) and not os.path.exists(value)
    ]


def _translated(error: Exception, uri: str, action: str) -> Exception | None:
    names = _names(error)
    message, kind = _cause(names, uri)
    if kind == "other" and isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"cannot {action} {redacted(uri)}: there is nothing")
    if kind == "other" and not (isinstance(error, OSError) or _is_from_a_driver(error)):
        return None
    what = redacted(f"{type(error).__name__}: {error}")
    return StorageError(f"cannot {action} {redacted(uri)}: {message} ({what})", kind)


def _cause(names: set[str], uri: str) -> tuple[str, str]:
    """Return (meaning and remedy, kind). The order matters because S3 answers 403 in many cases."""
    if names & NO_CREDENTIALS:
        return CREDENTIALS_HELP, "credentials"
    if code := names & REJECTED_CREDENTIALS:
        return (
            f"the credentials were rejected as {min(code)}. Check that key and secret belong together and to this "
            f"endpoint{_endpoint()}, and that they have not expired",
            "credentials",
        )
    if names & NO_BUCKET:
        bucket = uri.split("://", 1)[-1].split("/", 1)[0]
        return (
            f"there is no bucket {bucket!r}{_endpoint()}. No job creates buckets: create it, or check its spelling and "
            "the endpoint (AWS_ENDPOINT_URL)",
            "bucket",
        )
    for known, message, kind in PLAIN_CAUSES:
        if names & known:
            return message, kind
    if names & DENIED:
        return (
            f"access was refused{_endpoint()}. The credentials in use may not do this here, or are not valid: check "
            "the bucket's policy, AWS_PROFILE and AWS_ACCESS_KEY_ID",
            "denied",
        )
    if protocol(uri) in WEB and names & UNTRUSTED:
        return "the server's certificate cannot be trusted", "refused"
    if names & UNREACHABLE:
        return (
            f"the storage did not answer as it should, after several attempts{_endpoint()}. Check the endpoint and the "
            "network; the same command continues where this one stopped",
            "unreachable",
        )
    if protocol(uri) in WEB and any(re.fullmatch(r"4\d\d", name) for name in names):
        return "the server refused the request", "refused"
    return "the storage reports a failure", "other"


def _names(error: BaseException | None) -> set[str]:
    """Return the class names and S3 error codes of an exception and its causes."""
    names: set[str] = set()
    for _ in range(10):
        if error is None:
            break
        names |= {kind.__name__ for kind in type(error).__mro__}
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            names.add(str(response.get("Error", {}).get("Code", "")))
        status = getattr(error, "status", None) or getattr(error, "code", None)
        if isinstance(status, int) and not isinstance(error, OSError):
            names.add(str(status))
        error = error.__cause__ or error.__context__
    return names


def _is_from_a_driver(error: Exception) -> bool:
    package = type(error).__module__.split(".")[0]
    return package in ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure", "urllib3")


def _endpoint() -> str:
    """Return the endpoint in use if it is not the default one of the cloud."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f" at {redacted(endpoint)}" if endpoint else ""
