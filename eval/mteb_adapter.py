"""Any encoder of xt as a model of the `mteb` package: a checkpoint, an exported model, or a Triton server.

import mteb
from xt.eval.mteb_adapter import open_for_mteb

mteb.evaluate(open_for_mteb(url="127.0.0.1:8001"), mteb.get_tasks(tasks=["Tatoeba"]))
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xt.core.arguments import as_list
from xt.core.characters import compose, is_empty
from xt.core.encoder.spec import EncoderSpec
from xt.core.encoder.text import Encoder
from xt.core.errors import XtError, require, unknown
from xt.serve.encoders import open_encoder

if TYPE_CHECKING:
    from mteb.models import ModelMeta

    from xt.serve.client.address import Tls

ROLES = {"query": "query", "document": "passage"}
"""mteb's prompt types, to the role whose prefix goes before the text where the encoder has it."""
PROBES = (
    "The committee postponed its quarterly review.",
    "Die Bäckerei schließt wegen Umbaus im Frühjahr.",
    "Les hirondelles quittent déjà le clocher.",
    "Mlima mrefu unaonekana kutoka kijijini.",
    "Быстрые лисы прыгают через заборы.",
    "الطقس بارد في الجبال هذا المساء.",
    "आज बाज़ार में ताज़े आम मिल रहे हैं।",
    "வானில் பறவைகள் கூட்டமாகப் பறந்தன.",
    "ወንዙ ከዝናቡ በኋላ ሞላ።",
    "図書館は月曜日に休みです。",
    "도서관 앞 벤치에서 비를 피했다.",
    "Thư viện đóng cửa vào ngày lễ.",
    "7 × 6 = 42; café, naïve, Ångström",
)
"""What `vectors_hash` encodes: many languages, so that a vocabulary without some of them shows."""
ORGANISATION = "xt"
"""What mteb, which names models ORGANISATION/NAME, files results under."""


class MtebEncoder:
    """An encoder that mteb can drive (its `EncoderProtocol`): batches of texts in, vectors out, compared by cosine."""

    def __init__(self, encoder: Encoder, spec: EncoderSpec, *, name: str = "", revision: str = "") -> None:
        """Wrap an encoder.

        Args:
            encoder: anything with `encode`.
            spec: its facts.
            name: what mteb files its results under, after `xt/`; empty: the spec's.
            revision: tells versions of one encoder apart in mteb's cache of results, precision and engine too; empty:
                one that no other has, so that no result is overwritten, and none is found again.
        """
        require("mteb", extra="mteb", purpose="Running MTEB's tasks")
        self.encoder = encoder
        self.spec = spec
        self.name = re.sub(r"[^\w.-]+", "-", name or spec.name)
        self.revision = revision or f"unknown-{secrets.token_hex(6)}"
        self.truncated = 0
        """Texts so far that were cut to the encoder's longest input."""
        self.empty = 0
        """Texts so far that held nothing to read (`xt.core.characters.is_empty`), whose vectors are zeros."""

    def role(self, prompt_type: Any) -> str | None:
        """Return the role of a prompt type: `query`, `passage`, or None, the default, for other tasks."""
        if prompt_type is None:
            return None
        value = str(getattr(prompt_type, "value", prompt_type))
        if value not in ROLES:
            raise unknown("prompt type of mteb", value, ROLES)
        return ROLES[value] if ROLES[value] in self.spec.prefixes else None

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> npt.NDArray[np.float32]:
        """Encode mteb's batches: (texts, dim) in their order; a blank text gives zeros.

        Args:
            inputs: batches, each with its texts under `text`.
            task_metadata: of mteb; not used, as the split and the subset.
            hf_split: the same.
            hf_subset: the same.
            prompt_type: whether they are queries or documents, where the task tells them apart.
            **kwargs: mteb's own (batch_size, show_progress_bar): the encoder chooses its batches by itself.

        Raises XtError for inputs that are no text.
        """
        del task_metadata, hf_split, hf_subset, kwargs
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise XtError(
                    f"mteb gave {', '.join(batch) or 'nothing'}; {self.spec.name} reads text alone.",
                    "Choose tasks of the modality text.",
                )
            texts += as_list(batch["text"], "text")
        texts = [compose(text.replace("\0", " ")) for text in texts]
        full = [index for index, text in enumerate(texts) if not is_empty(text)]
        vectors = np.zeros((len(texts), self.spec.dim), np.float32)
        self.empty += len(texts) - len(full)
        if full:
            known: dict[str, int] = {}  # the same text is encoded once
            places = [known.setdefault(texts[index], len(known)) for index in full]
            found = self.encoder.encode(list(known), prefix=self.role(prompt_type), truncate=True)
            vectors[full] = found.vectors[places]
            self.truncated += int(np.asarray(found.truncated)[places].sum())
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each with each: (rows of 1, rows of 2)."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each with its own: (rows,)."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb notes of the model beside its results."""
        from mteb.models import ModelMeta

        meta: ModelMeta = ModelMeta.create_empty(
            {
                "name": f"{ORGANISATION}/{self.name}",
                "revision": self.revision,
                "embed_dim": self.spec.dim,
                "max_tokens": float(self.spec.max_length),
                "similarity_fn_name": "cosine",
                "use_instructions": bool(self.spec.prefixes),
                "framework": ["PyTorch"] if "pytorch" in self.revision else ["ONNX"],
            }
        )
        return meta


def open_for_mteb(
    encoder: str | None = None,
    *,
    url: str | None = None,
    model: str | None = None,
    device: str = "auto",
    tls: Tls | None = None,
) -> MtebEncoder:
    """Open what --encoder or --url names, for mteb.

    Args:
        encoder: a checkpoint folder, hub id or short name; or an exported model's folder, or a repository.
        url: instead, HOST:PORT of a Triton server's gRPC endpoint.
        model: which of several exported or served encoders.
        device: auto, cpu, cuda.
        tls: the files of an encrypted connection to `url`; None: not encrypted.
    """
    require("mteb", extra="mteb", purpose="Running MTEB's tasks")
    opened = open_encoder(encoder, url=url, model=model, device=device, tls=tls)
    served = url is not None  # its parent is the checkpoint, of which there are several exports
    content = opened.encoder.facts.get("content") if served else opened.parent.get("hash")
    digest = str(content or vectors_hash(opened.encoder))[:12]
    engine = {"onnxruntime": "onnx"}.get(str(opened.entry.engine), opened.entry.engine)
    revision = f"{digest}-{engine}-{opened.entry.precision}"
    return MtebEncoder(opened.encoder, opened.encoder.spec, revision=revision)


def vectors_hash(encoder: Encoder) -> str:
    """Return a hash of the vectors of some texts, for encoders that tell nothing better of themselves.

    Another machine may round otherwise: then results are filed under another revision, which overwrites none.
    """
    found = encoder.encode(PROBES, truncate=True).vectors
    return hashlib.sha256(np.round(np.asarray(found, np.float64), 3).tobytes()).hexdigest()
