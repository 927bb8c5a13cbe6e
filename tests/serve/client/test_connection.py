"""The headers that open a server's restricted calls."""

from __future__ import annotations

import pytest

from xt.core.errors import XtError
from xt.serve.client.address import admin_headers


def test_a_key_that_is_empty_sends_none_as_the_gateway_asks():
    assert admin_headers("127.0.0.1:9", "") == {}


def test_a_key_that_is_given_is_sent_and_one_too_short_is_refused():
    assert list(admin_headers("127.0.0.1:9", "k" * 16).values()) == ["k" * 16]
    with pytest.raises(XtError, match="16 to 256"):
        admin_headers("127.0.0.1:9", "short")
