"""Triton's metrics, of a real server and by hand."""

from __future__ import annotations

import time

import pytest

import xt.serve
from xt.serve.client.metrics import add_up, fetch, model_names, samples
from xt.serve.triton.addresses import free_ports


def test_a_real_page_counts_the_requests_of_each_model(server):
    url = f"http://127.0.0.1:{server.ports.metrics}/metrics"

    def requests():
        return add_up(fetch(url, 5), lambda name, labels: f"{name} {labels.get('model')}").get(
            "nv_inference_request_success encoder", 0
        )

    def settled():  # Triton counts a request a little after its answer
        last, count = -1.0, requests()
        while count != last:
            time.sleep(0.3)
            last, count = count, requests()
        return count

    before = settled()
    with xt.serve.Client(server.url) as client:
        for text in ("good", "good morning", "good evening"):
            client.encode([text])
    assert settled() - before == 3
    assert model_names(fetch(url, 5)) == ["encoder"]


def test_samples_keep_their_labels_and_what_is_no_sample_is_left_out():
    page = '# TYPE a counter\na{x="1",y="a \\"b\\", c"} 2\nb 0.5\nb nan_or_so\nb 1 1700000000\n\nc{} 1e3\n'
    assert list(samples(page)) == [("a", {"x": "1", "y": 'a \\"b\\", c'}, 2.0), ("b", {}, 0.5), ("c", {}, 1000.0)]
    assert add_up('a{x="1"} 1\na{x="2"} 2\n', lambda name, labels: name) == {"a": 3.0}


def test_a_page_that_cannot_be_had_is_an_oserror():
    (free,) = free_ports(1)
    with pytest.raises(OSError, match="refused"):
        fetch(f"http://127.0.0.1:{free}/metrics", 1)
