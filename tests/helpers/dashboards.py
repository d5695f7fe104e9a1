"""A dashboard that is served from a thread of the test, and requests to it."""

import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

from studies.dashboard.server import open_server


@contextmanager
def running(database, *, read_only=False, host="127.0.0.1", port=18400, said=None):
    announce = (said if said is not None else []).append
    with open_server(
        str(database), port, host=host, read_only=read_only, announce=announce
    ) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, path, method="GET", body=None, **headers):
    """Status, headers and content of the answer."""
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(
        server.url + path, data=content, headers=headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def shown_studies(server):
    status, _, content = ask(server, "api/studies")
    assert status == 200
    return [entry["study_name"] for entry in json.loads(content)["study_summaries"]]


def detail(server):
    status, _, content = ask(server, "api/studies/1")
    assert status == 200
    return json.loads(content)
