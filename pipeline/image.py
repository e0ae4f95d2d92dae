"""Where components run when they do not run on this machine."""

# The local runner ignores it, but warns unless it holds the word "python".
IMAGE = "att-darts-tf-python:latest"
