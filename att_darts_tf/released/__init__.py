"""The authors' files: their names of weights, and their checkpoints."""
