"""Tokens, and how often an address may ask."""

import pytest

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime.serve.access import Allowance, Gate

TOKEN = "a-token-of-25-characters."


def test_only_the_token_opens() -> None:
    gate = Gate(TOKEN)
    assert gate.knows_token(TOKEN) and gate.knows_session(gate.session)
    for wrong in (None, "", TOKEN[:-1], TOKEN + "x", "é", gate.session):
        assert not gate.knows_token(wrong)
    for wrong in (None, "", TOKEN):
        assert not gate.knows_session(wrong)


def test_the_cookie_outlives_a_restart_and_does_not_hold_the_token() -> None:
    first, second, other = Gate(TOKEN), Gate(TOKEN), Gate("another-token")
    assert first.session == second.session != other.session
    assert TOKEN not in first.session


def test_without_a_token_everyone_comes_in_but_nothing_is_a_token() -> None:
    gate = Gate(None)
    assert gate.is_open
    assert not gate.knows_token("") and not gate.knows_token(None)
    assert not gate.knows_session(gate.session)


def test_tokens_are_made_long_and_different() -> None:
    first, second = Gate("auto").token, Gate("auto").token
    assert first is not None and first != second and len(first) >= 22


@pytest.mark.parametrize(
    "token", ["", "short", "with space in it", "x" * 300, "a;b" * 9]
)
def test_bad_tokens_are_refused_without_being_told(token: str) -> None:
    with pytest.raises(UsageError, match="'auto' makes a good one") as caught:
        Gate(token)
    assert not token or token not in str(caught.value)


def test_an_address_has_a_share_that_comes_back() -> None:
    now = [0.0]
    allowance = Allowance(10, clock=lambda: now[0])
    assert [allowance.take("192.0.2.1") for _ in range(22)] == [True] * 20 + [False] * 2
    assert allowance.take("192.0.2.2")
    now[0] = 0.25
    assert [allowance.take("192.0.2.1") for _ in range(3)] == [True, True, False]
    now[0] = 1000.0
    assert sum(allowance.take("192.0.2.1") for _ in range(50)) == 20


def test_addresses_of_one_ipv6_network_share() -> None:
    allowance = Allowance(1, clock=lambda: 0.0)
    assert allowance.take("2001:db8::1") and allowance.take("2001:db8::2")
    assert not allowance.take("2001:db8::3")
    assert allowance.take("2001:db8:0:1::1")
    assert allowance.take("::ffff:192.0.2.1") and allowance.take("192.0.2.1")
    assert not allowance.take("192.0.2.1")


def test_few_addresses_are_remembered() -> None:
    allowance = Allowance(1, clock=lambda: 0.0)
    for number in range(5000):
        allowance.take(f"10.0.{number // 256}.{number % 256}")
    assert len(allowance._left) <= 1024
