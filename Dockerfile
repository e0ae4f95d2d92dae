# The image in which tasks of the pipeline run elsewhere; see docs/cloud.md.
#
#     docker build --tag IMAGE .
#     docker build --tag IMAGE --build-arg EXTRAS=pipeline,tfds,beam,tune,vertex,gpu .
#
# The second one has CUDA, as TensorFlow wants it, and runs without a GPU too.
FROM python:3.11-slim-bookworm
ARG EXTRAS=pipeline,tfds,beam,tune,vertex
WORKDIR /opt/att-darts
COPY LICENSE README.md pyproject.toml requirements.lock setup.py ./
COPY att_darts_tf att_darts_tf
COPY configs configs
COPY pipeline pipeline
RUN python -m pip install --no-cache-dir --disable-pip-version-check --constraint requirements.lock ".[${EXTRAS}]"
CMD ["att-darts", "--help"]
