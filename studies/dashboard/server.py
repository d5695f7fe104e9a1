"""optuna-dashboard on the study's database and artifacts, or on a snapshot for reading.

Served by a threaded HTTP server, which knows where it listens and whom it answers.
"""

import errno
import json
import re
import socket
import sqlite3
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.artifacts import FileSystemArtifactStore
from sqlalchemy.engine import URL

from studies.dashboard.attributes import without_records
from studies.dashboard.publish import publish_all
from studies.dashboard.snapshot import RENEW_SECONDS, Snapshot
from studies.database.storage import (
    StudyStorage,
    database_file,
    open_existing,
    open_storage,
    without_password,
)
from studies.errors import UserError
from studies.signals import StopSignals

NUM_PORTS = 100
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# Only this site may show a page in a frame, and no browser guesses what a file is.
HEADERS = (("X-Frame-Options", "SAMEORIGIN"), ("X-Content-Type-Options", "nosniff"))
MOST_BYTES_DRAINED = 1 << 20
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[^\s:/@?#\[\]]+))(?::\d*)?", re.I)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to listen: ``host`` as the user wrote it, and the socket address it stands for."""

    host: str
    family: socket.AddressFamily
    address: tuple[Any, ...]

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can reach it."""
        return ip_address(self.address[0].partition("%")[0]).is_loopback

    @property
    def is_everywhere(self) -> bool:
        """Whether it is all addresses of this machine."""
        return ip_address(self.address[0].partition("%")[0]).is_unspecified

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of this place, in lower case."""
        given = {self.host.lower().rstrip("."), self.address[0]}
        if self.is_everywhere:
            given |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return LOCAL_NAMES | given

    def answers_to(self, header: str | None) -> bool:
        """Whether a request with this Host header was meant for this place.

        A page of another site can have its own name resolve to this machine (DNS rebinding) and
        would then read and change what is served; the header still has that name.
        """
        match = _HOST.fullmatch(header or "")
        if match is None:
            return False
        name = (match["ipv6"] or match["name"]).lower().rstrip(".")
        # An address in figures is resolved by nobody, and so can't be made to point elsewhere.
        return name in self.names or (self.is_everywhere and _is_address(name))

    def url(self, port: int) -> str:
        """The address for a browser on this machine."""
        host = self.host
        if self.is_everywhere:
            host = "127.0.0.1" if self.family == socket.AF_INET else "::1"
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def find_place(host: str) -> Place:
    """What ``--host`` stands for.

    Raises:
        UserError: nothing that is known.
    """
    bare = host.removeprefix("[").removesuffix("]")
    try:
        if not bare:
            raise socket.gaierror
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise UserError(
            f"--host must be a name or an address of this machine, but '{host}' is unknown; "
            "127.0.0.1 is for this machine alone, 0.0.0.0 for all who can reach it."
        ) from None
    # Of several the IPv4 address: it is the one that a browser is sure to try.
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return Place(host=bare, family=family, address=address)


class Handler(WSGIRequestHandler):
    """One line a request would bury what the server has to say."""

    timeout = 60  # Seconds that a silent client holds its thread.

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: Place, port: int, app: WSGIApplication) -> None:
        self.address_family = place.family
        self.url = place.url(port)
        super().__init__((place.address[0], port, *place.address[2:]), Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        # WSGIServer's looks for the name of the address, which can ask another machine.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away. What the application raises, wsgiref has written."""


def listen(place: Place, port: int, app: WSGIApplication) -> Server:
    """A server on the first free port from ``port`` on, listening; `serve_forever` answers.

    Raises:
        UserError: the place isn't on this machine, or there is no port to be had.
    """
    last = min(port + NUM_PORTS - 1, 65535)
    for candidate in range(port, last + 1):
        try:
            return Server(place, candidate, guarded(app, place))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(
                    f"--host must be an address of this machine, but got '{place.host}'; "
                    "127.0.0.1 is for this machine alone, 0.0.0.0 for all who can reach it."
                ) from None
            hint = "; take one from 1024 on" if error.errno == errno.EACCES else ""
            raise UserError(
                f"Can't listen on {place.host}, --port {candidate}: {error.strerror}{hint}."
            ) from None
    raise UserError(f"The ports {port} to {last} are taken; name another with --port.")


def guarded(app: WSGIApplication, place: Place) -> WSGIApplication:
    """The application, for requests alone that were meant for this place by a page of its own."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        start_response = with_headers(start_response, HEADERS)
        host, origin = environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN")
        if not place.answers_to(host):
            text = "This name is not known here: open the address that was printed at the start, "
            return refuse(environ, start_response, f"{text}or start with --host NAME.\n")
        if origin is not None and urlsplit(origin).netloc.lower() != str(host).lower():
            return refuse(environ, start_response, "Pages of other sites may ask for nothing.\n")
        return app(environ, start_response)

    return answer


def with_headers(start_response: StartResponse, more: Sequence[tuple[str, str]]) -> StartResponse:
    """``start_response`` that sends these headers as well."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start_response(status, [*headers, *more], *rest)

    return start


def refuse(
    environ: WSGIEnvironment, start_response: StartResponse, text: str, kind: str = "text/plain"
) -> list[bytes]:
    """Answer 403 with ``text``."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if length.isdecimal():  # With a body that nobody has read the connection would be reset.
        environ["wsgi.input"].read(min(int(length), MOST_BYTES_DRAINED))
    content = text.encode()
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", f"{len(content)}")]
    start_response("403 Forbidden", headers)
    return [content]


SANDBOX = (("Content-Security-Policy", "sandbox"),)
Say = Callable[[str], None]


def serve(
    storage_text: str,
    port: int,
    *,
    host: str,
    read_only: bool,
    open_browser: bool,
    announce: Say,
) -> None:
    """Serve the dashboard until interrupted; a taken port moves on to the next.

    Raises:
        UserError: the database can't be opened (it must exist already), or nothing can listen.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    with (
        StopSignals() as signals,
        open_server(
            storage_text, port, host=host, read_only=read_only, announce=announce
        ) as server,
    ):
        if open_browser:
            # In a thread: a browser in the terminal returns when it is closed, and needs answers.
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        with signals.interruptible():
            server.serve_forever()


