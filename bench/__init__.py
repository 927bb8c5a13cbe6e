"""Speed: a served model under load, peers, matrix products, training."""
