"""What `xt encode`, `xt index` and `xt search` are asked to do; their flags are these fields. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from xt.core.settings import Flag, Force
from xt.serve.options import CalibrationChoice, CorpusEncoding, EncoderLocation, EncodingOptions, RetrieverTarget


@dataclass(frozen=True)
class EncodeOptions:
    """All settings of one run of `xt encode`."""

    source: Annotated[
        Path,
        Flag(
            "A .txt (one text a line), .jsonl, .csv or .tsv (id, text, title), perhaps .gz; or a folder.",
            positional=True,
            metavar="INPUT",
        ),
    ]
    out: Annotated[Path, Flag("Folder to write; a run that was cut short is continued.")]
    location: EncoderLocation = field(default_factory=EncoderLocation)
    encoding: CorpusEncoding = field(default_factory=CorpusEncoding)
    dtype: Annotated[str, Flag("Of the vectors on disk: float32 or float16.")] = "float32"
    force: Force = False


@dataclass(frozen=True)
class IndexOptions:
    """All settings of one run of `xt index`."""

    corpus: Annotated[
        Path,
        Flag("A corpus (see `xt encode`), a folder that `xt encode` wrote, or an index to --install.", positional=True),
    ]
    location: EncoderLocation = field(default_factory=EncoderLocation)
    encoding: CorpusEncoding = field(default_factory=CorpusEncoding)
    target: RetrieverTarget = field(default_factory=RetrieverTarget)
    calibration: CalibrationChoice = field(default_factory=CalibrationChoice)
    out: Annotated[Path | None, Flag("Folder to write; a run that was cut short is continued.")] = None
    kind: Annotated[str, Flag('flat (exact), ivf, hnsw, or a FAISS factory string such as "IVF64,SQ8".')] = "flat"
    force: Force = False


@dataclass(frozen=True)
class SearchOptions:
    """All settings of one run of `xt search`."""

    folder: Annotated[Path, Flag("An index folder, or an installed retriever.", positional=True, metavar="INDEX")]
    query: Annotated[str, Flag("What to look for, in any language.", positional=True)]
    location: EncoderLocation = field(default_factory=EncoderLocation)
    calibration: CalibrationChoice = field(default_factory=CalibrationChoice)
    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    top_k: Annotated[int, Flag("Documents to show, 1 to 100.")] = 10
    language: Annotated[str | None, Flag("Of the query; it may have a calibrator of its own.")] = None
