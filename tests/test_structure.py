"""The shape of the project: which way imports point, and what is cheap."""

import ast
import functools
import importlib.metadata
import pathlib
import re
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

FOUNDATIONS = {
    *("durations", "errors", "intervals", "memory", "ranges", "stages"),
    "storage",
}
MIDDLE = {"data", "space", "engine"} | FOUNDATIONS
# What a package or module may import of the project, itself aside.
ALLOWED = {
    "": set(),
    "catalogue": FOUNDATIONS | {"engine", "space"},
    "durations": set(),
    "errors": set(),
    "memory": {"errors"},
    "intervals": set(),
    "ranges": {"errors"},
    "stages": set(),
    "startup": set(),
    "storage": {"startup"},
    "configs": set(),
    "data": FOUNDATIONS | {"engine"},
    "space": FOUNDATIONS,
    "engine": FOUNDATIONS,
    "search": MIDDLE,
    "network": MIDDLE,
    "tuning": MIDDLE | {"network", "search", "settings", "startup"},
    "released": MIDDLE | {"network", "search"},
    "litert": {"errors"},
    "model_card": {"", "data", "engine", "errors", "intervals", "network"},
    "warm_up": set(),
    "serving": MIDDLE | {"litert", "model_card", "network", "warm_up"},
    "report": MIDDLE | {"branches", "settings"},
    "settings": FOUNDATIONS | {"space"},
    "branches": {"errors", "settings"},
    "layout": FOUNDATIONS | {"engine", "settings"},
    "doctor": {
        "engine",
        "memory",
        "search",
        "settings",
        "startup",
    },
    "summary": FOUNDATIONS | {"branches", "engine", "layout", "settings"},
}
RUNNERS = set(ALLOWED) - {"configs"}
ALLOWED["pipeline"] = RUNNERS
ALLOWED["__main__"] = RUNNERS | {"pipeline"}
# Imported by `--help` and by every refusal.
LIGHT = (
    "branches",
    "settings",
    "layout",
    "ranges",
    "stages",
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
    """Yields the modules of the library that a tree imports."""
    for name in names_of(tree, known):
        if name.split(".")[0] == LIBRARY:
            yield name


def names_of(tree, known):
    """Yields the modules that a tree imports."""
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
        yield from names


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


class BuildFile:
    """BUILD, executed as the Python that it is, with its rules recorded.

    Attributes:
        tables: What the file defines, by name.
        targets: The arguments of each rule by the name of its target, and
            the rule itself as `rule`.
        copies: The sources of what is built, by path.
    """

    RULES = ("genrule", "py_binary", "py_library", "py_test")

    def __init__(self, text):
        self.targets = {}
        self.tables = {"glob": self._glob, "load": lambda *names: None}
        for rule in self.RULES:
            self.tables[rule] = functools.partial(self._declare, rule)
        exec(compile(text, "BUILD", "exec"), self.tables)
        self.copies = {
            target["outs"][0]: target["srcs"][0]
            for target in self.of("genrule").values()
        }

    def of(self, rule):
        """Returns the targets of one rule."""
        return {
            name: target
            for name, target in self.targets.items()
            if target["rule"] == rule
        }

    def needed(self, name):
        """Returns the sources and packages that a target has, with its own."""
        found, waiting = {}, [name]
        while waiting:
            label = waiting.pop()
            if label in found:
                continue
            target = self.targets.get(label, {})
            found[label] = set(target.get("srcs", ()))
            waiting += [
                each.removeprefix(":") for each in target.get("deps", ())
            ]
        packages = {label for label in found if label.startswith("@")}
        return set().union(*found.values()), packages

    def _declare(self, rule, *, name, **arguments):
        if name in self.targets:
            raise ValueError(f"Expected one target a name. Received: {name}")
        self.targets[name] = {"rule": rule, **arguments}

    def _glob(self, include, exclude=(), allow_empty=False):
        def found(patterns):
            return {
                str(path.relative_to(ROOT))
                for pattern in patterns
                for path in ROOT.glob(pattern)
                if path.is_file()
            }

        files = sorted(found(include) - found(exclude))
        if not files and not allow_empty:
            raise ValueError(f"Expected files. Received: none of {include}")
        return files


def sources():
    """Returns the paths, from the top of the checkout, of all sources."""
    beside = (ROOT / name for name in ("benchmarks", "docs", "tests"))
    folders = (*HOMES.values(), *beside)
    return {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in folder.rglob("*.py")
    }


def dotted(path):
    """Returns the name of the module that a path holds."""
    parts = pathlib.PurePath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def label_of(distribution):
    """Returns the label of a package of the index."""
    return "@pypi//" + re.sub("[-.]", "_", distribution.lower())


def is_program(path):
    """Returns whether a source does something when it is run."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return any(
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in tree.body
    )


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
    @classmethod
    def setUpClass(cls):
        cls.build = BuildFile((ROOT / "BUILD").read_text("utf-8"))

    def test_packages_are_those_that_are_imported(self):
        units = imported_units()
        program = units.pop("__main__")
        units.pop("")
        table = self.build.tables["PACKAGES"]
        self.assertEqual(
            {name: set(imported) for name, imported in table.items()},
            {name: imported - {""} for name, imported in units.items()},
        )
        self.assertEqual(set(self.build.tables["PROGRAM"]), program - {""})

    def test_beside_are_the_packages_outside_the_library_folder(self):
        self.assertEqual(
            {f"{LIBRARY}.{name}" for name in self.build.tables["BESIDE"]},
            set(HOMES) - {LIBRARY},
        )

    def test_every_source_is_of_a_package_or_a_program(self):
        built = {
            self.build.copies.get(source, source)
            for rule in ("py_binary", "py_library")
            for target in self.build.of(rule).values()
            for source in target["srcs"]
        }
        self.assertEqual(built, sources())

    def test_every_file_of_the_library_is_in_its_target(self):
        data = {
            path
            for target in self.build.of("py_library").values()
            for path in target.get("data", ())
            if path.startswith(f"{LIBRARY}/")
        }
        files = {
            str(path.relative_to(ROOT))
            for path in (ROOT / LIBRARY).rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
        self.assertEqual(data, files)

    def test_every_program_has_a_binary(self):
        binaries = self.build.of("py_binary")
        for target in binaries.values():
            self.assertIn(target["main"], target["srcs"])
        self.assertEqual(
            sorted(
                self.build.copies.get(target["main"], target["main"])
                for target in binaries.values()
            ),
            sorted(filter(is_program, sources())),
        )

    def test_every_file_of_tests_has_a_test(self):
        tests = self.build.of("py_test")
        for target in tests.values():
            self.assertLessEqual(
                {*target["args"], target["main"]}, set(target["srcs"])
            )
        self.assertEqual(
            sorted(path for each in tests.values() for path in each["args"]),
            sorted(
                path
                for path in sources()
                if path.startswith("tests/")
                and pathlib.Path(path).name.startswith("test_")
            ),
        )

    def test_every_label_and_file_is_there(self):
        lock = (ROOT / "requirements.lock").read_text("utf-8")
        known = {f":{name}" for name in self.build.targets} | {
            label_of(line.partition("==")[0]) for line in lock.splitlines()
        }
        for name, target in self.build.targets.items():
            for label in target.get("deps", ()):
                with self.subTest(target=name, label=label):
                    self.assertIn(label, known)
            for path in (*target.get("srcs", ()), *target.get("data", ())):
                with self.subTest(target=name, path=path):
                    file = self.build.copies.get(path, path)
                    self.assertTrue((ROOT / file).is_file())

    def test_what_a_target_imports_is_among_its_dependencies(self):
        installed = {source: path for path, source in self.build.copies.items()}
        paths = {dotted(installed.get(each, each)): each for each in sources()}
        owners = importlib.metadata.packages_distributions()
        imported = {
            installed.get(path, path): {
                *names_of(ast.parse((ROOT / path).read_text("utf-8")), paths)
            }
            for path in paths.values()
        }
        for name, target in self.build.targets.items():
            if target["rule"] == "genrule":
                continue
            needed, packages = self.build.needed(name)
            missing = {
                each for path in target["srcs"] for each in imported[path]
            } - {dotted(path) for path in needed}
            for module in missing:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names:
                    continue
                with self.subTest(target=name, imports=module):
                    self.assertTrue(packages & {*map(label_of, owners[top])})


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
