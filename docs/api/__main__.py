"""Writes the API reference: `python -m docs.api FOLDER`.

A page for every public module, made from its docstrings by pdoc. A module that
cannot be imported ends it with an error.
"""

import pathlib
import pkgutil
import platform
import sys
import warnings

import pdoc

import att_darts_tf

HERE = pathlib.Path(__file__).parent
LIBRARY = list(att_darts_tf.__path__)
BESIDE = ("configs", "pipeline")


def modules():
    """Returns the names of all public modules.

    pdoc leaves out those that the `__all__` of a package does not name.
    """
    found = ["att_darts_tf"]
    # In a checkout these two stand beside the library.
    paths = [("", [str(HERE.parents[1])]), ("att_darts_tf.", LIBRARY)]
    for prefix, path in paths:
        for part in pkgutil.iter_modules(path):
            name = prefix + part.name
            if name in BESIDE:
                name = f"att_darts_tf.{name}"
            elif not prefix or part.name.startswith("_"):
                continue
            found.append(name)
            if part.ispkg:
                folder = part.module_finder.path
                paths.append((f"{name}.", [f"{folder}/{part.name}"]))
    return list(dict.fromkeys(found))


def main(folder):
    # Beam asks for it as it is imported, which pdoc would refuse.
    platform.processor()
    # pdoc warns of what it cannot import, and goes on.
    warnings.simplefilter("error", UserWarning)
    # It need not tell of a module that it has found in its package.
    warnings.filterwarnings("ignore", "The module specification")
    pdoc.render.configure(
        docformat="google",
        footer_text=f"att-darts-tf {att_darts_tf.__version__}",
        show_source=False,
        template_directory=HERE,
    )
    pdoc.pdoc(*modules(), output_directory=pathlib.Path(folder))
    print(f"{folder}/index.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
