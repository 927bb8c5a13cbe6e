"""The settings of an export; the flags of `xt export` are its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from xt.core.errors import UsageError, unknown
from xt.core.settings import DataDir, Device, Flag, Force

NAME = "encoder"
HEAD_NAME = "classifier"
PRECISION = "int8"
HEAD_PRECISION = "int8-blocks"
PARITY_CORPUS = "django"
MAX_LOSS = 0.3
RUNTIMES = ("python", "onnxruntime")
ENCODER_ONLY = ("layers", "languages", "dims", "min_cosine", "provider", "device", "runtime", "exact")
"""Settings that a head has not."""
AUTO_ONLY = ("max_loss", "dev_corpus")
"""Settings of the choice of a precision."""


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export; those that contradict each other are refused."""

    encoder: Annotated[str, Flag("A checkpoint folder, a short name or a hub id.", positional=True)]
    out: Annotated[Path, Flag("The Triton model repository to add a model to.")]
    name: Annotated[
        str | None, Flag(f"The model's name on the server. Default: {NAME}, or {HEAD_NAME} with --task.")
    ] = None
    precision: Annotated[
        str | None,
        Flag(
            "fp32, bf16, fp16 (for GPUs), int8 (fixed scales), int8-blocks (8-bit blocks of weights), or auto: "
            f"the fastest here that keeps to --max-loss. Default: {PRECISION}, or {HEAD_PRECISION} with --task."
        ),
    ] = None
    provider: Annotated[
        str,
        Flag(
            "What runs the graph: openvino, cpu (ONNX Runtime's own), cuda, tensorrt, or auto: what this machine "
            "has; the choice is printed."
        ),
    ] = "auto"
    runtime: Annotated[
        str,
        Flag(
            "Triton's backend: python, or onnxruntime (for NVIDIA's container: the graph as a model of its own, "
            "with a text model before it)."
        ),
    ] = RUNTIMES[0]
    exact: Annotated[bool, Flag("Ask that a text's vector be the same, bit for bit, in any batch.")] = False
    layers: Annotated[int | None, Flag("Keep the lowest N layers of the network.", least=1)] = None
    languages: Annotated[
        str | None, Flag("Prune the vocabulary to what --corpus uses in these languages: comma-separated codes.")
    ] = None
    corpus: Annotated[
        str | None,
        Flag(
            "Text for --languages: django, tatoeba or a folder of line-aligned files; the more, the fewer "
            "tokens other text loses. Default: the parity corpus."
        ),
    ] = None
    dims: Annotated[int | None, Flag("Keep the first N dimensions of a vector, of unit length again.", least=1)] = None
    task: Annotated[str | None, Flag("Export the checkpoint's trained head for this task instead of the encoder.")] = (
        None
    )
    temperature: Annotated[
        str | None,
        Flag("Divides the head's logits: a number, a file with one, or fit (to the task's dev examples). Default: 1."),
    ] = None
    parity_corpus: Annotated[
        str | None,
        Flag(f"Real text that parity is measured on: django, tatoeba or a folder. Default: {PARITY_CORPUS}."),
    ] = None
    min_cosine: Annotated[
        float | None, Flag("Least 1st percentile of the cosine to PyTorch; default by precision.")
    ] = None
    max_loss: Annotated[
        float | None,
        Flag(f"Points of mean retrieval accuracy that --precision auto may lose. Default: {MAX_LOSS}.", least=0.0),
    ] = None
    dev_corpus: Annotated[
        str | None,
        Flag(
            "Parallel text on which --precision auto measures accuracy: django, tatoeba or a folder. Default: the "
            "parity corpus."
        ),
    ] = None
    data_dir: DataDir = None
    device: Device = "auto"
    force: Force = False

    def __post_init__(self) -> None:
        from xt.export.graphs import PRECISIONS

        if self.precision is None:
            object.__setattr__(self, "precision", PRECISION if self.task is None else HEAD_PRECISION)
        if self.precision not in PRECISIONS:
            raise unknown("precision", str(self.precision), PRECISIONS)
        if self.runtime not in RUNTIMES:
            raise unknown("runtime", self.runtime, RUNTIMES)
        if self.precision != "auto" and (given := self._given(AUTO_ONLY)):
            raise UsageError(f"{given[0]} is for --precision auto; this is {self.precision}")
        if self.corpus is not None and self.languages is None:
            raise UsageError("--corpus is the text for --languages: give both")
        if self.task is None and self.temperature is not None:
            raise UsageError("--temperature is a head's: give --task too")
        if self.task is not None and (given := self._given(ENCODER_ONLY)):
            raise UsageError(f"{given[0]} is for the encoder; with --task a head is exported")
        if self.task is not None and self.precision == "auto":
            raise UsageError("--precision auto measures retrieval; name a head's precision")
        read_temperature(self.temperature)

    def _given(self, names: Sequence[str]) -> list[str]:
        """Return the flags, of these settings, whose values are not the defaults."""
        defaults = {name: getattr(type(self), name) for name in names}
        return [f"--{n.replace('_', '-')}" for n, default in defaults.items() if getattr(self, n) != default]

    @property
    def role(self) -> Literal["encoder", "head"]:
        """What is exported."""
        return "encoder" if self.task is None else "head"

    @property
    def model(self) -> str:
        """The model's name on the server."""
        return self.name or (NAME if self.task is None else HEAD_NAME)

    @property
    def parity_text(self) -> str:
        """The corpus that parity is measured on."""
        return self.parity_corpus or PARITY_CORPUS

    def corpora(self) -> list[str]:
        """Return the names of all corpora that the export reads."""
        return list(dict.fromkeys([self.parity_text, *(c for c in (self.corpus, self.dev_corpus) if c is not None)]))

    def inputs(self) -> list[Path]:
        """Return the files and folders that are read, which must not be replaced."""
        from xt.core.files.replacing import named_paths

        named = (self.parity_corpus, self.corpus, self.dev_corpus, self.temperature, self.data_dir)
        return named_paths(self.encoder, *named)

    def chosen_provider(self) -> str:
        """Return the provider of --provider and --device on this machine, or still auto; an error where they differ."""
        from xt.core.encoder.onnx_engine import DEVICES, PROVIDERS, choose_provider

        provider, device, precision = self.provider, self.device, str(self.precision)
        if provider not in ("auto", *PROVIDERS):
            raise unknown("provider", provider, ("auto", *PROVIDERS))
        if device not in DEVICES:
            raise unknown("device", device, DEVICES)
        if provider != "auto":
            if device not in ("auto", PROVIDERS[provider].device):
                raise UsageError(f"--provider {provider} runs on {PROVIDERS[provider].device}, not on {device}")
            if precision != "auto" and precision not in PROVIDERS[provider].precisions:
                known = ", ".join(PROVIDERS[provider].precisions)
                raise UsageError(f"--provider {provider} runs {known}, not {precision}")
        if provider == "auto" and device == "auto":
            return provider
        return choose_provider(provider, device=device, precision=None if precision == "auto" else precision)


def read_temperature(value: str | None) -> float | Path | Literal["fit"] | None:
    """Read --temperature: a positive number, the word fit, or a file that is there.

    >>> read_temperature("1.5"), read_temperature("fit"), read_temperature(None)
    (1.5, 'fit', None)
    """
    if value is None or value == "fit":
        return None if value is None else "fit"
    try:
        number = float(value)
    except ValueError:
        if Path(value).is_file():
            return Path(value)
        raise UsageError(f"--temperature expects a number, a file or fit; there is no file {value!r}") from None
    if not 0 < number < float("inf"):
        raise UsageError(f"--temperature expects a positive number, found {value}")
    return number
