"""What S3, the network and the disk say, as one sentence that names the setting to change."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hounsfield.errors import HounsfieldError, InputError


def endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@contextmanager
def sentences(location: str, bucket: str, verb: str) -> Iterator[None]:
    """Turn what S3, the network and the disk say into one sentence that names the setting."""
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import S3TransferRetriesExceededError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except HounsfieldError:
        raise
    except ClientError as error:
        raise InputError(_refusal(error, location, bucket, verb)) from error
    except (BotoCoreError, Boto3Error, S3TransferRetriesExceededError) as error:
        raise InputError(_failure(error, location, bucket, verb)) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free space or set TMPDIR to a larger disk" if full else "check the path and its permissions"
        raise InputError(f"{location} cannot be copied here ({error.strerror}): {cure}") from error


def no_s3(location: str) -> str:
    """The sentence for a server of another kind."""
    return f"{location} cannot be read: {endpoint()} does not answer as S3 does: check AWS_ENDPOINT_URL and its port"


PERMISSIONS = {"read": "s3:ListBucket and s3:GetObject", "write": "s3:PutObject", "remove": "s3:DeleteObject"}


def _refusal(error: Any, location: str, bucket: str, verb: str) -> str:
    """The sentence for an answer of the server."""
    code = str(error.response.get("Error", {}).get("Code", "error"))
    at = endpoint() or "Amazon S3"
    cannot = f"{location} cannot be {'read' if verb == 'read' else verb.rstrip('e') + 'ed'} ({code})"
    match code:
        case "NoSuchBucket":
            return f"{cannot}: there is no bucket {bucket} at {at}: check the name and AWS_ENDPOINT_URL"
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch":
            return f"{cannot}: {at} refuses the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        case "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "ExpiredTokenException":
            return f"{cannot}: the session token has ended: renew AWS_SESSION_TOKEN or the role's session"
        case "RequestTimeTooSkewed" | "RequestExpired":
            return f"{cannot}: the clocks of this machine and of {at} differ: set this one's by NTP"
        case "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "301":
            return f"{cannot}: the bucket is in another region: set AWS_DEFAULT_REGION"
        case "AccessDenied" | "Forbidden" | "403":
            return f"{cannot}: check the bucket's name and that the credentials allow {PERMISSIONS[verb]}"
        case "PreconditionFailed" | "NoSuchKey":
            return f"{cannot}: it changed meanwhile: run again when its writer is done"
        case "404" if error.operation_name == "HeadObject":
            return f"{cannot}: it changed meanwhile: run again when its writer is done"
        case "404" | "":
            return no_s3(location)
    said = error.response.get("Error", {}).get("Message") or "no reason given"
    return f"{cannot}: {at} says: {said}"


def _failure(error: Exception, location: str, bucket: str, verb: str) -> str:
    """The sentence for a request that got no answer."""
    kind = type(error).__name__
    cannot = f"{location} cannot be reached ({kind})"
    if "Credential" in kind or "Token" in kind or "SSO" in kind or kind == "MetadataRetrievalError":
        return f"{cannot}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the pod an identity"
    if kind == "FlexibleChecksumError":
        return f"{location}: the bytes that came do not fit the checksum: run again, or upload again"
    if kind == "ParamValidationError":
        return f"{location}: {bucket!r} is no name of a bucket: expected s3://bucket/key"
    if kind == "SSLError":
        return f"{cannot}: its certificate is not trusted: check AWS_ENDPOINT_URL, or set AWS_CA_BUNDLE"
    return f"{cannot}: check AWS_ENDPOINT_URL ({endpoint() or 'not set: Amazon S3'}) and the network"
