"""The stages as one pipeline: typed artifacts, fan-out, caching.

It uses the library and not the other way round. Installed, it is
`att_darts_tf.pipeline`.
"""
