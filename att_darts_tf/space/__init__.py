"""What may be chosen, and how a choice is written.

`search_space`, `genotype`, `published` and `drawings` work without TensorFlow;
`blocks`, `operations` and `attentions` are Keras layers.
"""
