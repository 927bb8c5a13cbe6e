"""`xt export`: one encoder, or a trained head of it, as its settings ask, into a Triton repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from xt.core.data.bitext import Bitext
from xt.core.data.corpus import load_corpus
from xt.core.encoder import resolve
from xt.core.files.artifact import refuse_existing
from xt.core.languages import select
from xt.export.settings import MAX_LOSS, ExportSettings, read_temperature
from xt.export.shrink.settings import Shrinking
from xt.export.shrink.shrink import check as check_shrinking
from xt.export.shrink.shrink import corpus_texts

if TYPE_CHECKING:
    from xt.core.files.artifact import Artifact

Texts = list[tuple[str, str]]


def run(settings: ExportSettings, *, report: Callable[[str], None]) -> Artifact:
    """Export what the settings name, and return the model."""
    provider = settings.chosen_provider()
    target = settings.out / settings.model
    refuse_existing(target, force=settings.force, kind="model", role=settings.role, inputs=settings.inputs())
    corpora = {name: load_corpus(name, data_dir=settings.data_dir).pairs for name in settings.corpora()}
    return export(settings, corpora, provider=provider, report=report)


def export(
    settings: ExportSettings, corpora: Mapping[str, Sequence[Bitext]], *, provider: str, report: Callable[[str], None]
) -> Artifact:
    """Export what the settings name, and return the model; `corpora`: those of `settings.corpora()`, by name."""
    parity = corpora[settings.parity_text]
    texts, codes = pruning_text(corpora[settings.corpus or settings.parity_text], settings.languages)
    resolved = resolve.resolve(settings.encoder)
    check_shrinking(resolved, layers=settings.layers, dims=settings.dims)
    spec, precision = resolved.spec, str(settings.precision)
    report(f"exporting {spec.name} ({spec.provenance}) to {settings.out / settings.model}, {precision}")
    if settings.task is not None:
        from xt.export.heads.head import HeadExport, export_head

        return export_head(
            resolved,
            settings.out,
            task=settings.task,
            corpus=parity,
            name=settings.model,
            options=HeadExport(precision, read_temperature(settings.temperature), settings.data_dir),
            force=settings.force,
            report=report,
        )
    from xt.export.encoder import EncoderExport, export_model

    options = EncoderExport(
        precision=precision,
        provider=provider,
        runtime=settings.runtime,
        exact=settings.exact,
        min_cosine=settings.min_cosine,
        max_loss=MAX_LOSS if settings.max_loss is None else settings.max_loss,
        dev_corpus=corpora[settings.dev_corpus or settings.parity_text] if precision == "auto" else None,
        shrinking=Shrinking(settings.layers, codes, texts, settings.dims),
    )
    return export_model(
        resolved,
        settings.out,
        corpus=parity,
        name=settings.model,
        options=options,
        force=settings.force,
        report=report,
    )


def pruning_text(corpus: Sequence[Bitext], languages: str | None) -> tuple[Texts | None, list[str] | None]:
    """Return the text for pruning, and the requested codes as the corpus spells them; None twice without languages."""
    if languages is None:
        return None, None
    texts = corpus_texts(corpus)
    return texts, select(languages, dict.fromkeys(language for language, _ in texts))
