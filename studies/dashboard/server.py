"""optuna-dashboard on the study's database and artifacts, or on a snapshot for reading.

Knows what is shown and what to say of it; `serving` knows whom it is shown to.
"""

import json
import socket
import sqlite3
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.artifacts import FileSystemArtifactStore
from sqlalchemy.engine import URL

from studies.dashboard.attributes import without_records
from studies.dashboard.publish import publish_all
from studies.dashboard.serving import Place, Server, find_place, listen, refuse, with_headers
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
