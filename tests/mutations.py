"""The claims that matter most, each broken on purpose: one line is changed, and a test must fail.

`python -m tests.mutations` (part of `make slow`) copies the tree, sees the tests pass there, makes one change at a time
and runs its test. It ends with 1 when a change goes unnoticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """A claim, what is changed so that it holds no longer, and the test that notices."""

    claim: str
    file: str
    old: str
    """Stands exactly once in the file."""
    new: str
    test: str
    """Its file and name, as pytest takes them."""


MUTATIONS = (
    Mutation(
        "A text's vector is the same, bit for bit, whatever it is batched with.",
        "core/encoder/buckets.py",
        "itertools.groupby(order, key=lambda i: bucket(lengths[i]))",
        "itertools.groupby(order, key=lambda i: bucket(max(lengths)))",
        "tests/core/encoder/test_buckets.py::test_a_text_is_computed_in_the_same_shape_whatever_it_is_batched_with",
    ),
    Mutation(
        "Padding is not read: vectors in PyTorch are the mean of a text's own tokens.",
        "core/encoder/torch_engine.py",
        "weights = mask.unsqueeze(-1)",
        "weights = torch.ones_like(mask).unsqueeze(-1)",
        "tests/core/encoder/test_text.py::test_padding_and_batch_mates_do_not_change_vectors",
    ),
    Mutation(
        "A graph that is not near enough to PyTorch is not written, in int8 neither.",
        "export/pipeline.py",
        "    if found:\n",
        '    if found and precision == "fp32":\n',
        "tests/export/test_encoder.py::test_a_threshold_that_cannot_hold_writes_nothing",
    ),
    Mutation(
        "A model that does not give its golden vectors again does not become ready.",
        "core/encoder/onnx_engine.py",
        'if not worst >= golden["cosine_min"]:',
        'if worst < -1 < golden["cosine_min"]:',
        "tests/export/test_encoder.py::test_other_weights_are_refused_even_with_a_manifest_that_fits",
    ),
    Mutation(
        "Composed and decomposed Unicode (NFC, NFD) are one text.",
        "core/encoder/text.py",
        "return compose(text) if isinstance(text, str)",
        "return text if isinstance(text, str)",
        "tests/core/encoder/test_text.py::test_both_forms_of_unicode_give_the_same_ids_and_bits",
    ),
    Mutation(
        "A query's probability is of a calibrator that saw neither it nor a translation of it.",
        "calibration/search.py",
        "r.take(r.outside(fold))",
        "r.take(r.outside(None))",
        "tests/calibration/test_search.py::test_no_answer_of_a_fold_reaches_the_calibrator_that_scores_it",
    ),
    Mutation(
        "Equal documents are one candidate.",
        "core/copies.py",
        'hashlib.blake2b(text_key(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()',
        "len(numbers)",
        "tests/core/test_copies.py::test_texts_are_equal_composed_and_without_white_space_around_them",
    ),
    Mutation(
        "A call that finds its server restarting is answered when it is back: no text is lost.",
        "serve/client/errors.py",
        "isinstance(error, (ServerFull, Unreachable))",
        "isinstance(error, ServerFull)",
        "tests/serve/client/test_patience.py::test_a_server_that_comes_back_before_the_deadline_loses_no_call",
    ),
    Mutation(
        "A small request overtakes a large one that waits.",
        "serve/runtime/fair_queue.py",
        "entry.finish = entry.start + cost",
        "entry.finish = 0.0",
        "tests/serve/runtime/test_scheduler.py::test_of_one_callers_jobs_the_short_ones_overtake_the_large_one",
    ),
    Mutation(
        "`--force` replaces no folder that holds a file which xt did not write.",
        "core/files/artifact.py",
        "if others := replacing.foreign(folder, replacing.listed(manifest)):",
        "if others := []:",
        "tests/core/files/test_replacing.py::test_force_replaces_nothing_that_xt_did_not_write",
    ),
    Mutation(
        "A training that is killed and resumed ends with the weights, bit for bit, of one that is not.",
        "train/trainer.py",
        'unpack(tensors, self.trainer.model, getattr(optimizer, "optimizer", optimizer))',
        "pass",
        "tests/train/test_resume.py::test_every_moment_is_good_to_go_on_from",
    ),
)


def copied(folder: Path) -> dict[str, str]:
    """Copy what git does not ignore into a folder; return the environment in which the copy is imported as xt."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    packages = folder / ".packages" / "xt"
    packages.mkdir(parents=True)
    for package in folder.glob("*/__init__.py"):
        (packages / package.parent.name).symlink_to(package.parent)
    data = os.environ.get("XT_DATA", str(ROOT.parent / "shared" / "data"))
    own = {"PYTHONPATH": str(packages.parent), "PYTHONDONTWRITEBYTECODE": "1", "XT_DATA": data}
    return {**os.environ, **own}


def pytest(folder: Path, environment: dict[str, str], *tests: str) -> tuple[int, str]:
    """Run tests in the copy: pytest's exit code (0 all passed, 1 some failed), and what it printed."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def unnoticed(mutation: Mutation, folder: Path, environment: dict[str, str]) -> str:
    """Make the change, run its test, undo it; return what is wrong, empty when the test failed as it should."""
    file = folder / mutation.file
    whole = file.read_text(encoding="utf-8")
    if (count := whole.count(mutation.old)) != 1:
        return f"{mutation.file} holds {mutation.old!r} {count} times, expected once"
    file.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        code, said = pytest(folder, environment, mutation.test)
    finally:
        file.write_text(whole, encoding="utf-8")
    if code == 1 and "\nFAILED " in said:
        return ""
    return f"{mutation.test} ended with {code}, expected a failure\n{said[-2000:]}"


def main() -> int:
    """Run all mutations, or those whose file is named by an argument."""
    chosen = [m for m in MUTATIONS if not sys.argv[1:] or m.file in sys.argv[1:]]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = copied(folder)
        code, said = pytest(folder, environment, *(m.test for m in chosen))
        if code:
            sys.stdout.write(f"the tests do not pass as they are:\n{said}\n")
            return 1
        for mutation in chosen:
            start = time.monotonic()
            problem = unnoticed(mutation, folder, environment)
            wrong += bool(problem)
            sys.stdout.write(f"{problem or 'noticed'}: {mutation.claim} ({time.monotonic() - start:.0f} s)\n")
            sys.stdout.flush()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
