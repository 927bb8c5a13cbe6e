"""How far probabilities are from what happened: gaps, errors, slopes, abstention, and their intervals."""
