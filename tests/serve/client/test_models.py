"""What a server says of its models is read as they were exported, and the one that is meant is found."""

from __future__ import annotations

import pytest

import xt.serve
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.serve.client.encoder import TritonEncoder
from xt.serve.client.errors import Unreachable
from xt.serve.client.models import choose_default, describe, ready_names


def config(*outputs, xt='{"precision": "fp32"}'):
    parameters = {} if xt is None else {"xt": {"string_value": xt}}
    return {"name": "m", "output": [{"name": o} for o in outputs], "parameters": parameters, "max_batch_size": 8}


def test_both_clients_say_of_a_model_what_was_exported(server, tiny_repository):
    facts = open_artifact(tiny_repository / "encoder", kind="model").facts
    encoder = TritonEncoder(server.url)
    with xt.serve.Client(server.url) as client:
        for served in (client.served, client.describe("encoder"), encoder.served):
            assert (served.name, served.kind) == ("encoder", "encoder")
            assert served.facts["precision"] == facts["precision"]
            assert served.facts["encoder"] == facts["encoder"]
            assert {"embedding", "tokens", "truncated"} <= set(served.outputs)
    encoder.close()


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        (("tokens", "embedding"), "encoder"),
        (("ids", "scores"), "retriever"),
        (("label", "answer"), "classifier"),
        (("answer",), "reader"),
    ],
)
def test_the_kind_is_known_by_the_outputs(outputs, kind):
    assert describe(config(*outputs), "a:1").kind == kind


def test_what_is_no_model_of_xt_is_refused():
    with pytest.raises(XtError, match="was not made by xt"):
        describe(config("embedding", xt=None), "a:1")
    with pytest.raises(XtError, match="no kind that xt knows"):
        describe(config("logits"), "a:1")


def test_the_default_is_the_only_model_or_encoder():
    assert choose_default(["one"], "a:1") == "one"
    assert choose_default(["a", "encoder"], "a:1") == "encoder"
    for names in (["a", "b"], []):
        with pytest.raises(XtError, match="Choose one|no model"):
            choose_default(names, "a:1")


def test_a_list_whose_models_are_all_loading_is_of_a_server_that_is_not_ready():
    index = {"models": [{"name": "a", "state": "LOADING"}, {"name": "b", "state": "UNAVAILABLE"}]}
    with pytest.raises(Unreachable, match="a loading, b unavailable"):
        ready_names(index, "a:1")
    assert ready_names({"models": [*index["models"], {"name": "c"}]}, "a:1") == ["c"]
    assert ready_names({}, "a:1") == []