@contextmanager
def open_server(
    storage_text: str, port: int, *, host: str, read_only: bool, announce: Say
) -> Iterator[Server]:
    """A server of the dashboard, listening and announced, whose `serve_forever` answers."""
    if read_only and database_file(storage_text) is None:
        raise UserError(
            "--read-only needs a SQLite database, but got "
            f"{without_password(storage_text)}; serve it as a database user who may only read."
        )
    place = find_place(host)
    # Refuses what isn't there: a dashboard of nothing helps nobody.
    existing = open_existing(storage_text)
    existing.database.engine.dispose()
    with ExitStack() as stack:
        app = (
            _snapshot_app(existing, stack, announce)
            if read_only
            else _app(storage_text, stack, announce)
        )
        server = stack.enter_context(listen(place, port, app))
        for line in announcement(existing.url, server, place, port, read_only=read_only):
            announce(line)
        yield server


def _app(storage_text: str, stack: ExitStack, announce: Say) -> WSGIApplication:
    from optuna_dashboard import wsgi

    storage = open_storage(storage_text)
    stack.callback(storage.database.engine.dispose)
    publish_all(storage, announce)
    app: WSGIApplication = wsgi(storage.database, artifact_store=storage.artifacts)
    return without_scripts(without_records(app))


def _snapshot_app(existing: StudyStorage, stack: ExitStack, announce: Say) -> WSGIApplication:
    from optuna_dashboard import wsgi

    assert existing.path is not None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="studies-"))
    snapshot = Snapshot(existing.path, Path(folder))
    url = URL.create("sqlite", database=str(snapshot.path))
    copy = open_existing(url.render_as_string())
    stack.callback(copy.database.engine.dispose)
    artifacts = FileSystemArtifactStore(str(existing.files / "artifacts"))
    app: WSGIApplication = wsgi(copy.database, artifact_store=artifacts)
    return reading_only(without_scripts(without_records(app)), snapshot, announce)


def reading_only(app: WSGIApplication, snapshot: Snapshot, announce: Say) -> WSGIApplication:
    """The dashboard without what changes anything; every request may renew the snapshot."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            reason = "This dashboard is for reading only (--read-only)."
            text = json.dumps({"reason": reason})
            return refuse(environ, start_response, text, "application/json")
        try:
            snapshot.renew()
        except sqlite3.Error as error:
            announce(f"The snapshot is still the former one, it could not be renewed: {error}")
        return app(environ, start_response)

    return answer


def without_scripts(app: WSGIApplication) -> WSGIApplication:
    """The dashboard; an HTML file among the artifacts, from whoever uploads one, runs nothing."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        if environ.get("PATH_INFO", "").startswith("/artifacts/"):
            start_response = with_headers(start_response, SANDBOX)
        return app(environ, start_response)

    return answer


def announcement(
    url: str, server: Server, place: Place, port: int, *, read_only: bool
) -> Iterator[str]:
    """What is served, where, and whom it is shown to."""
    moved = f"port {port} is taken; " if server.server_port != port else ""
    yield f"Dashboard of {without_password(url)}: {server.url} ({moved}Ctrl-C ends it)"
    if read_only:
        yield (
            f"It shows a snapshot, renewed at most every {RENEW_SECONDS} s; "
            "nothing can be changed or deleted through it."
        )
    if place.is_local:
        return
    if place.is_everywhere:
        yield f"From other machines: http://{socket.gethostname()}:{server.server_port}/"
    exposed = "see every study, trial, note and artifact"
    if not read_only:
        exposed += ", change them, and delete whole studies"
    yield (
        f"Warning: there is no login. Whoever can reach port {server.server_port} of {place.host} "
        f"can {exposed}; nothing is encrypted."
    )
    if not read_only:
        yield "`--read-only` serves a snapshot instead, in which nothing can be changed."
