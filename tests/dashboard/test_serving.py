"""The server: whom it answers, where it listens, and that nobody waits for another."""

import http.client
import socket
import threading
from contextlib import contextmanager

import pytest

from studies.dashboard import server
from studies.dashboard.server import find_place, listen
from studies.errors import UserError


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@contextmanager
def running(app=hello, host="127.0.0.1"):
    with listen(find_place(host), 18300, app) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, headers, method="GET", body=None):
    """Exactly these headers, Host included."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, "/", skip_host=True, skip_accept_encoding=True)
    if body is not None:
        headers = {**headers, "Content-Length": len(body)}
    for key, value in headers.items():
        connection.putheader(key, value)
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response, content


HERE = socket.gethostname()
HOSTS = [
    ("127.0.0.1", "127.0.0.1:8080", True),
    ("127.0.0.1", "localhost", True),
    ("127.0.0.1", "LocalHost.:1", True),
    ("127.0.0.1", "[::1]:8080", True),
    ("127.0.0.1", "evil.example:8080", False),
    ("127.0.0.1", "localhost.evil.example", False),
    ("127.0.0.1", "localhost@evil.example", False),
    ("127.0.0.1", "evil.example@localhost", False),
    ("127.0.0.1", "localhost,evil.example", False),
    ("127.0.0.1", "localhost:8080:8080", False),
    ("127.0.0.1", "10.0.0.9", False),
    ("127.0.0.1", HERE, False),
    ("127.0.0.1", "", False),
    ("127.0.0.1", None, False),
    ("0.0.0.0", f"{HERE.upper()}:8080", True),
    ("0.0.0.0", "10.0.0.9:8080", True),
    ("0.0.0.0", "[fe80::1]", True),
    ("0.0.0.0", "localhost", True),
    ("0.0.0.0", "evil.example", False),
    ("0.0.0.0", "10.0.0.9.evil.example", False),
    ("0.0.0.0", None, False),
    ("127.0.0.2", "127.0.0.2:8080", True),
    ("127.0.0.2", "127.0.0.3", False),
]


@pytest.mark.parametrize(("host", "header", "answered"), HOSTS)
def test_only_names_of_this_place_are_answered(host, header, answered):
    assert find_place(host).answers_to(header) is answered


def test_a_name_given_as_host_is_answered(monkeypatch):
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [address])
    place = find_place("Lab-PC.example")
    assert place.answers_to("lab-pc.example:8080") and place.answers_to("192.0.2.7")
    assert not place.answers_to("evil.example") and not place.is_local


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.example"}, 403),
        ({}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost:1", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:1", "Origin": "null"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_another_site_asks_for_never_reaches_the_application(headers, status, method):
    asked = []

    def app(environ, start_response):
        asked.append(environ["REQUEST_METHOD"])
        return hello(environ, start_response)

    with running(app) as server:
        response, content = ask(server, headers, method, body=b"{}")
    assert response.status == status and asked == [method] * (status == 200)
    assert "evil" not in content
    assert response.headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]


def test_requests_are_answered_at_the_same_time():
    both_are_here = threading.Barrier(2, timeout=10)

    def app(environ, start_response):
        both_are_here.wait()
        return hello(environ, start_response)

    answers = []
    with running(app) as server:
        clients = [
            threading.Thread(target=lambda: answers.append(ask(server, {"Host": "localhost"})))
            for _ in range(2)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert [content for _, content in answers] == ["hello", "hello"]


def test_a_client_that_says_nothing_or_goes_away_harms_nobody(capsys):
    with running() as server:
        address = ("127.0.0.1", server.server_port)
        with socket.create_connection(address), socket.create_connection(address) as gone:
            gone.sendall(b"GET / HT")
            gone.close()
            assert ask(server, {"Host": "localhost"})[1] == "hello"
    assert capsys.readouterr() == ("", "")


def test_a_taken_port_moves_on_to_the_next():
    with running() as first, running() as second:
        assert 18300 <= first.server_port < second.server_port < 18400
        assert second.url == f"http://127.0.0.1:{second.server_port}/"


def test_no_free_port_is_an_error(monkeypatch):
    monkeypatch.setattr(server, "NUM_PORTS", 1)
    with running() as first, pytest.raises(UserError, match="taken; name another with --port"):
        listen(find_place("127.0.0.1"), first.server_port, hello)


@pytest.mark.parametrize(
    "host", ["", "nowhere.invalid", "http://localhost/", "a" * 300, "8.8.8.8"]
)
def test_a_host_that_is_not_this_machine_is_an_error(host):
    with pytest.raises(UserError, match="--host must be") as error:
        listen(find_place(host), 18300, hello)
    assert "\n" not in str(error.value)


def test_a_port_without_permission_is_an_error(monkeypatch):
    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(server, "Server", refused)
    with pytest.raises(UserError, match="--port 80: Permission denied; take one from 1024 on"):
        listen(find_place("127.0.0.1"), 80, hello)


@pytest.mark.parametrize(
    ("host", "local", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:80/"),
        ("localhost", True, "http://localhost:80/"),
        ("::1", True, "http://[::1]:80/"),
        ("[::1]", True, "http://[::1]:80/"),
        ("0.0.0.0", False, "http://127.0.0.1:80/"),
        ("::", False, "http://[::1]:80/"),
        ("0", False, "http://127.0.0.1:80/"),
    ],
)
def test_a_place_knows_whether_others_can_reach_it(host, local, url):
    place = find_place(host)
    assert (place.is_local, place.url(80)) == (local, url)
