"""Options that travel together on the command line: a server's address, an encoder's place, how to encode, calibration.

Light to import: what they open is imported when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from xt.core.errors import UsageError
from xt.core.settings import Device, Flag, Truncate

if TYPE_CHECKING:
    from xt.calibration.apply.file import CalibrationTable
    from xt.core.files.artifact import Artifact
    from xt.serve.client.address import Tls
    from xt.serve.encoders import OpenedEncoder
    from xt.serve.index.encode_files import Settings

TlsCa = Annotated[
    str | None,
    Flag("Encrypt the connection to --url: PEM certificates to trust, or the word system for the system's own."),
]
TlsCert = Annotated[Path | None, Flag("PEM certificate to show to a server that asks callers for one.")]
TlsKey = Annotated[Path | None, Flag("PEM key of --tls-cert.")]
Model = Annotated[str | None, Flag("Which model of the server or repository, when it holds several.")]


@dataclass(frozen=True)
class TlsFiles:
    """The files by which a connection is encrypted; none: it is not."""

    tls_ca: TlsCa = None
    tls_cert: TlsCert = None
    tls_key: TlsKey = None

    def given(self) -> bool:
        """Return whether there is any."""
        return any(value is not None for value in (self.tls_ca, self.tls_cert, self.tls_key))

    def read(self, url: str | None) -> Tls | None:
        """Return how the connection to `url` is encrypted; None: it is not.

        Raises a usage error for options that nothing would heed, and XtError for a file that is no PEM file.
        """
        if not self.given():
            return None
        from xt.serve.client.address import Tls

        if url is None:
            raise UsageError("--tls-ca, --tls-cert and --tls-key are of the connection to a server: give --url")
        if self.tls_ca is None:
            raise UsageError("--tls-cert and --tls-key need --tls-ca: FILE, or the word system")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key belong together: give both")
        ca = None if self.tls_ca == "system" else Path(self.tls_ca).expanduser()
        tls = Tls(ca=ca, key=self.tls_key, certificate=self.tls_cert)
        tls.options()  # a file that is not there is named before any work
        return tls


@dataclass(frozen=True)
class ServerAddress:
    """A Triton server, and how the connection to it is encrypted."""

    url: Annotated[str | None, Flag("HOST:PORT of a Triton server's gRPC endpoint.")] = None
    tls_files: TlsFiles = field(default_factory=TlsFiles)

    def tls(self) -> Tls | None:
        """Return how the connection is encrypted; None: it is not."""
        return self.tls_files.read(self.url)


@dataclass(frozen=True)
class EncoderLocation:
    """Where an encoder is: a folder or a name on this machine, or a server."""

    encoder: Annotated[str | None, Flag("A checkpoint, model or repository folder, a short name or a hub id.")] = None
    server: ServerAddress = field(default_factory=ServerAddress)
    model: Model = None
    device: Device = "auto"

    @property
    def url(self) -> str | None:
        """Of the server."""
        return self.server.url

    def open(self) -> OpenedEncoder:
        """Open the encoder."""
        from xt.serve.encoders import open_encoder

        url, tls = self.url, self.server.tls()
        return open_encoder(self.encoder, url=url, model=self.model, device=self.device, tls=tls)

    def or_as_opened(self, how: Mapping[str, Any]) -> EncoderLocation:
        """Return this place, or where none is named the one that an index notes, `how` its encoder was opened."""
        if self.encoder or self.url:
            return self
        server = replace(self.server, url=how.get("url"))
        return replace(self, encoder=how.get("encoder"), server=server, model=self.model or how.get("model"))


@dataclass(frozen=True)
class EncodingOptions:
    """How texts become vectors."""

    prefix: Annotated[
        str | None, Flag("passage, query or none. Default: the role's own where the encoder has one.")
    ] = None
    truncate: Truncate = False

    def prefix_for(self, role_name: str, prefixes: Mapping[str, str]) -> str:
        """Return the prefix that was requested, or that of a role where the encoder has one."""
        from xt.serve.index.index import role

        return self.prefix or role(prefixes, role_name)


@dataclass(frozen=True)
class CorpusEncoding(EncodingOptions):
    """How a corpus becomes vectors on disk."""

    shard_size: Annotated[int, Flag("Texts encoded between two savings, and held in memory at once.")] = 4096

    def settings(self, prefixes: Mapping[str, str], dtype: str = "float32") -> Settings:
        """Return the settings of encoding for an encoder with these prefixes."""
        from xt.serve.index.encode_files import Settings

        return Settings(self.prefix_for("passage", prefixes), self.truncate, dtype, self.shard_size)


@dataclass(frozen=True)
class CalibrationChoice:
    """Which calibration of which report goes with an index."""

    calibration: Annotated[
        Path | None, Flag("A report of `xt eval` (or its calibration.json) with this encoder in it.")
    ] = None
    calibration_direction: Annotated[
        str | None,
        Flag("Of a report with several: foreign-english (the default) or english-foreign, queries to documents."),
    ] = None
    calibration_scope: Annotated[
        str | None,
        Flag(
            "For queries whose language has no calibrator: zero-shot (default where it is there), pooled, platt (the "
            "default of ranked retrieval), or none-of-these, for indexes that half of the queries find nothing in."
        ),
    ] = None
    calibration_encoder: Annotated[str | None, Flag("Which encoder of the report; default: the same one.")] = None
    allow_other_encoder: Annotated[
        bool, Flag("Take a calibration that was fitted on another encoder's scores, with a warning.")
    ] = False

    def read(self, identity: dict[str, Any], report: Callable[[str], None]) -> CalibrationTable | None:
        """Return the calibrators of an encoder (see `xt.serve.index.calibration`); None where no report is named."""
        if self.calibration is None:
            return None
        from xt.serve.index.calibration import read_calibration

        return read_calibration(
            self.calibration,
            identity,
            direction=self.calibration_direction,
            scope=self.calibration_scope,
            entry=self.calibration_encoder,
            allow_other_encoder=self.allow_other_encoder,
            report=report,
        )


@dataclass(frozen=True)
class RetrieverTarget:
    """Which repository gets a retriever of an index, if any."""

    install: Annotated[Path | None, Flag("Also write a retriever model into this model repository.")] = None
    name: Annotated[str, Flag("The retriever's name on the server.")] = "retriever"
    uncalibrated: Annotated[bool, Flag("Install without a calibration: cosines, no probabilities.")] = False

    def check(self, calibration: CalibrationChoice, *, force: bool, inputs: Sequence[Path]) -> None:
        """Raise for a target that cannot be written, before any work."""
        if self.install is None:
            return
        from xt.core.files.artifact import refuse_existing

        refuse_existing(self.install / self.name, force=force, kind="model", role="retriever", inputs=inputs)
        if (calibration.calibration is None) != self.uncalibrated:
            raise UsageError("--install needs one of --calibration and --uncalibrated")

    def write(
        self,
        index: Artifact,
        model: Path,
        calibration: CalibrationChoice,
        *,
        force: bool,
        report: Callable[[str], None],
    ) -> Artifact:
        """Write the retriever of an index and an exported model, with its calibration, into the repository."""
        from xt.core.files.artifact import open_artifact
        from xt.serve.index.calibration import model_identity
        from xt.serve.index.retriever import install

        assert self.install is not None
        table = calibration.read(model_identity(open_artifact(model, kind="model")), report)
        return install(
            index.path,
            model,
            self.install,
            name=self.name,
            table=table,
            uncalibrated=self.uncalibrated,
            force=force,
            report=report,
        )
