"""Where a part of the data pin lies: a folder of the repository, an object store, or a web server.

Object stores are reached as the log's sink is: with the names that object_store knows its options by, from the
environment (``AZURE_…``, ``AWS_…``, ``GOOGLE_…``). What is public is read without any of them.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlsplit

import pyarrow as pa
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileType, PyFileSystem

from closedloop.data.schema import DataError
from closedloop.log.sink import FAULTS, REMOTE, Sink, SinkError, one_line
from model.common import google_token
from model.common.provenance import ROOT

BLOCK_BYTES = 4 << 20
WEB = ("https", "http")  # http: on this machine only
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WEB_SECONDS = 30
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5  # before the second attempt; then twice as long each time
_PLAIN = {"Accept-Encoding": "identity"}
_ADDRESS = "%/:?#[]@!$&'()*+,;=~"  # what an address may hold beside letters and digits; the rest is encoded
_AGAIN = (408, 425, 429, 500, 502, 503, 504)

# What a part says of a store beside the location, and the name of that option. None of it is secret.
SAID = {
    "account": {"az": "AZURE_STORAGE_ACCOUNT_NAME"},
    "region": {"s3": "AWS_REGION"},
    "endpoint": {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT"},
}
UNSIGNED = {"az": "AZURE_SKIP_SIGNATURE", "s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE"}
LOGIN = {
    "az": "run az login and set AZURE_USE_AZURE_CLI=true, or set AZURE_STORAGE_ACCOUNT_KEY",
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, or GOOGLE_ACCESS_TOKEN",
}
T = TypeVar("T")


def scheme(location: str) -> str:
    """Return the kind of a location: ``az``, ``s3``, ``gs``, ``https``, ``http``, or an empty text for a folder."""
    found = location.partition("://")[0] if "://" in location else ""
    return "az" if found in ("abfs", "abfss") else found


def is_remote(location: str) -> bool:
    """Return whether a location is in an object store."""
    return location.partition("://")[0] in REMOTE and "://" in location


def said(location: str) -> dict[str, str]:
    """Return what a new part says of its store, from the environment: account, region and endpoint."""
    kind, found = scheme(location), {}
    for key, names in SAID.items():
        value = os.environ.get(names.get(kind, ""), "")
        if value and not (key == "endpoint" and urlsplit(value).hostname in LOOPBACK):
            found[key] = value
    return found


def sink(part: Mapping[str, Any]) -> Sink:
    """Return the place of a part, with the options of its store.

    Raises:
        DataError: its location is of an unknown kind.
    """
    location, kind = part["location"], scheme(part["location"])
    environ = dict(os.environ)
    for key, names in SAID.items():
        name = names.get(kind)
        if name and key in part and (key == "account" or not environ.get(name)):
            environ[name] = part[key]
    if part.get("public") and kind in UNSIGNED:
        environ[UNSIGNED[kind]] = "true"
    elif kind == "gs":
        google_token.serve()
    try:
        return Sink.at(location if "://" in location else str(ROOT / location), environ)
    except SinkError as error:
        raise DataError(str(error)) from None


def trouble(part: Mapping[str, Any], where: str, error: BaseException) -> DataError:
    """Return the one clear line for what a store answered about ``where``."""
    kind, text = scheme(part["location"]), one_line(error)
    denied = any(word in text for word in ("403", "401", "Forbidden", "Unauthorized", "redential", "token", "Access"))
    if kind in LOGIN and denied:
        fix = f"log in with an identity that may read it ({LOGIN[kind]})"
        fix = "it is pinned as public and is not any more: make data-pin" if part.get("public") else fix
    elif "not found" in text.lower() or "404" in text:
        fix = "restore it, or pin what is there with: make data-pin"
    else:
        fix = "run it again when the store answers"
    return DataError(f"{where}: cannot be read ({text}); {fix}")


class Bucket:
    """A folder of an object store."""

    def __init__(self, part: Mapping[str, Any]) -> None:
        self.part = part
        place = sink(part)
        self._shown = part["location"]
        self._system = self._ask("", lambda: PyFileSystem(DeltaStorageHandler(place.place, place.options)))

    def names(self) -> list[str]:
        """Return the names of all files below the folder, sorted.

        Raises:
            DataError: it cannot be listed.
        """
        found = self._ask(
            "", lambda: self._system.get_file_info(FileSelector("", allow_not_found=True, recursive=True))
        )
        return sorted(info.path for info in found if info.type == FileType.File)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        file = self._ask(name, lambda: self._system.open_input_file(name))
        with file:
            while block := self._ask(name, lambda: file.read(BLOCK_BYTES)):
                yield block

    def _ask(self, name: str, question: Callable[[], T]) -> T:
        try:
            return question()
        except (*FAULTS, pa.ArrowException) as error:
            raise trouble(self.part, f"{self._shown}/{name}".rstrip("/"), error) from error


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https only: another address would bring content that anybody may have changed."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        here = urlsplit(newurl).scheme == "http" and urlsplit(newurl).hostname in LOOPBACK
        if urlsplit(newurl).scheme != "https" and not here:
            raise urllib.error.HTTPError(req.full_url, code, f"redirects to {newurl}, which is not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> IO[bytes] | None:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            why = f"redirects to {headers['Location']}: {error}"
            raise urllib.error.HTTPError(req.full_url, code, why, headers, fp) from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Download:
    """What has arrived of a file, so that a transfer that breaks off can go on."""

    def __init__(self) -> None:
        self.size = 0
        self.version: str | None = None  # the strong ETag, by which a server vouches that the file is the same
        self._digest = hashlib.sha256()

    def add(self, block: bytes) -> None:
        """Take note of a block that was passed on."""
        self.size += len(block)
        self._digest.update(block)

    def is_repeated_by(self, start: bytes) -> bool:
        """Return whether this digest, of the same number of bytes, is that of what was passed on."""
        return start == self._digest.digest()


class Web:
    """A folder of a web server, which nobody can list."""

    def __init__(self, part: Mapping[str, Any]) -> None:
        self._base = part["location"].rstrip("/")
        self._opener = urllib.request.build_opener(_SafeRedirects)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file. A transfer that breaks off goes on where it broke off, if it is the same file.

        Raises:
            DataError: it is not there, cannot be read, or changes meanwhile.
        """
        done, attempt = _Download(), 1
        while True:
            try:
                for block in self._from(name, done):
                    done.add(block)
                    yield block
                return
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, DataError):
                    raise
                lasting = isinstance(error, ValueError)  # no address, or what the server says of itself is nonsense
                if isinstance(error, urllib.error.HTTPError):
                    lasting = error.code not in _AGAIN
                    error.close()
                if lasting or attempt == _ATTEMPTS:
                    fix = "correct the address" if lasting else "run it again when the server answers"
                    raise DataError(f"{self._base}/{name}: cannot be read ({one_line(error)}); {fix}") from error
                time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
                attempt += 1

    def _from(self, name: str, done: _Download) -> Iterator[bytes]:
        """Yield what follows of a file after what has arrived."""
        request = urllib.request.Request(f"{quote(self._base, safe=_ADDRESS)}/{quote(name)}", headers=_PLAIN)  # noqa: S310 - the pin's check allows https, and http on this machine
        if done.size and done.version:
            request.add_header("Range", f"bytes={done.size}-")
            request.add_header("If-Range", done.version)
        with self._opener.open(request, timeout=_WEB_SECONDS) as answer:
            left, version = self._length(name, answer.headers), answer.headers["ETag"] or ""
            if answer.status == 206:
                start = f"bytes {done.size}-"
                if version != done.version or not (answer.headers["Content-Range"] or "").startswith(start):
                    raise HTTPException("it is not the part of the file that was asked for")
            else:
                self._skip(name, done, answer)
                left -= done.size
                done.version = version if version.startswith('"') else None
            while block := answer.read(BLOCK_BYTES):
                left -= len(block)
                yield block
            if 0 < left < math.inf:
                raise HTTPException(f"{left} bytes are missing at its end")

    def _length(self, name: str, headers: Message) -> float:
        """Return the length of an answer; infinity where it is not said."""
        if (packed := headers["Content-Encoding"] or "identity") != "identity":
            fix = "let the server send the file as it is"
            raise DataError(f"{self._base}/{name}: cannot be read (it comes with Content-Encoding {packed}); {fix}")
        said = headers["Content-Length"]
        if said is not None and not (said.isascii() and said.isdigit()):
            raise HTTPException(f"its Content-Length is {said}")
        return math.inf if said is None else int(said)

    def _skip(self, name: str, done: _Download, answer: IO[bytes]) -> None:
        """Read what has arrived before of a file that is sent from its start, and check that it is the same."""
        again, left = hashlib.sha256(), done.size
        while left and (block := answer.read(min(BLOCK_BYTES, left))):
            again.update(block)
            left -= len(block)
        if not left and not done.is_repeated_by(again.digest()):
            raise DataError(f"{self._base}/{name}: changed while it was downloaded; run it again")
        if left:
            raise HTTPException("it broke off again, or is shorter now")


def at(part: Mapping[str, Any]) -> Bucket | Web:
    """Return the place of a part that is no folder of the repository."""
    return Web(part) if scheme(part["location"]) in WEB else Bucket(part)
