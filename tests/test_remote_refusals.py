"""What goes wrong on the way to S3 is one sentence that names the setting, and soon."""

import errno
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, client, free_ports

from hounsfield import remote
from hounsfield.errors import InputError

pytestmark = pytest.mark.usefixtures("s3_environment")


class Answering:
    """An HTTP server with one answer to everything; the block gets its endpoint."""

    def __init__(self, status: int, body: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                content = b"" if self.command == "HEAD" else body.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize(
    ("status", "body"), [(200, "<html>Welcome</html>"), (404, "<html>Not found</html>"), (404, "")]
)
def test_server_that_is_not_s3_is_told(status: int, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Answering(status, body) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(InputError, match=f"{endpoint} does not answer as S3 does: check AWS_ENDPOINT_URL"):
            remote.fetch("s3://some/key")


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("NoSuchBucket", 404, "there is no bucket some at http.*check the name and AWS_ENDPOINT_URL"),
        ("InvalidAccessKeyId", 403, "refuses the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("SignatureDoesNotMatch", 403, "refuses the credentials: check AWS_ACCESS_KEY_ID"),
        ("ExpiredToken", 400, "the session token has ended: renew AWS_SESSION_TOKEN"),
        ("RequestTimeTooSkewed", 403, "the clocks of this machine and of .* differ"),
        ("AuthorizationHeaderMalformed", 400, "in another region: set AWS_DEFAULT_REGION"),
        ("AccessDenied", 403, "check .* that the credentials allow s3:ListBucket and s3:GetObject"),
        ("QuotaExceeded", 403, "says: the reason"),
    ],
)
def test_answers_of_the_server_name_the_setting(
    code: str, status: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"<Error><Code>{code}</Code><Message>the reason</Message></Error>"
    with Answering(status, body) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(InputError, match=f"s3://some/key cannot be read .{code}.: .*{sentence}"):
            remote.fetch("s3://some/key")


def test_bucket_that_may_be_read_alone_is_told_before_the_work(
    s3_endpoint: str, request: pytest.FixtureRequest
) -> None:
    s3 = client(s3_endpoint)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject"}
    policy = {"Version": "2012-10-17", "Statement": [deny | {"Resource": f"arn:aws:s3:::{BUCKET}/denied/*"}]}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    request.addfinalizer(lambda: s3.delete_bucket_policy(Bucket=BUCKET))
    with (
        pytest.raises(InputError, match="credentials allow s3:PutObject"),
        remote.output(f"s3://{BUCKET}/denied/artifact"),
    ):
        pytest.fail("the block was entered")


@pytest.mark.slow
def test_wrong_settings_are_told_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    settings = {
        f"http://127.0.0.1:{free_ports(1)[0]}": "check AWS_ENDPOINT_URL .http://127.0.0.1",
        f"http://127.0.0.1:{silent.getsockname()[1]}": "check AWS_ENDPOINT_URL",
        "http://no-such-host.invalid": "check AWS_ENDPOINT_URL",
        "storage.example.org": "AWS_ENDPOINT_URL=storage.example.org: expected an address",
    }
    for endpoint, sentence in settings.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        began = time.monotonic()
        with pytest.raises(InputError, match=sentence):
            remote.fetch("s3://some/key")
        assert time.monotonic() - began < 15
    silent.close()


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or"):
        remote.fetch(f"s3://{BUCKET}/key")


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("gs://bucket/key", "AWS_ENDPOINT_URL=https://storage.googleapis.com and the HMAC keys"),
        ("https://example.org/x", "expected a path or s3://bucket/key"),
        ("s3:///key", "names no bucket"),
        ("s3://Not_A_Bucket!/key", "is no name of a bucket"),
    ],
)
def test_addresses_of_other_kinds_are_refused(location: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        remote.fetch(location)


def test_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = f"s3://{BUCKET}/full"
    (tmp_path / "file").write_text("content")
    remote.upload(tmp_path / "file", location)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("s3transfer.utils.OSUtils.open", full)
    with pytest.raises(InputError, match=r"No space left on device.: free space or set TMPDIR"):
        remote.fetch(location)


def test_keys_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    item = "<Contents><Key>{}</Key><Size>1</Size><ETag>e</ETag></Contents>"
    answer = f"<ListBucketResult><Name>bucket</Name>{item}</ListBucketResult>"
    for name in ("x/../../evil", "/etc/evil"):
        with Answering(200, answer.format(f"folder/{name}")) as endpoint, pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            with pytest.raises(InputError, match="holds a key that cannot be a file name"):
                remote.download("s3://bucket/folder", tmp_path / "copy")
