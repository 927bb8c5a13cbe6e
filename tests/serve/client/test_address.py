"""Where a server is, and the headers that open its restricted calls."""

from __future__ import annotations

import pytest

from xt.core.errors import XtError
from xt.serve.client.address import admin_headers, split_address


def test_a_key_that_is_empty_sends_none_as_the_gateway_asks():
    assert admin_headers("127.0.0.1:9", "") == {}


def test_a_key_that_is_given_is_sent_and_one_too_short_is_refused():
    assert list(admin_headers("127.0.0.1:9", "k" * 16).values()) == ["k" * 16]
    with pytest.raises(XtError, match="16 to 256"):
        admin_headers("127.0.0.1:9", "short")


@pytest.mark.parametrize(
    ("address", "parts"), [("127.0.0.1:8001", ("127.0.0.1", 8001)), ("[::1]:80", ("[::1]", 80)), ("a.b:1", ("a.b", 1))]
)
def test_an_address_is_a_host_and_a_port(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["nowhere", ":8001", "127.0.0.1:", "127.0.0.1:http"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(XtError, match="is no address"):
        split_address(address)
