"""The folders of a work directory, and which configuration owns it."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import ml_collections

from att_darts_tf import settings, storage
from att_darts_tf.engine import ownership, workdir
from att_darts_tf.errors import UsageError

CONFIG_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each stage of a run keeps its files.

    Args:
        root: Absolute path of the work directory, or that of a URI.
    """

    root: storage.Path

    @property
    def config(self) -> storage.Path:
        return self.root / "config.json"

    @property
    def data(self) -> storage.Path:
        return self.root / "data"

    @property
    def dataset(self) -> storage.Path:
        """Returns the file that describes the prepared images."""
        return self.data / "dataset.json"

    @property
    def searches(self) -> storage.Path:
        """Returns the folder of all searches, which the first one makes."""
        return self.root / "search"

    def search(self, seed: int) -> storage.Path:
        return self.searches / f"seed-{seed}"

    def found(self, seed: int) -> storage.Path:
        """Returns the file of the cells that a search found."""
        return self.search(seed) / "genotype.json"

    @property
    def selection(self) -> storage.Path:
        return self.root / "selection"

    @property
    def selected(self) -> storage.Path:
        """Returns the file of the cells that were selected."""
        return self.selection / "genotype.json"

    @property
    def tuning(self) -> storage.Path:
        return self.root / "tuning"

    @property
    def tuned(self) -> storage.Path:
        """Returns the file of what a tuning found."""
        return self.tuning / "result.json"

    @property
    def trainings(self) -> storage.Path:
        """Returns the folder of all trainings, which the first one makes."""
        return self.root / "training"

    def training(self, repeat: int) -> storage.Path:
        return self.trainings / f"repeat-{repeat}"

    def trained(self, repeat: int) -> storage.Path:
        """Returns the file of a trained network."""
        return self.training(repeat) / "model.keras"

    @property
    def imported(self) -> storage.Path:
        """Returns the folder of a supernet from a checkpoint."""
        return self.root / "imported"

    @property
    def evaluation(self) -> storage.Path:
        return self.root / "evaluation"

    @property
    def export(self) -> storage.Path:
        return self.root / "export"

    def model(self, name: str, version: int) -> storage.Path:
        """Returns the folder of the SavedModel, as TensorFlow Serving has it.

        Args:
            name: String, `config.export.name`.
            version: Integer, `config.export.version`.
        """
        return self.export / name / str(version)

    def litert(self, name: str) -> storage.Path:
        """Returns the file of the model for LiteRT."""
        return self.export / f"{name}.tflite"

    @property
    def classifier(self) -> storage.Path:
        """Returns the script that classifies image files."""
        return self.export / "classify.py"

    @property
    def report(self) -> storage.Path:
        return self.root / "report"

    def branch(self, name: str) -> "Layout":
        """Returns the folders of a run that this one is compared with.

        Args:
            name: String, a branch's; empty for the run itself.
        """
        return Layout(self.root / name) if name else self

    @property
    def pipeline(self) -> storage.Path:
        return self.root / "pipeline"


def of(root: str) -> Layout:
    """Returns the folders of a work directory, which need not be there.

    Args:
        root: Path or URI of the work directory.
    """
    return Layout(storage.absolute(root))


def as_tuned(
    config: ml_collections.ConfigDict, layout: Layout
) -> ml_collections.ConfigDict:
    """Returns a configuration with what its tuning has found.

    Args:
        config: The resolved configuration, with something to tune.
        layout: The folders of its run.
    """
    result = read_tuned(layout.tuned)
    if result["tune"] != workdir.plain(config.tune):
        raise UsageError(
            f"Expected the result of config.tune in {layout.tuned}. Received: "
            "that of other settings. Run first: the stage tune"
        )
    return settings.with_values(config, result["found"])


def read_tuned(file: storage.Path) -> dict[str, Any]:
    """Returns the result of a tuning: `tune`, `found` and more.

    Args:
        file: Path of it.
    """
    return workdir.read_record(
        file, {"tune": {}, "found": {}}, format=workdir.RESULT_FORMAT
    )


@contextlib.contextmanager
def claim(
    root: str, config: ml_collections.ConfigDict, *, replace: bool = False
) -> Iterator[Layout]:
    """Holds a work directory to one configuration and one process.

    A new work directory records its configuration; one that another
    configuration made is refused, but for settings of stages that have not
    begun, for the price, which the report alone reads, for what prepares
    the images, on which they do not depend, for more trials of a tuning, and
    for what a pipeline does beside them.
    If the first command fails on a mistake of the user's, the record
    goes again, so that the mended command is welcome; if one that replaces
    does, the record is as it was.

    Args:
        root: Path or URI of the work directory, which is made if absent.
        config: The resolved configuration.
        replace: Boolean. Whether any setting may have changed, as within
            `stage_folder.replacing_stale`.
    """
    layout = of(root)
    with ownership.hold(layout.root):
        new = not layout.config.exists()
        before = None
        if new:
            _record(layout, config)
        elif _compare(layout, config, replace):
            before = layout.config.read_text("utf-8")
            _record(layout, config)
        try:
            yield layout
        except UsageError:
            if new:
                layout.config.unlink(missing_ok=True)
            elif replace and before is not None:
                # Stages that have begun have identities of their own.
                workdir.write_atomically(layout.config, before)
            raise


def _record(layout: Layout, config: ml_collections.ConfigDict) -> None:
    workdir.write_json(
        layout.config, workdir.plain(config), format=CONFIG_FORMAT
    )


def _compare(
    layout: Layout, config: ml_collections.ConfigDict, replace: bool
) -> bool:
    """Returns whether settings changed that may; others are refused."""
    found = dict(
        settings.flatten(
            workdir.read_json(layout.config, format=CONFIG_FORMAT)
        )
    )
    received = dict(settings.flatten(workdir.plain(config)))
    free = tuple(
        name
        for name, folder in (
            ("search.", layout.searches),
            ("selection.", layout.selection),
            ("network.", layout.trainings),
            ("tune.", layout.tuning),
            ("tune.trials", None),
            ("repeats", layout.trainings),
            ("export.", layout.export),
            ("pipeline.", None),
            ("vertex.", None),
            ("beam.", None),
            ("hourly_price", None),
        )
        if folder is None or not folder.exists()
    )
    for name in [*received, *found]:
        if replace or name.startswith(free):
            continue
        if found.get(name) != received.get(name):
            raise UsageError(
                f"Expected config.{name}={found.get(name)!r}, with which "
                f"{layout.root} was made. Received: {received.get(name)!r}. "
                "Give the same configuration or another --workdir, or "
                "--replace to do again what depends on it"
            )
    return any(found.get(name) != value for name, value in received.items())
