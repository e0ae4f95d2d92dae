"""Recipes tuned by KerasTuner, trial by trial."""
