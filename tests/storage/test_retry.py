"""Retries: transient errors are retried up to a time limit, others are raised at once."""

import errno
import re

import pytest

from tests.ray_cluster import free_port
from vwl.data.index import Row
from vwl.errors import Unreachable, VwlError
from vwl.inference.runner import Shard, process
from vwl.storage import retry as retry_module
from vwl.storage.folder import Folder
from vwl.storage.retry import is_transient, retry

REFUSED = OSError("When reading key 'a': AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Couldn't connect to server")


class FlakyCall:
    """A call that fails `times` times, then returns a result."""

    def __init__(self, times: int, error: OSError = REFUSED) -> None:
        self.left, self.error, self.calls = times, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "result"


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."),
        OSError("AWS Error UNKNOWN (HTTP status 503) during ListObjectsV2 operation: No response body."),
        OSError("google::cloud::Status(UNAVAILABLE: try again)"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
)
def test_a_transient_error_is_retried(error):
    call = FlakyCall(2, error)
    assert retry(call, seconds=30) == "result"
    assert call.calls == 3


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "AWS Error NETWORK_CONNECTION is the name of a file"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied"),
        OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: The specified bucket does not exist"),
    ],
)
def test_another_error_is_raised_at_once(error):
    call = FlakyCall(1, error)
    with pytest.raises(OSError, match=re.escape(str(error))) as caught:
        retry(call, seconds=30)
    assert caught.value is error
    assert call.calls == 1
    assert not is_transient(error)


def test_retries_end_after_the_time_limit_and_pauses_double():
    call = FlakyCall(1000)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        retry(call, seconds=2)
    assert 2 <= call.calls <= 4  # after 0, 0.25, 0.75 and 1.75 s, or later on a busy machine


def test_an_unreachable_server_gives_one_line_and_is_not_counted_as_a_failed_image(monkeypatch, tmp_path):
    monkeypatch.setattr(retry_module, "RETRY_SECONDS", 0.1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    folder = Folder(f"s3://bucket/run?endpoint_override=127.0.0.1:{free_port()}&scheme=http&region=here")
    with pytest.raises(Unreachable) as caught:
        folder.read("a/image.jpg")
    message = str(caught.value)
    assert message.startswith("cannot read s3://bucket/run/a/image.jpg?endpoint_override=127.0.0.1:")
    assert message.endswith("check the storage, then run the same command again")
    assert "\n" not in message

    def stage(row: Row) -> None:
        raise Unreachable(message)

    with pytest.raises(Unreachable):
        process(stage, Shard(0, (Row("a", "a.jpg", (1,), None, "train"),)), Folder(tmp_path))
    assert not (tmp_path / "done").exists()


def test_the_options_of_a_uri_stay_after_the_path(tmp_path):
    folder = Folder("s3://bucket/run?endpoint_override=127.0.0.1:1&scheme=http&region=here")
    below = folder / "cam" / "what?"
    assert below.uri == "s3://bucket/run/cam/what%3F?endpoint_override=127.0.0.1:1&scheme=http&region=here"
    assert below.path == Folder(below.uri).path == "bucket/run/cam/what?"
    assert below.uri_of("a b") == "s3://bucket/run/cam/what%3F/a%20b?endpoint_override=127.0.0.1:1&scheme=http&region=here"
    assert Folder(tmp_path).uri_of("what?") == f"{tmp_path}/what?"


def test_a_wrong_uri_gives_one_line():
    with pytest.raises(VwlError, match=r"cannot open s3:"):
        Folder("s3://bucket/run?endpoint=127.0.0.1:1&region=here")
