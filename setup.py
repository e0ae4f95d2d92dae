"""Builds the distribution.

The checkout keeps `pipeline/` and `configs/` beside the library, since they
use it and not the other way round. Installed, they are `att_darts_tf.pipeline`
and `att_darts_tf.configs`: nothing generic lands in site-packages.
"""

import ast
import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent
ROOTS = {
    "att_darts_tf": "att_darts_tf",
    "att_darts_tf.pipeline": "pipeline",
    "att_darts_tf.configs": "configs",
}
DATA_FILES = ["*.json", "*.md", "*.png"]


def version():
    tree = ast.parse((HERE / "att_darts_tf/__init__.py").read_text("utf-8"))
    for statement in tree.body:
        if (
            isinstance(statement, ast.Assign)
            and statement.targets[0].id == "__version__"
        ):
            return ast.literal_eval(statement.value)
    raise ValueError("att_darts_tf/__init__.py sets no __version__.")


def packages():
    for package, folder in ROOTS.items():
        yield package
        for found in setuptools.find_packages(str(HERE / folder)):
            yield f"{package}.{found}"


setuptools.setup(
    name="att-darts-tf",
    version=version(),
    description="Architecture search over operations and attention, in Keras",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # What the tests run on; README says what else may do.
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=list(packages()),
    package_dir=ROOTS,
    package_data={"": DATA_FILES},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        # Messages alone, of 26 kB: they write the warm-up requests.
        "tensorflow-serving-api>=2.19.1,<2.22",
        "keras>=3.15,<3.16",
        "numpy",
        "absl-py",
        "ml_collections>=1.1",
        "tensorboard",
        "matplotlib",
        "pillow",
    ],
    extras_require={
        # The wheels of CUDA that TensorFlow was built with.
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "pipeline": ["kfp>=2.17,<2.18"],
        "tfds": [
            "tensorflow-datasets>=4.9.10",
            # 4.9.10 imports it without requiring it.
            "importlib_resources",
        ],
        "beam": ["apache-beam>=2.77"],
        "vertex": ["kfp>=2.17,<2.18", "google-cloud-aiplatform>=2.7,<3"],
        # With scikit-learn, for its Gaussian processes.
        "tune": ["keras-tuner[bayesian]>=1.4.8"],
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "build",
            "nbclient",
            "nbformat",
            "ipykernel",
        ],
        "docs": ["pdoc>=16"],
    },
    entry_points={
        "console_scripts": ["att-darts=att_darts_tf.__main__:main"],
    },
)
