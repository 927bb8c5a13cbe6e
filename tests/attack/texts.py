"""Attacks by what a text holds, the same over the gateway and over Triton's HTTP; and on search and rerank."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.attack.harness import (
    ANSWER,
    EITHER,
    REFUSE,
    Answer,
    Attack,
    Target,
    call,
    embed,
    finite,
    infer_body,
    same_as,
    vectors_of,
)

EMPTY = {
    "nothing": "",
    "blanks": "   ",
    "tabs and line ends": "\t\n\r\n",
    "no-break and ideographic spaces": "\u00a0\u3000\u2003",
    "zero width spaces": "\u200b\u200b",
    "a byte order mark": "\ufeff",
    "direction marks": "\u200e\u200f\u202a\u202c",
    "soft hyphens": "\u00ad\u00ad",
    "control characters": "\x01\x02\x1f\x7f",
    "replacement characters": "\ufffd\ufffd",
    "a mixture of these": " \u200b\x01\ufffd\ufeff\n",
    "word joiners": "\u2060\u2061",
    "language tags": "\U000e0001\U000e0065",
}
"""What holds nothing to read: white space, control and format characters, replacement characters."""
READABLE = {
    "one letter": "a",
    "one digit": "7",
    "one sign": "?",
    "one ideograph": "猫",
    "an emoji of five parts": "👩\u200d👩\u200d👧\u200d👦",
    "a flag": "🇰🇪",
    "a zero width non-joiner in Persian": "می\u200cخواهم بروم",
    "a letter under forty marks": "e" + "\u0301" * 40,
    "right to left override": "abc \u202e def",
    "an unassigned plane": "\U0010ffff\U0001f9ff text",
    "private use": "\ue000 text",
    "special tokens": "<s> </s> <pad> <mask> <unk>",
    "a prefix of its own": "query: passage: query:",
    "markup": "<script>alert(1)</script>",
    "SQL": "'; DROP TABLE documents; --",
    "a format string": "%s %n {0} ${jndi:ldap://x}",
    "a path": "../../../etc/passwd",
    "a replacement character inside": "caf\ufffd au lait",
    "line ends inside": "one\r\ntwo\u2028three",
    "400 ideographs without a blank": "猫" * 30,
    "a byte order mark in front": "\ufeffguten morgen",
}
LONG = {"20,000 words": "word " * 20_000, "a word of 300,000 letters": "a" * 300_000, "5,000 emoji": "🙂 " * 5000}
COMPOSED = ("Tiếng Việt rất đẹp", "안녕하세요 세계", "Ça déjà vu à Zürich", "हिन्दी क़लम", "Ελληνικά ά έ")


def triton(data: list[Any], **more: Any) -> Callable[[Target], Answer]:
    """Return what posts texts to Triton's HTTP."""
    body = infer_body({"name": "text", "datatype": "BYTES", "shape": [len(data), 1], "data": data}, **more)
    return lambda target: call(target.http, "POST", "/v2/models/encoder/infer", body)


def gateway(texts: list[str], **more: Any) -> Callable[[Target], Answer]:
    """Return what posts texts to the gateway."""
    return embed({"model": "encoder", "input": texts, **more})


def decomposed(answer: Answer, target: Target) -> str:
    """Check that both forms of each text have one vector."""
    found = vectors_of(answer)
    half = len(found) // 2
    return "" if (found[:half] == found[half:]).all() else "a decomposed text has a vector of its own"


def was_cut(answer: Answer, target: Target) -> str:
    """Check that the answer says which text was cut."""
    return finite()(answer, target) or (
        "" if answer.json.get("truncated") == [0] else "it does not say that it was cut"
    )


BOTH = [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in COMPOSED]
TEXTS = [
    *[Attack("empty texts", f"{name} (gateway)", REFUSE, gateway([text])) for name, text in EMPTY.items()],
    *[Attack("empty texts", f"{name} (Triton)", REFUSE, triton([text])) for name, text in EMPTY.items()],
    Attack("empty texts", "the third of three", REFUSE, gateway(["a", "b", "\u200b"]), says="2"),
    *[Attack("odd texts", f"{name} (gateway)", ANSWER, gateway([text]), finite()) for name, text in READABLE.items()],
    *[Attack("odd texts", f"{name} (Triton)", ANSWER, triton([text])) for name, text in READABLE.items()],
    *[
        Attack("long texts", name, REFUSE, gateway([text]), says="token", slow="letters" in name)
        for name, text in LONG.items()
    ],
    *[
        Attack("long texts", f"{name}, cut", ANSWER, gateway([text], truncate=True), was_cut, slow="letters" in name)
        for name, text in LONG.items()
    ],
    Attack(
        "long texts", "a long one among good ones", REFUSE, gateway(["a", LONG["20,000 words"], "b"]), says="text 1"
    ),
    Attack("odd texts", "a NUL (gateway)", REFUSE, gateway(["a\0b"]), says="NUL"),
    Attack("odd texts", "a NUL (Triton)", REFUSE, triton(["a\0b"]), says="NUL"),
    Attack("odd texts", "half of a surrogate pair", REFUSE, embed('{"model": "encoder", "input": ["a \\ud83d b"]}')),
    Attack(
        "odd texts",
        "an escaped surrogate pair",
        ANSWER,
        embed('{"model": "encoder", "input": ["a \\ud83d\\ude42 b", "a 🙂 b"]}'),
        lambda a, t: "" if (vectors_of(a)[0] == vectors_of(a)[1]).all() else "not the vector of the character",
    ),
    Attack("odd texts", "decomposed characters", ANSWER, gateway(BOTH), decomposed),
    Attack("odd texts", "1,500 texts at once", ANSWER, lambda t: gateway(t.texts[:1] * 1500)(t), same_as(*[0] * 1500)),
    Attack("odd texts", "the same text four times", ANSWER, lambda t: gateway(t.texts[:1] * 4)(t), same_as(0, 0, 0, 0)),
    Attack("odd texts", "texts in another order", ANSWER, lambda t: gateway(t.texts[3::-1])(t), same_as(3, 2, 1, 0)),
]


