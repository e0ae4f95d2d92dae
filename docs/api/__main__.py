"""Writes the API reference: `python -m docs.api FOLDER`.

A page for every public module, made from its docstrings by pdoc. A module that
cannot be imported ends it with an error.
"""

import pathlib
import pkgutil
import sys
import warnings

import pdoc

import att_darts_tf

HERE = pathlib.Path(__file__).parent


def packages():
    """Returns what to document: each part of the library, then what it holds.

    By its `__all__` the library itself shows four names and no module.
    """
    parts = {"configs", "pipeline"}
    parts |= {part.name for part in pkgutil.iter_modules(att_darts_tf.__path__)}
    public = sorted(part for part in parts if not part.startswith("_"))
    return ["att_darts_tf", *(f"att_darts_tf.{part}" for part in public)]


def main(folder):
    # pdoc warns of what it cannot import, and goes on.
    warnings.simplefilter("error", UserWarning)
    pdoc.render.configure(
        docformat="google",
        footer_text=f"att-darts-tf {att_darts_tf.__version__}",
        show_source=False,
        template_directory=HERE,
    )
    pdoc.pdoc(*packages(), output_directory=pathlib.Path(folder))
    print(f"{folder}/index.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
