"""Requests built beforehand are those that tritonclient builds; over HTTP a real server reads them (`xt.bench`).

Tests `serve/client/packed.py` as well.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import grpc as rpc
import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from xt.core.errors import XtError
from xt.serve.client.address import channel_options
from xt.serve.client.packed import unpack
from xt.serve.client.prepared import OUTPUTS, Requests, Rows

TEXTS = ["guten Morgen", "привет", "世界", "a"]
IDS = [np.array([0, 5, 2]), np.array([0, 7, 8, 9, 2]), np.array([0, 2]), np.array([0, 4, 2])]


def tensor(name, data, datatype):
    made = grpc.InferInput(name, list(data.shape), datatype)
    made.set_data_from_numpy(data)
    return made


EXPECTED = {
    "text": lambda: tensor("text", np.array([[TEXTS[2].encode()], [TEXTS[0].encode()]], np.object_), "BYTES"),
    "ids": lambda: tensor("ids", np.array([[0, 2, -1], [0, 5, 2]], np.int32), "INT32"),
}


def sent_by_tritonclient(made, parameters):
    """The message that tritonclient sends, as a server gets it."""
    sent = []

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelInfer(self, request, context):
            sent.append(request)
            return service_pb2.ModelInferResponse()

    server = rpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = grpc.InferenceServerClient(f"127.0.0.1:{port}", channel_args=channel_options(f"127.0.0.1:{port}"))
    try:
        outputs = [grpc.InferRequestedOutput(name) for name in OUTPUTS]
        client.infer("encoder", [made], outputs=outputs, parameters=parameters)
    finally:
        client.close()
        server.stop(None).wait()
    return sent[0]


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_message_of_grpc_is_tritonclients_own(kind):
    parameters = {"truncate": True, "prefix": "query", "dimensions": 8}
    requests = Requests("encoder", Rows(kind, TEXTS, IDS), parameters)
    expected = sent_by_tritonclient(EXPECTED[kind](), parameters)
    assert service_pb2.ModelInferRequest.FromString(requests.grpc([2, 0])) == expected


def test_a_packed_request_holds_the_texts():
    (blob,) = service_pb2.ModelInferRequest.FromString(
        Requests("encoder", Rows("packed", TEXTS, None)).grpc([1, 3])
    ).raw_input_contents
    assert unpack(np.frombuffer(blob, np.uint8)) == ["привет", "a"]


def test_answers_of_both_protocols_are_counted():
    tokens, cut = np.array([[3], [5]], np.int32), np.array([[True], [False]])
    outputs = {"embedding": np.zeros((2, 4), np.float32), "tokens": tokens, "truncated": cut}
    message = service_pb2.ModelInferResponse()
    for name, value in outputs.items():
        message.outputs.add(name=name, shape=value.shape)
        message.raw_output_contents.append(value.tobytes())
    requests = Requests("encoder", Rows("text", TEXTS, None))
    counted = requests.read_grpc(message.SerializeToString())
    assert (counted.tokens, counted.truncated) == (8, 1)
    sizes = [{"name": n, "parameters": {"binary_data_size": v.nbytes}} for n, v in outputs.items()]
    described = json.dumps({"outputs": sizes}).encode()
    body = described + b"".join(v.tobytes() for v in outputs.values())
    head = f"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {len(described)}\r\n".encode()
    assert requests.read_http(head, body) == counted
    assert requests.read_http(b"HTTP/1.1 200 OK\r\n", body) is None


def test_a_kind_of_input_without_its_rows_is_refused():
    with pytest.raises(XtError, match="needs token ids"):
        Rows("ids", TEXTS, None)
    with pytest.raises(XtError, match="packed"):
        Rows("pack", TEXTS, None)
