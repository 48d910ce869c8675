"""Addresses: how they are written, and by which names a server may be called."""

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

import pytest

from deeplab2_edge.errors import OutputError, UsageError
from deeplab2_edge.runtime.serve import parse_address
from deeplab2_edge.runtime.serve.address import (
    Listener,
    is_known_host,
    known_names,
    listen,
    resolve,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8765", ("127.0.0.1", 8765)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("raspberrypi.local:0", ("raspberrypi.local", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":8765", "host", "host:", "::1:80", "65536", "-1", "a:b:1", "8_0", "[]:1"]
    + ["http://host:1", "host:1/x", "٣", "ho st:1", "[::1:80", "999999999999999999"],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected PORT or HOST:PORT"):
        parse_address(text)


def test_the_loopback_is_known() -> None:
    assert resolve("127.0.0.1", 0)[2] and resolve("localhost", 0)[2]
    assert resolve("127.9.9.9", 0)[2] and resolve("::1", 0)[2]
    assert not resolve("0.0.0.0", 0)[2] and not resolve("::", 0)[2]
    assert not resolve("192.0.2.7", 0)[2]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no-such-host.invalid: no such address"):
        resolve("no-such-host.invalid", 80)


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="port is 70000; it must be 0 to 65535"):
        resolve("127.0.0.1", 70000)


def test_a_taken_port_is_refused_with_a_way_out() -> None:
    with _listening("127.0.0.1") as first:
        with pytest.raises(
            OutputError, match=rf"127.0.0.1:{first.port}: .* choose another port"
        ):
            listen("127.0.0.1", first.port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OutputError, match=r"192.0.2.7:0: cannot serve here"):
        listen("192.0.2.7", 0)


def test_all_networks_are_shown_by_an_address_others_can_use() -> None:
    with _listening("0.0.0.0") as listener:
        host, port = listener.location.rsplit(":", 1)
        assert host not in ("0.0.0.0", "") and port == str(listener.port) != "0"


@pytest.mark.parametrize(
    "header",
    ["localhost:9000", "127.0.0.1", "127.0.0.1:8765", "[::1]:8765", "LocalHost."],
)
def test_a_loopback_server_answers_to_its_names(header: str) -> None:
    with _listening("127.0.0.1") as listener:
        assert is_known_host(header, known_names(listener), is_loopback=True)


@pytest.mark.parametrize(
    "header",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8765"]
    + ["192.168.1.5", "[::]", "2130706433", "a@localhost", "localhost@evil.example"],
)
def test_a_loopback_server_answers_to_no_other_name(header: str) -> None:
    with _listening("127.0.0.1") as listener:
        assert not is_known_host(header, known_names(listener), is_loopback=True)


def test_a_server_of_a_network_answers_to_numbers_and_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "RaspberryPi")
    with _listening("0.0.0.0") as listener:
        names = known_names(dataclasses.replace(listener, host="board.lan"))
    for header in ("192.168.1.5:8765", "raspberrypi", "raspberrypi.local", "board.lan"):
        assert is_known_host(header, names, is_loopback=False), header
    for header in ("evil.example", "raspberrypi.evil.example"):
        assert not is_known_host(header, names, is_loopback=False), header


@contextlib.contextmanager
def _listening(host: str) -> Iterator[Listener]:
    listener = listen(host, 0)
    with listener.socket:
        yield listener
