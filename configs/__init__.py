"""Shipped configurations; `--config=NAME` names one of these files."""
