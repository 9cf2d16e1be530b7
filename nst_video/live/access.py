"""Who may reach the web page of a live session: where it listens, and which requests it refuses."""

import errno
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import parse_qs, quote, urlsplit

from nst_video.errors import ResourceError


def listening(host: str, port: int) -> tuple[socket.socket, bool]:
    """A socket that listens, and whether only this machine can reach it. ResourceError where it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server(address, family=family, dualstack_ipv6=both)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        advice = {
            errno.EADDRINUSE: "another program uses it; choose another port with --serve",
            errno.EACCES: "the system does not allow it; choose a port above 1023 with --serve",
        }.get(number or 0, f"{getattr(error, 'strerror', None) or error}; choose --host and --serve otherwise")
        raise ResourceError(f"port {port} of {host} cannot be had: {advice}") from None
    return listening, ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def url(listening: socket.socket, token: str) -> str:
    """The address to open in a browser, with the token."""
    address, port = listening.getsockname()[:2]
    address = _own_address(address) if ipaddress.ip_address(address).is_unspecified else address
    shown = f"[{address}]" if ":" in address else address
    return f"http://{shown}:{port}/?token={quote(token, safe='')}"


def refusal(path: str, hosts: Sequence[str], origins: Sequence[str], *, only_here: bool, token: str) -> str | None:
    """Why a request is refused, None where it is not: its path with the query, its headers Host and Origin.

    >>> refusal("/?token=secret", ["evil.example:8080"], [], only_here=True, token="secret")
    'this page is only for this machine'
    >>> refusal("/?token=guess", ["192.0.2.7:8080"], [], only_here=False, token="secret")
    'the address needs the token that the terminal shows'
    >>> refusal("/live?token=secret", ["localhost:8080"], ["http://evil.example"], only_here=True, token="secret")
    'not from another page'
    """
    host = hosts[0] if len(hosts) == 1 else ""
    if not host or (only_here and not _names_this_machine(host)):
        # A page from elsewhere whose name was made to point here (DNS rebinding) still says its own name.
        return "this page is only for this machine"
    # Also where only this machine can reach the page: its other accounts can too.
    if not _same(token, parse_qs(path.partition("?")[2]).get("token", [""])[-1]):
        return "the address needs the token that the terminal shows"
    if any(origin.partition("://")[2] != host for origin in origins):
        return "not from another page"
    return None


def _names_this_machine(host: str) -> bool:
    """Whether a Host header names this machine as itself. At any port: it may come through a tunnel."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(token: str, given: str) -> bool:
    return hmac.compare_digest(token.encode(), given.encode())


def _own_address(unspecified: str) -> str:
    """This machine's address in its network, for an address to show; no packet is sent to find it."""
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in unspecified else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((elsewhere, 9))
        except OSError:
            return "::1" if ":" in unspecified else "127.0.0.1"
        return str(probe.getsockname()[0])
