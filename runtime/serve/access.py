"""Who may look: tokens, and how often an address may ask."""

import hmac
import ipaddress
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from deeplab2_edge.errors import UsageError

# A token made here has 128 bits.
_TOKEN_BYTES = 16
_MIN_TOKEN = 12
# What needs no escape in an address and is a legal value of a cookie.
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{{_MIN_TOKEN},256}}")
_PURPOSE = b"cookie of the live view"
# Addresses that are remembered; the one not seen for longest is forgotten.
_MAX_ADDRESSES = 1024


class Gate:
    """Knows who has the token.

    A browser shows the token once, in the address, and gets a cookie. Browsers send
    cookies to all ports of a host, so this one holds what follows from the token, but
    not the token. It stays valid when a run with the same token starts again.

    Args:
        token: Letters, digits and `-._~`, at least 12; `auto` makes one; None lets
            everyone in.

    Raises:
        UsageError: If the token is too short or has other characters.
    """

    def __init__(self, token: str | None) -> None:
        if token == "auto":
            token = secrets.token_urlsafe(_TOKEN_BYTES)
        if token is not None and not _TOKEN.fullmatch(token):
            raise UsageError(
                f"the token has {len(token)} characters; expected at least "
                f"{_MIN_TOKEN}, only letters, digits, '-', '.', '_' and '~'; 'auto' "
                "makes a good one"
            )
        self.token = token
        self.session = hmac.new((token or "").encode(), _PURPOSE, "sha256").hexdigest()

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return self.token is None

    def knows_token(self, given: str | None) -> bool:
        """Compares a token in constant time."""
        return self.token is not None and _is_equal(given, self.token)

    def knows_session(self, given: str | None) -> bool:
        """Compares the value of a cookie in constant time."""
        return self.token is not None and _is_equal(given, self.session)


class Allowance:
    """Counts what each address may still ask for: so many per second, twice in a burst.

    IPv6 addresses of one network of 64 bits count as one, since a single machine may
    use all of them.

    Args:
        per_second: How many.
        clock: Seconds; for tests.
    """

    def __init__(
        self, per_second: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = 2 * per_second
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Takes one; False if the address has used up its share."""
        key, now = _network(address), self._clock()
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        is_granted = left >= 1
        self._left[key] = (left - is_granted, now)
        if len(self._left) > _MAX_ADDRESSES:
            self._left.popitem(last=False)
        return is_granted


def _is_equal(given: str | None, secret: str) -> bool:
    return hmac.compare_digest((given or "").encode(), secret.encode())


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
