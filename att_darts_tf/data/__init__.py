"""Images -> batches. Imports nothing else of the project but its error."""

from att_darts_tf.data.prepared import PreparedData, Split, load

__all__ = ["PreparedData", "Split", "load"]
