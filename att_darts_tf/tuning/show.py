"""What a tuning has found: a configuration, and a picture of its trials."""

import io
from collections.abc import Sequence

import ml_collections

from att_darts_tf import settings, stages, storage
from att_darts_tf.engine import workdir
from att_darts_tf.ranges import Range

CONFIG, PICTURE = "config.py", "trials.png"


def write(
    folder: storage.Path,
    config: ml_collections.ConfigDict,
    result: dict,
    ranges: Sequence[Range],
) -> None:
    """Writes the configuration and the picture.

    Args:
        folder: Path of the folder for both.
        config: The resolved configuration of the tuning.
        result: As `run.run_tuning` returns it.
        ranges: What was tuned.
    """
    workdir.write_atomically(folder / CONFIG, as_source(config, result))
    workdir.write_atomically(folder / PICTURE, draw(result, ranges))


def as_source(config: ml_collections.ConfigDict, result: dict) -> str:
    """Returns a configuration file with what was found.

    It says what the stage reads, and tunes nothing itself.

    Args:
        config: The resolved configuration of the tuning.
        result: As `run.run_tuning` returns it.
    """
    sections = {*stages.STAGES["tune"].settings} - {"tune"}
    found = result["found"]
    (best,) = (
        each for each in result["trials"] if each["trial"] == result["best"]
    )
    usual = dict(settings.flatten(settings.load("base")))
    changed = [
        f"    config.{name} = {value!r}"
        for name, value in settings.flatten(config)
        if name not in found
        and name.partition(".")[0] in sections
        and usual[name] != value
    ]
    made = settings.with_values(config, found)
    values = dict(settings.flatten(made))
    of = f"{100 * best['accuracy']:.2f} % of {best['images']:,} images"
    trial = f"trial {best['trial']} of {len(result['trials'])}"
    return "\n".join(
        [
            f'"""What a tuning found: {of} not trained on."""',
            "",
            "from att_darts_tf.configs import base",
            "",
            "",
            'def get_config(variant=""):',
            "    config = base.get_config(variant)",
            *changed,
            f"    # Found, in {trial}:",
            *(f"    config.{name} = {values[name]!r}" for name in found),
            "    return config",
            "",
        ]
    )


def draw(result: dict, ranges: Sequence[Range]) -> bytes:
    """Returns a PNG of the accuracy of trials over each setting.

    Args:
        result: As `run.run_tuning` returns it.
        ranges: What was tuned.
    """
    from matplotlib import figure, ticker

    columns = min(3, len(ranges))
    rows = -(-len(ranges) // columns)
    drawn = figure.Figure(
        figsize=(4 * columns, 3 * rows), layout="constrained"
    )
    panels = drawn.subplots(rows, columns, squeeze=False, sharey=True).flat
    trials = result["trials"]
    most = max(each["epochs"] for each in trials)
    highest = 110 * max(each["accuracy"] for each in trials) or 100
    for each, panel in zip(ranges, panels):
        values = [trial["values"][each.name] for trial in trials]
        if each.kind == "choice":
            names = [str(value) for value in each.values]
            places = [each.values.index(_hashable(value)) for value in values]
            panel.set_xticks(range(len(names)), names)
            panel.set_xlim(-0.5, len(names) - 0.5)
        else:
            places = values
            if each.kind == "log":
                low, high = each.values
                panel.set_xscale("log")
                # Over few powers of ten, more than these.
                subs = (1, 2, 5) if high < 200 * low else (1,)
                panel.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
                panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
                panel.xaxis.set_minor_formatter(ticker.NullFormatter())
            panel.set_xlim(*each.values)
        for trial, x in zip(trials, places, strict=True):
            panel.plot(
                x,
                100 * trial["accuracy"],
                "x" if trial["infeasible"] else "o",
                color="tab:blue",
                # The fewer its epochs, the fainter.
                alpha=0.25 + 0.75 * trial["epochs"] / most,
            )
            if trial["trial"] == result["best"]:
                panel.plot(
                    x,
                    100 * trial["accuracy"],
                    "o",
                    markersize=12,
                    markerfacecolor="none",
                    markeredgecolor="tab:red",
                    clip_on=False,
                )
        panel.set_xlabel(each.name)
        panel.set_ylim(0, highest)
        panel.grid(alpha=0.3)
    for panel in panels:
        panel.set_axis_off()
    drawn.supylabel("accuracy on images not trained on, %", fontsize="medium")
    file = io.BytesIO()
    # Without the version of what drew it.
    drawn.savefig(file, format="png", dpi=100, metadata={"Software": None})
    return file.getvalue()


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value
