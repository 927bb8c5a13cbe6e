"""Indexes: a corpus read, encoded, indexed, and bound to a calibration as one served model."""
