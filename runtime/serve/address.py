"""Where a live view listens, and under which names it may be asked for."""

import ipaddress
import socket
from dataclasses import dataclass

from deeplab2_edge.errors import OutputError, UsageError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765

_MAX_PORT = 65535
# Connections that wait to be accepted; more are refused by the kernel.
_BACKLOG = 32
# Answers wait in buffers of the kernel, too. Small ones keep a slow client's picture
# recent and its share of memory bounded.
_SEND_BUFFER_BYTES = 256 * 1024
# Of the documentation range: a route is looked up for it, nothing is sent.
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def parse_address(text: str) -> tuple[str, int]:
    """Reads `PORT` or `HOST:PORT`, an IPv6 address in brackets.

    Args:
        text: `8765`, `0.0.0.0:8765`, `raspberrypi:80`, `[::1]:8765`; port 0 is any
            free one.

    Returns:
        Host (`127.0.0.1` if none is given) and port.

    Raises:
        UsageError: If it is neither.

    Example:
        >>> parse_address("8765"), parse_address("[::]:80")
        (('127.0.0.1', 8765), ('::', 80))
    """
    host, colon, port = text.strip().rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    is_number = port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT))
    is_host = bool(host) and (is_bracketed or not any(c in host for c in ":[]/ "))
    if not is_number or int(port) > _MAX_PORT or (colon and not is_host):
        raise UsageError(
            f"{text!r} is no address to serve at; expected PORT or HOST:PORT with a "
            f"port up to {_MAX_PORT}, such as 8765, 0.0.0.0:8765 or [::1]:8765"
        )
    return (host if colon else DEFAULT_HOST), int(port)


@dataclass(frozen=True, eq=False)
class Listener:
    """Is a socket that listens.

    Attributes:
        socket: Bound and listening, not blocking.
        host: As the user wrote it.
        port: Also where the system chose it.
        location: `host:port` for a browser, also one on another machine.
        is_loopback: Whether only programs of this machine reach it.
    """

    socket: socket.socket
    host: str
    port: int
    location: str
    is_loopback: bool


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int], bool]:
    """Finds the family and the address of a host, and whether it is the loopback.

    Raises:
        UsageError: If the port is out of range or the name is unknown.
    """
    if not 0 <= port <= _MAX_PORT:
        raise UsageError(f"port is {port}; it must be 0 to {_MAX_PORT}")
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"{host}: no such address ({error}); 127.0.0.1 serves this machine alone, "
            "0.0.0.0 all networks it is in"
        ) from None
    family, _, _, _, address = found[0]
    is_loopback = all(
        ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback
        for entry in found
    )
    return family, (str(address[0]), port), is_loopback


def listen(host: str, port: int) -> Listener:
    """Opens the socket.

    Raises:
        UsageError: As `resolve`.
        OutputError: If the port is taken or must not be used.
    """
    family, address, is_loopback = resolve(host, port)
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last connections are just closing may be used again.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        opened.bind(address)
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise OutputError(
            f"{host}:{port}: cannot serve here ({error.strerror}); "
            + _advice(error, port)
        ) from error
    bound, port = opened.getsockname()[:2]
    is_any = ipaddress.ip_address(bound.partition("%")[0]).is_unspecified
    shown = _outward_address(family) if is_any else host
    location = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
    return Listener(opened, host, port, location, is_loopback)


def known_names(listener: Listener) -> frozenset[str]:
    """Lists the names, in lower case, that a request may call this server by.

    Numbers are judged by `is_known_host`.
    """
    if listener.is_loopback:
        return frozenset({"localhost"})
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    names = {"localhost", own, short, f"{short}.local", listener.host.lower()}
    return frozenset(names - {""})


def is_known_host(header: str, names: frozenset[str], *, is_loopback: bool) -> bool:
    """Says whether a `Host` header names this server.

    A page of a foreign name that is made to lead here (DNS rebinding) does not. A
    number cannot be rebound, so any will do if the network may connect at all. The
    port is not looked at: a tunnel has one of its own.
    """
    host = header.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    else:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.removesuffix(".") in names
    return address.is_loopback or not is_loopback


def _outward_address(family: socket.AddressFamily) -> str:
    """Gives the address by which other machines know this one, or else its name."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_SOMEWHERE[family], 9))
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def _advice(error: OSError, port: int) -> str:
    if isinstance(error, PermissionError):
        return "ports below 1024 belong to the system, choose a higher one"
    return f"choose another port than {port}, or 0 for any free one"