def search(body: Any) -> Callable[[Target], Answer]:
    """Return what posts a body to the gateway's search."""
    return lambda target: call(target.gateway, "POST", "/search", body)


def rerank(body: Any) -> Callable[[Target], Answer]:
    """Return what posts a body to the gateway's rerank."""
    return lambda target: call(target.gateway, "POST", "/rerank", body)


def distinct_ids(answer: Answer, target: Target) -> str:
    """Check that no document is given twice, best first."""
    (one,) = answer.json["answers"]
    ids, scores = [r["id"] for r in one["results"]], [r["score"] for r in one["results"]]
    return "" if len(set(ids)) == len(ids) > 0 and scores == sorted(scores, reverse=True) else f"ids {ids}"


DOCUMENTS = ["good morning world", "the cat sleeps today", "we eat bread and cheese", "the house is very big"]


def rerank_orders(target: Target) -> Answer:
    """Ask for the same four documents in four orders; the answers have to be one."""
    seen, last = [], Answer(0)
    for shift in range(4):
        documents = DOCUMENTS[shift:] + DOCUMENTS[:shift]
        last = rerank({"query": "guten morgen welt", "documents": documents})(target)
        if last.status != 200:
            return last
        seen.append({r["document"]: (r["score"], r["probability"]) for r in last.json["results"]})
    keys = seen[0].keys()
    same = all(
        s.keys() == keys and np.allclose([s[k] for k in keys], [seen[0][k] for k in keys], atol=1e-6) for s in seen
    )
    return last if same else Answer(200, json.dumps({"differ": [list(s.items()) for s in seen]}).encode())


SEARCH = [
    *[
        Attack("search", name, REFUSE, search(body))
        for name, body in {
            "no query": {},
            "query and queries": {"query": "a", "queries": ["b"]},
            "queries empty": {"queries": []},
            "2,049 queries": {"queries": ["a"] * 2049},
            "query null": {"query": None},
            "query a list": {"query": ["a"]},
            "queries a string": {"queries": "a"},
            "query blank": {"query": " \u200b"},
            "one query of two blank": {"queries": ["a", " "]},
            "query too long": {"query": "word " * 20_000},
            "k 0": {"query": "a", "k": 0},
            "k -1": {"query": "a", "k": -1},
            "k 2**63": {"query": "a", "k": 2**63},
            "k 2**31": {"query": "a", "k": 2**31},
            "k 1.5": {"query": "a", "k": 1.5},
            "k a string": {"query": "a", "k": "3"},
            "k of 5,000 digits": f'{{"query": "a", "k": {"9" * 5000}}}',
            "language of 1 MB": {"query": "a", "language": "d" * 1_000_000},
            "language a lone surrogate": '{"query": "a", "language": "\\ud800"}',
            "language a list": {"query": "a", "language": ["deu"]},
            "model of another kind": {"query": "a", "model": "encoder"},
            "200,000 objects for queries": {"queries": [{}] * 200_000},
            "an unknown field": {"query": "a", "filter": {}},
        }.items()
    ],
    *[
        Attack("search", name, ANSWER, search(body), distinct_ids)
        for name, body in {
            "k null": {"query": "guten morgen welt", "k": None},
            "language null": {"query": "guten morgen welt", "language": None},
            "k of all documents": {"query": "guten morgen welt", "k": 100},
            "a query decomposed": {"query": unicodedata.normalize("NFD", "das haus ist sehr groß")},
        }.items()
    ],
    Attack("search", "a language unknown to the calibration", EITHER, search({"query": "a", "language": "tlh"})),
    *[
        Attack("rerank", name, REFUSE, rerank(body))
        for name, body in {
            "no query": {"documents": DOCUMENTS},
            "no documents": {"query": "a"},
            "documents empty": {"query": "a", "documents": []},
            "documents and texts": {"query": "a", "documents": ["b"], "texts": ["b"]},
            "documents objects": {"query": "a", "documents": [{"text": "b"}]},
            "a document blank": {"query": "a", "documents": ["b", "\ufffd"]},
            "top_n 0": {"query": "a", "documents": ["b"], "top_n": 0},
            "top_n 2**64": {"query": "a", "documents": ["b"], "top_n": 2**64},
            "2,049 documents": {"query": "a", "documents": ["b"] * 2049},
            "a document too long": {"query": "a", "documents": ["b", "word " * 20_000]},
        }.items()
    ],
    Attack("rerank", "top_n null", ANSWER, rerank({"query": "a", "documents": DOCUMENTS, "top_n": None})),
    Attack(
        "rerank",
        "four documents in four orders",
        ANSWER,
        rerank_orders,
        lambda a, t: "" if "differ" not in a.json else f"other probabilities: {str(a.json)[:300]}",
    ),
]
ATTACKS = [*TEXTS, *SEARCH]
