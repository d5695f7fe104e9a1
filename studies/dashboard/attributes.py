"""The dashboard without the attributes that only this program reads.

optuna-dashboard shows a trial's attributes as they are: the record of all epochs is one line of
8,000 pixels on its page, and a row of a table a screen high. They are taken out of its answers
here, in studies of any age. Knows HTTP, and optuna-dashboard's answers.
"""

import io
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from studies.database.study import STUDY_ATTRIBUTES
from studies.database.trials import RECORD_ATTRIBUTES

HIDDEN = frozenset((*RECORD_ATTRIBUTES, *STUDY_ATTRIBUTES))
HIDDEN_COLUMNS = frozenset(f"UserAttribute {name}" for name in HIDDEN)
ATTRIBUTES = ("user_attrs", "union_user_attrs")

_STUDIES, _TABLE = re.compile(r"/api/studies(/\d+)?"), re.compile(r"/csv/\d+")


def without_records(app: WSGIApplication) -> WSGIApplication:
    """The dashboard; lists of studies, studies and tables have columns for people alone."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] == "GET":
            if _STUDIES.fullmatch(path):
                return _changed(app, environ, start_response, _without_in_json)
            if _TABLE.fullmatch(path):
                return _changed(app, environ, start_response, _without_in_csv)
        return app(environ, start_response)

    return answer


def _changed(
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    change: Callable[[bytes], bytes],
) -> Iterable[bytes]:
    """The answer of ``app`` with its content changed; one that is no success is left as it is."""
    started: list[Any] = []

    def remember(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        started[:] = [status, headers, *rest]
        return lambda data: None

    parts = app(environ, remember)
    content = b"".join(parts)
    if hasattr(parts, "close"):
        parts.close()
    status, headers, *rest = started
    if status.startswith("200"):
        content = change(content)
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, [*kept, ("Content-Length", str(len(content)))], *rest)
    return [content]


def _without_in_json(content: bytes) -> bytes:
    found = json.loads(content)
    for part in (found, *_parts(found)):
        for name in ATTRIBUTES:
            if name in part:
                part[name] = [each for each in part[name] if each["key"] not in HIDDEN]
    return json.dumps(found).encode()


def _parts(found: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Studies of a list; trials of a study."""
    for name in ("study_summaries", "trials", "best_trials"):
        yield from found.get(name, ())


def _without_in_csv(content: bytes) -> bytes:
    import pandas as pd

    # The csv module would refuse long cells, or let the whole process read them.
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    kept = [name for name in table.columns if name not in HIDDEN_COLUMNS]
    return table.to_csv(columns=kept, index=False, lineterminator="\r\n").encode()
