"""What the quickstart will do, and how long that takes: printed before anything large is imported."""

from __future__ import annotations

QUESTION = "Wie setze ich mein Passwort zurück?"
"""Asked where the user asks nothing: how to reset a password, in German; the answers are English sentences."""
STEPS = 24
"""Training steps of 16 examples."""
LANGUAGES = 32
"""Languages of the bundled corpus that are measured: half of them, of every resource class."""
PLAN = (
    "1. export the bundled encoder to 8 bits and check it against PyTorch",
    "2. fit a temperature, index the bundled sentences, serve them on Triton and answer your question",
    "3. train the encoder a little on sample tasks, in PyTorch",
    f"4. measure retrieval and its calibration in {LANGUAGES} languages, with intervals, and write the page",
    "Aim: six minutes on two idle cores, the answer within three. A run that is stopped goes on where it was.",
)
PLAN_FULL = (
    "The long version: two exports, training, two evaluations with all intervals, load.",
    "11 to 25 minutes were measured on two cores. A run that is stopped goes on where it was.",
)
