"""`xt quickstart`: the first quarter of an hour with xt, and its long version."""
