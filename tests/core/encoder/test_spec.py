"""What travels with an encoder: reading, writing, and the cut to a vector's first numbers."""

from __future__ import annotations

import numpy as np
import pytest

from xt.core.encoder.spec import EncoderSpec
from xt.core.errors import XtError

SPEC = EncoderSpec("e", dim=4, prefixes={"query": "q: "}, default_prefix="query", temperature=0.1)


def test_a_spec_reads_back_from_its_json_cut_or_not():
    for spec in (SPEC, SPEC.first(2)):
        assert EncoderSpec.from_json(spec.to_json()) == spec
    assert "dims" not in SPEC.to_json()  # what was written before vectors could be cut reads the same
    assert (SPEC.first(2).to_json()["dim"], SPEC.first(2).to_json()["dims"]) == (2, 2)


def test_an_unknown_fact_says_to_update():
    with pytest.raises(XtError, match="unknown fields: colour.\nUpdate xt"):
        EncoderSpec.from_json({**SPEC.to_json(), "colour": 1})


def test_the_first_numbers_of_a_vector_are_kept_before_it_is_normalised():
    vectors = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(SPEC.first(3).kept(vectors), vectors[:, :3])
    np.testing.assert_array_equal(SPEC.first(3).first(1).kept(vectors), vectors[:, :1])
    assert SPEC.kept(vectors) is vectors
    assert SPEC.first(4) is SPEC


@pytest.mark.parametrize("dims", [0, -1, 5])
def test_a_cut_out_of_range_is_refused_with_the_range(dims):
    with pytest.raises(XtError, match=f"first {dims} dimensions.*e gives 4.\nChoose from 1 to 4"):
        SPEC.first(dims)
    with pytest.raises(XtError, match=f"cannot be cut to {dims}.\nChoose 1 to 4"):
        EncoderSpec("e", dim=4, dims=dims)
    with pytest.raises(XtError, match="first 4 dimensions.*gives 3"):
        SPEC.first(3).first(4)


@pytest.mark.parametrize(("field", "value"), [("pooling", "max"), ("default_prefix", "passage")])
def test_a_wrong_name_is_refused(field, value):
    with pytest.raises(XtError, match=f"Unknown .* '{value}'"):
        EncoderSpec("e", **{"dim": 4, "prefixes": {"query": "q: "}, field: value})
