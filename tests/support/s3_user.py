"""A user of the S3 server of `tests.support.object_store`: fixtures with its environment and buckets."""

from collections.abc import Callable, Iterator

import pytest
from s3fs import S3FileSystem

from pipelines import storage
from tests.support.object_store import ObjectStore, Proxy, object_store, running_proxy

__all__ = ["CLOSED", "OPEN", "Become", "become", "object_store", "proxy", "s3"]
OPEN, CLOSED = "s3://open-bucket", "s3://closed-bucket"
Become = Callable[..., None]


@pytest.fixture(scope="module")
def proxy(object_store: ObjectStore) -> Iterator[Proxy]:
    """Clients that other tests of this process have made keep those tests' endpoint and credentials: forget them."""
    S3FileSystem.clear_instance_cache()
    with running_proxy(object_store) as running:
        yield running
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3(object_store: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The environment of a user of the server, through the proxy; both buckets exist."""
    for name, value in {**object_store.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}.items():
        monkeypatch.setenv(name, value)
    proxy.faults = []
    fs, _ = storage.filesystem(OPEN)
    for bucket in (OPEN, CLOSED):
        if not fs.exists(bucket):
            fs.mkdir(bucket)
    proxy.requests.clear()
    return proxy


@pytest.fixture
def become(s3: Proxy, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Change the environment from the call on. Clients made before are forgotten; making one takes a while."""

    def change(**environment: str | None) -> None:
        for name, value in environment.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()

    yield change
    S3FileSystem.clear_instance_cache()
