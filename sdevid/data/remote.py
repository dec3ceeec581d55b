"""A folder behind a URL, read by ranges through fsspec. The only file that knows fsspec."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sdevid.data.folder import copy_into
from sdevid.errors import UserError

_TRIES = 5
_PAUSE = 0.2  # seconds before the second try; doubled for each further one
_REFUSED = (401, 403)
_PAST_THE_END = 416
_MISSING, _TOO_MANY = 404, 429
_SLOWEST = 1_024  # bytes a second, once a time-out has passed
_KNOWN = ("s3", "http", "https")
_INSTALL = "`pip install 'sdevid[remote]'` brings what s3:// and http:// need"

Result = TypeVar("Result")


class TooLargeError(ValueError):
    """An answer of more bytes than were asked for."""


class RemoteFolder:
    """Files under a URL of s3://, http(s):// or another protocol of fsspec.

    Faults that may pass (time-outs, broken connections, a server in trouble) are tried again a
    few times with growing pauses; then, and for what does not pass, UserError.
    """

    steady = False

    def __init__(self, location: str, timeout: float) -> None:
        self.location, self._timeout = location, timeout
        self._http = location.startswith("http")
        self._system = _file_system(location, timeout)

    def read(self, name: str, offset: int, size: int) -> bytes:
        if size == 0:
            return b""
        return self._fetch(name, offset, size)

    def read_into(self, name: str, offset: int, *targets: bytearray | memoryview) -> int:
        return copy_into(self, name, offset, targets)

    def forget(self, name: str, offset: int, size: int) -> bool:  # noqa: ARG002
        return False

    def whole(self, name: str, limit: int) -> bytes:
        if self._http:
            content: bytes = self._tried(name, lambda url: self._streamed(url, limit))
            return content
        size = self.size(name)
        if size > limit:
            raise TooLargeError(f"it has {size:,} bytes, more than {limit:,}")
        return self._fetch(name, 0, size)

    def mapped(self, name: str, limit: int) -> memoryview:
        return memoryview(self.whole(name, limit))

    def size(self, name: str) -> int:
        return int(self._tried(name, lambda url: self._system.info(url)["size"]))

    def names(self) -> list[str] | None:
        if self._http:
            return None
        try:
            paths = self._tried("", lambda url: self._system.ls(url, detail=False, refresh=True))
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def stamp(self, name: str) -> None:  # noqa: ARG002
        return None

    def close(self) -> None:
        pass

    def _fetch(self, name: str, start: int, size: int) -> bytes:
        """Fetch `size` bytes from `start` on, or as many as there are."""

        def ask(url: str) -> bytes:
            if not self._http:
                return bytes(self._system.cat_file(url, start=start, end=start + size))
            try:
                return self._streamed(url, size, {"Range": f"bytes={start}-{start + size - 1}"})
            except TooLargeError as error:
                raise UserError(
                    f"{url}: {size} bytes were asked for and more came, so the server does not "
                    "answer range requests; serve the shards from one that does, or copy them here"
                ) from error

        content: bytes = self._tried(name, ask)
        return content

    def _streamed(self, url: str, limit: int, headers: dict[str, str] | None = None) -> bytes:
        """Receive the answer to a request as it streams in. TooLargeError past `limit` bytes."""
        from fsspec.asyn import sync

        content: bytes = sync(self._system.loop, self._receive, url, limit, headers or {})
        return content

    async def _receive(self, url: str, limit: int, headers: dict[str, str]) -> bytes:
        session = await self._system.set_session()
        started, size = time.monotonic(), 0
        parts: list[bytes] = []
        async with session.get(self._system.encode_url(url), headers=headers) as answer:
            if answer.status == _MISSING:
                raise FileNotFoundError(url)
            answer.raise_for_status()
            async for part in answer.content.iter_chunked(2**16):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise TooLargeError(f"it has more than {limit:,} bytes")
                spent = time.monotonic() - started
                if spent > self._timeout and size < spent * _SLOWEST:
                    raise ConnectionError(f"only {size} bytes came in {spent:.1f} s")
        return b"".join(parts)

    def _tried(self, name: str, ask: Callable[[str], Result]) -> Result | Any:
        url = f"{self.location}/{name}".rstrip("/")
        for attempt in range(_TRIES):
            try:
                return ask(url)
            except (FileNotFoundError, TooLargeError, UserError):
                raise
            except Exception as error:  # each protocol has its own
                if _status(error) == _PAST_THE_END:
                    return b""
                _stop_where_final(url, error)
                last = error
            if attempt + 1 < _TRIES:
                time.sleep(_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
        raise UserError(
            f"{url} could not be read in {_TRIES} tries of at most {self._timeout:g} s: "
            f"{_reason(last)}; see whether the server answers and the network is up, or set "
            "data_timeout higher"
        ) from last


def _file_system(location: str, timeout: float) -> Any:
    protocol, _, rest = location.partition("://")
    host = rest.partition("/")[0]
    if protocol not in _KNOWN or not host:
        raise UserError(
            f"{location} is not read; a path, file://, s3://, http:// and https:// are known"
        )
    if "@" in host:
        raise UserError(
            f"the address {protocol}://...@{rest.rpartition('@')[2]} holds a user or password, "
            "which would end up in files and logs; put them into ~/.netrc and leave them out here"
        )
    options: dict[str, Any] = {}
    try:
        import fsspec

        if protocol == "s3":
            waits = {"connect_timeout": timeout, "read_timeout": timeout}
            options = {"config_kwargs": waits | {"retries": {"max_attempts": 0}}}
        elif protocol in ("http", "https"):
            import aiohttp

            limit = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
            options = {"client_kwargs": {"timeout": limit, "trust_env": True}}
        system = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    except ImportError as error:
        raise UserError(
            f"{location} needs a package that is missing: {error}; {_INSTALL}"
        ) from error
    except (ValueError, TypeError) as error:  # no such protocol, or one that needs more than a URL
        raise UserError(
            f"{location}: {error}; a path, file://, s3://, http:// and https:// are known"
        ) from error
    system.retries = 1  # s3fs has its own, which would multiply
    return system


def _stop_where_final(url: str, error: Exception) -> None:
    """Raise UserError for what no second try mends."""
    status, kind = _status(error), type(error).__name__
    if isinstance(error, PermissionError) or status in _REFUSED:
        raise UserError(
            f"{url} is refused ({_reason(error)}); see that your credentials may read it and that "
            "it exists: for S3, AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    if "Credentials" in kind:
        raise UserError(
            f"{url}: no credentials were found ({_reason(error)}); set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    transient = status is None or status >= 500 or status in (408, _TOO_MANY)
    if isinstance(error, TypeError | AttributeError):  # a fault of ours, with its traceback
        raise error
    if not transient or kind == "InvalidURL":
        raise UserError(f"{url} cannot be read: {_reason(error)}; check the address") from error


def _status(error: BaseException) -> int | None:
    """Find the HTTP status in an error of aiohttp, or of botocore under one of s3fs."""
    for cause in (error, error.__cause__):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
