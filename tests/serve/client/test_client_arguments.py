"""What callers of the clients pass: any sequence in its own order, and numbers as strict as the gateway's."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from xt.core.errors import XtError
from xt.serve import AsyncClient, Client
from xt.serve.client import errors as client_errors
from xt.serve.client.encoder import TritonEncoder

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
TEXTS = ["guten morgen welt", "die katze schläft heute", "bonjour tout le monde", "habari za asubuhi", "the cat"]
ORDER = [3, 0, 4, 1, 2]
KINDS = {
    "tuple": tuple,
    "generator": lambda texts: (t for t in texts),
    "numpy": np.array,
    "Series": lambda texts: pandas.Series(texts, index=ORDER),
    "Series from 1": lambda texts: pandas.Series(texts, index=range(1, 6)),
    "pyarrow": pyarrow.array,
    "column": lambda texts: pyarrow.chunked_array([texts[:2], texts[2:]]),
    "dict values": lambda texts: dict(enumerate(texts)).values(),
}


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(client):
    """One request a text: in whatever order they are encoded together, these are the vectors."""
    vectors = np.concatenate([client.encode([text]) for text in TEXTS])
    cosines = vectors @ vectors.T
    assert (cosines - np.eye(5) < 0.999).all()  # so that another text's vector is noticed
    return vectors


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_encodes_a_sequence_of_any_kind_in_its_own_order(kind, server, client, expected):
    def near(found):
        np.testing.assert_allclose(found, expected, atol=1e-5)

    make = KINDS[kind]
    near(client.encode(make(TEXTS)))
    near(client.encode_full(make(TEXTS)).vectors)

    async def awaited():
        async with AsyncClient(server.url) as other:
            return await other.encode(make(TEXTS))

    near(asyncio.run(awaited()))
    served = TritonEncoder(server.url)
    near(served.encode(make(TEXTS)).vectors)
    served.close()


def test_token_ids_of_any_kind_are_rows_in_their_own_order(client):
    rows = [[0, 5, 6, 2], [0, 7, 2, 2], [0, 8, 9, 2]]
    plain = client.encode_full(ids=rows)
    for given in (np.array(rows), pandas.Series(rows, index=[2, 0, 1]), (iter(r) for r in rows), pyarrow.array(rows)):
        np.testing.assert_allclose(client.encode_full(ids=given).vectors, plain.vectors, atol=1e-5)


NOT_SEQUENCES = ["guten morgen", b"guten morgen", {"a": "b"}, {"a", "b"}, pandas.DataFrame({"a": TEXTS}), None, 7]


@pytest.mark.parametrize("texts", NOT_SEQUENCES, ids=lambda v: type(v).__name__)
def test_what_is_no_sequence_of_texts_is_refused_by_every_call(server, client, texts):
    calls = [client.encode, client.encode_full, client.search, client.classify, TritonEncoder(server.url).encode]
    for call in calls:
        with pytest.raises(XtError, match="(texts is|Expected either texts)"):
            call(texts)


def test_none_among_texts_is_named_by_its_place(client):
    with pytest.raises(client_errors.InvalidRequest, match="text 1 is missing"):
        client.encode(pandas.Series(["a", None, "c"], index=[5, 6, 7]))
    with pytest.raises(client_errors.InvalidRequest, match="text_pair 1 is missing"):
        client.classify(["a", "b"], ["c", None])


def test_languages_and_pairs_are_one_for_each_text(client):
    with pytest.raises(client_errors.InvalidRequest, match="There are 2 texts and 3 languages"):
        client.search(["a", "b"], languages=iter(["deu", "eng", "fra"]))
    with pytest.raises(client_errors.InvalidRequest, match="language 1 is None"):
        client.search(["a", "b"], languages=["deu", None])
    with pytest.raises(client_errors.InvalidRequest, match="languages is a set"):
        client.search(["a", "b"], languages={"deu", "eng"})
    with pytest.raises(client_errors.InvalidRequest, match="There are 2 texts and 1 pairs"):
        client.classify(["a", "b"], (t for t in ["c"]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dimensions": 1.9}, "dimensions is 1.9, expected a whole number"),
        ({"dimensions": 8.0}, "dimensions is 8.0"),
        ({"dimensions": True}, "dimensions is True"),
        ({"dimensions": "8"}, "dimensions is '8'"),
        ({"dimensions": 0}, "dimensions is 0"),
        ({"dimensions": 2**63}, "dimensions is 9223372036854775808"),
        ({"truncate": "no"}, "truncate is 'no', expected True or False"),
        ({"truncate": 1}, "truncate is 1"),
        ({"prefix": 5}, "prefix is 5, expected a string"),
        ({"prefix": "\ud800"}, "prefix is not valid Unicode"),
        ({"prefix": "x" * 1000}, "prefix has 1000 characters"),
        ({"dtype": "float64"}, "Unknown dtype 'float64'"),
        ({"dtype": np.int32}, "Unknown dtype 'int32'"),
        ({"dtype": None}, "Unknown dtype 'None'"),
        ({"dtype": 5}, "Unknown dtype"),
    ],
    ids=str,
)
def test_an_option_of_the_wrong_type_is_refused_before_anything_is_sent(client, options, says):
    with pytest.raises(client_errors.InvalidRequest, match=says):
        client.encode(["good"], **options)


def test_options_of_numpy_are_options(client, expected):
    np.testing.assert_allclose(
        client.encode(TEXTS, truncate=np.bool_(True), dimensions=np.int64(32)), expected, atol=1e-5
    )
    assert client.encode(TEXTS, dtype=np.float16).dtype == np.float16
    assert client.encode(TEXTS, dtype=np.dtype("int8")).dtype == np.int8
    assert client.encode([], dimensions=np.int32(8)).shape == (0, 8)


@pytest.mark.parametrize("k", [1.0, "3", True, 0, 101, 2**63, None])
def test_k_is_a_whole_number_that_a_retriever_gives(client, k):
    says = "k is .*expected a whole number from 1 to 100" if k is not None else "Unknown output"
    with pytest.raises(XtError, match=says):
        client.search(["good"], k=k)


@pytest.mark.parametrize("row", [[0, 2**40, 2], [0, 1.7, 2], [0, 1.0, 2], [0, True, 2], [0, -1, 2], ["0", 2]], ids=str)
def test_an_id_that_is_no_int32_is_refused_with_its_place(client, row):
    with pytest.raises(
        client_errors.InvalidRequest, match=r"token id \d of text 1 is .*expected a whole number from 0"
    ):
        client.encode_full(ids=[[0, 5, 2], row])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds is 0, expected seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds is inf"),
        ({"timeout_seconds": "60"}, "timeout_seconds is '60'"),
        ({"timeout_seconds": True}, "timeout_seconds is True"),
        ({"wait_seconds": -1}, "wait_seconds is -1"),
        ({"retries": 2.0}, "retries is 2.0, expected a whole number"),
        ({"retries": -1}, "retries is -1"),
        ({"in_flight": 0}, "in_flight is 0"),
        ({"in_flight": 1.5}, "in_flight is 1.5"),
        ({"model": 5}, "model is 5, expected a string"),
        ({"headers": ["a"]}, "headers is list"),
        ({"headers": {"a": 5}}, "header 'a' is no printable ASCII"),
        ({"admin_key": "short"}, "admin key of admin_key must be 16"),
    ],
    ids=str,
)
def test_both_clients_check_what_they_are_made_with(server, options, says):
    for kind in (Client, AsyncClient):
        with pytest.raises(XtError, match=says):
            kind(server.url, **options)


@pytest.mark.parametrize(
    "url", [5, None, "", "host", "host:0", "host:70000", "a b:80", "::1:8001", "http://h:1", "h:-1"]
)
def test_an_address_that_is_none_is_refused(url):
    for kind in (Client, AsyncClient, TritonEncoder):
        with pytest.raises(XtError, match="is no address"):
            kind(url)
