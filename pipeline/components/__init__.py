"""One component a stage: unpack artifacts, call one function, publish."""
