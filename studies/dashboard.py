"""optuna-dashboard on the study's database and artifacts, on this machine alone."""

import socket
import webbrowser
from collections.abc import Callable

from studies.storage import open_existing, open_storage

HOST = "127.0.0.1"


def serve(
    storage_text: str, port: int, *, open_browser: bool, announce: Callable[[str], None]
) -> None:
    """Serve the dashboard on 127.0.0.1 until interrupted; a taken port moves on to the next.

    Raises:
        UserError: the database can't be opened; it must exist already.
    """
    from optuna_dashboard import run_server

    open_existing(storage_text)  # Refuses what isn't there: a dashboard of nothing helps nobody.
    storage = open_storage(storage_text)
    free = next(p for p in range(port, port + 100) if not _is_taken(p))
    url = f"http://{HOST}:{free}/"
    announce(f"Dashboard of {storage.url}: {url} (Ctrl-C ends it)")
    if open_browser:
        webbrowser.open(url)
    run_server(storage.database, host=HOST, port=free, artifact_store=storage.artifacts)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
