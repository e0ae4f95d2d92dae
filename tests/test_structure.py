"""The shape of the project: which way imports point, and what is cheap."""

import ast
import pathlib
import subprocess
import sys
import tomllib
import unittest

ROOT = pathlib.Path(__file__).parent.parent
LIBRARY = "att_darts_tf"
# Where the sources of each package stand in the checkout.
HOMES = {
    f"{LIBRARY}.pipeline": ROOT / "pipeline",
    f"{LIBRARY}.configs": ROOT / "configs",
    LIBRARY: ROOT / LIBRARY,
}

FOUNDATIONS = {"durations", "errors", "memory", "storage"}
MIDDLE = {"data", "space", "engine"} | FOUNDATIONS
# What a package or module may import of the project, itself aside.
ALLOWED = {
    "": set(),
    "catalogue": FOUNDATIONS | {"engine", "space"},
    "durations": set(),
    "errors": set(),
    "memory": {"errors"},
    "startup": set(),
    "storage": {"startup"},
    "configs": set(),
    "data": FOUNDATIONS,
    "space": FOUNDATIONS,
    "engine": FOUNDATIONS,
    "search": MIDDLE,
    "network": MIDDLE,
    "released": MIDDLE | {"network", "search"},
    "litert": {"errors"},
    "model_card": {"", "data", "network"},
    "warm_up": set(),
    "serving": MIDDLE | {"litert", "model_card", "network", "warm_up"},
    "report": MIDDLE | {"network", "settings"},
    "settings": FOUNDATIONS | {"space"},
    "layout": FOUNDATIONS | {"engine", "settings"},
    "lineage": FOUNDATIONS | {"engine"},
    "doctor": {
        "engine",
        "lineage",
        "memory",
        "search",
        "settings",
        "startup",
    },
    "summary": FOUNDATIONS | {"engine", "layout", "settings"},
}
RUNNERS = set(ALLOWED) - {"configs"}
ALLOWED["pipeline"] = RUNNERS
ALLOWED["__main__"] = RUNNERS | {"pipeline"}
# Imported by `--help` and by every refusal.
LIGHT = (
    "settings",
    "layout",
    "lineage",
    "startup",
    "storage",
    "summary",
    "catalogue",
    "doctor",
    "__main__",
)


def modules():
    """Yields the dotted name, the path and the tree of each source."""
    for package, folder in HOMES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            name = ".".join((package, *parts))
            yield name, path, ast.parse(path.read_text("utf-8"))


def unit_of(module):
    """Returns the part of the library that a module belongs to."""
    return (module.split(".") + [""])[1]


def imports_of(tree, known):
    """Yields the modules of the project that a tree imports."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [
                full if full in known else node.module
                for alias in node.names
                for full in [f"{node.module}.{alias.name}"]
            ]
        for name in names:
            if name.split(".")[0] == LIBRARY:
                yield name


def imported_units():
    """Returns what each unit imports of the others."""
    found = list(modules())
    known = {name for name, _, _ in found}
    units = {}
    for name, _, tree in found:
        unit = unit_of(name)
        imported = {unit_of(other) for other in imports_of(tree, known)}
        units.setdefault(unit, set()).update(imported - {unit})
    return units


def build_table(name):
    tree = ast.parse((ROOT / "BUILD").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


class ArrowsTest(unittest.TestCase):
    def test_every_part_of_the_library_has_its_arrows(self):
        self.assertEqual(set(imported_units()), set(ALLOWED))

    def test_imports_point_one_way(self):
        found = list(modules())
        known = {name for name, _, _ in found}
        for name, path, tree in found:
            for imported in imports_of(tree, known):
                if unit_of(imported) == unit_of(name):
                    continue
                with self.subTest(file=path.name, imports=imported):
                    self.assertIn(unit_of(imported), ALLOWED[unit_of(name)])

    def test_only_the_command_line_imports_the_pipeline_and_in_a_function(self):
        for name, path, tree in modules():
            if unit_of(name) == "pipeline":
                continue
            for node in ast.walk(tree):
                if "pipeline" not in str(getattr(node, "module", "")):
                    continue
                if not node.module.startswith(f"{LIBRARY}.pipeline"):
                    continue
                with self.subTest(file=path.name):
                    self.assertEqual(unit_of(name), "__main__")
                    self.assertNotIn(node, tree.body)

    def test_no_import_is_relative(self):
        for _, path, tree in modules():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    with self.subTest(file=path.name):
                        self.assertEqual(node.level, 0)


class BuildFileTest(unittest.TestCase):
    def test_packages_are_those_that_are_imported(self):
        units = imported_units()
        program = units.pop("__main__")
        units.pop("")
        table = build_table("PACKAGES")
        self.assertEqual(
            {name: set(imported) for name, imported in table.items()},
            {name: imported - {""} for name, imported in units.items()},
        )
        self.assertEqual(set(build_table("PROGRAM")), program - {""})

    def test_beside_are_the_packages_outside_the_library_folder(self):
        self.assertEqual(
            {f"{LIBRARY}.{name}" for name in build_table("BESIDE")},
            set(HOMES) - {LIBRARY},
        )


class CostTest(unittest.TestCase):
    def loaded_by(self, statement):
        """Returns the top-level packages that a statement loads."""
        program = (
            f"{statement}\nimport sys\n"
            "print(*{name.split('.')[0] for name in sys.modules})"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
        return set(result.stdout.split())

    def test_importing_the_library_loads_no_framework(self):
        loaded = self.loaded_by("import att_darts_tf")
        self.assertFalse(loaded & {"tensorflow", "keras", "numpy", "kfp"})

    def test_the_command_line_loads_no_framework(self):
        statement = f"from {LIBRARY} import {', '.join(LIGHT)}"
        loaded = self.loaded_by(statement)
        self.assertFalse(loaded & {"tensorflow", "keras", "kfp"})

    def test_offered_names_are_there(self):
        import att_darts_tf

        for name in att_darts_tf.__all__:
            with self.subTest(name=name):
                self.assertIsNotNone(getattr(att_darts_tf, name))
                self.assertIn(name, dir(att_darts_tf))

    def test_other_names_are_not(self):
        import att_darts_tf

        with self.assertRaisesRegex(AttributeError, "Supernett"):
            att_darts_tf.Supernett  # noqa: B018


class StyleTest(unittest.TestCase):
    def test_ruff_checks_what_the_house_style_names(self):
        with open(ROOT / "pyproject.toml", "rb") as file:
            lint = tomllib.load(file)["tool"]["ruff"]
        self.assertEqual(lint["line-length"], 80)
        self.assertEqual(
            set(lint["lint"]["select"]), {"E", "F", "I", "UP", "B", "S101"}
        )
        self.assertNotIn("E722", lint["lint"].get("ignore", []))
