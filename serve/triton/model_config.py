"""The configuration of a model, config.pbtxt: Triton's own message, read and written as text.

It imports tritonclient, which defines the message; import it where it is needed, not at the head of a module.
"""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as messages
from tritonclient.grpc.model_config_pb2 import ModelConfig

__all__ = ["ModelConfig", "ParseError", "messages", "parse", "to_text"]

ParseError = text_format.ParseError


def parse(text: str) -> ModelConfig:
    """Read a config.pbtxt; ParseError for what is none.

    >>> parse('name: "encoder" max_batch_size: 8').max_batch_size
    8
    """
    return text_format.Parse(text, ModelConfig())


def to_text(config: ModelConfig) -> str:
    """Write a configuration as config.pbtxt has it."""
    return str(text_format.MessageToString(config))
