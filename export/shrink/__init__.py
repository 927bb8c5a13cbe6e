"""A smaller encoder of a checkpoint: fewer layers, a vocabulary without what no text uses, fewer dimensions."""
