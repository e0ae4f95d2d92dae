"""What happens to images between their records and a network.

A preprocessing is made once, of the configuration and the prepared images, and
does all of it: for training, for evaluation and for files that a served model
is asked about. `config.data.augmentation` names its kind.
"""

import dataclasses
from typing import Any

import ml_collections
import tensorflow as tf

from att_darts_tf.data import augment, images, prepared, resized_crop
from att_darts_tf.errors import UsageError


@dataclasses.dataclass(frozen=True)
class PaddedCrop:
    """Shifts, mirrors and erases images stored as pixels of one size.

    Attributes:
        image_shape: `(height, width, channels)`.
        mean: As in `augment.normalise`.
        std: As in `augment.normalise`.
        padding: As in `augment.random_crop`.
        flip: As in `augment.augment`.
        cutout: As in `augment.random_cutout`.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool
    cutout: int

    def training(self, pixels, *, seed, rows=None):
        """Returns augmented inputs, `float32`, of a batch of pixels.

        Args:
            pixels: `uint8` tensor of shape `(batch, *image_shape)`.
            seed: Integer tensor of shape `(2,)`.
            rows: As in `augment.draws`.
        """
        return augment.augment(
            pixels,
            seed=seed,
            mean=self.mean,
            std=self.std,
            padding=self.padding,
            flip=self.flip,
            cutout=self.cutout,
            rows=rows,
        )

    def evaluation(self, pixels):
        """Returns the inputs, `float32`, that a network is judged on."""
        return augment.normalise(pixels, mean=self.mean, std=self.std)

    def fit(self, contents):
        """Turns a file into the pixels that a network is judged on.

        Args:
            contents: Scalar string tensor, the bytes of a JPEG or PNG file.

        Returns:
            A `uint8` tensor of `image_shape`, not normalised.
        """
        height, width, channels = self.image_shape
        image = images.decode(contents, channels=channels)
        return images.resize(image, height=height, width=width)


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Cuts windows of any size out of encoded files, as for ImageNet.

    Attributes:
        image_shape: `(height, width, channels)`.
        mean: As in `augment.normalise`.
        std: As in `augment.normalise`.
        crop_area: As in `resized_crop.sample_window`.
        flip: Whether to mirror half of the images.
        color_jitter: As in `resized_crop.color_jitter`.
        evaluation_resize: As `shorter_side` in `images.resize_and_crop`.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_area: tuple[float, float]
    flip: bool
    color_jitter: tuple[float, float, float, float]
    evaluation_resize: int

    def training(self, contents, *, seed, rows=None):
        """Returns augmented inputs, `float32`, of a batch of files.

        Args:
            contents: String tensor of shape `(batch,)`, bytes of JPEG or PNG
                files.
            seed: Integer tensor of shape `(2,)`.
            rows: As in `augment.draws`.
        """
        first, last, whole = rows or augment.whole_batch(contents)
        seeds = tf.random.split(seed, num=whole)[first:last]
        return tf.map_fn(
            lambda each: self.augment(each[0], seed=each[1]),
            (contents, seeds),
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.float32),
        )

    def evaluation(self, contents):
        """Returns the inputs, `float32`, that a network is judged on."""
        pixels = tf.map_fn(
            self.fit,
            contents,
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.uint8),
        )
        return self._normalise(pixels)

    def augment(self, contents, *, seed):
        """Turns one file into a training input.

        Args:
            contents: Scalar string tensor, the bytes of a JPEG or PNG file.
            seed: Integer tensor of shape `(2,)`.

        Returns:
            A `float32` tensor of `image_shape`.
        """
        height, width, channels = self.image_shape
        window_seed, flip_seed, color_seed = tf.unstack(
            tf.random.split(seed, num=3)
        )
        window = resized_crop.sample_window(
            images.size_of(contents), seed=window_seed, area=self.crop_area
        )
        image = images.decode_window(contents, window, channels=channels)
        image = tf.image.resize(image, (height, width), antialias=True)
        image = tf.ensure_shape(image, self.image_shape)
        if self.flip:
            image = augment.random_flip(image[None], seed=flip_seed)[0]
        image = resized_crop.color_jitter(
            image, seed=color_seed, strengths=self.color_jitter
        )
        return self._normalise(image)

    def fit(self, contents):
        """Turns a file into the pixels that a network is judged on.

        Args:
            contents: Scalar string tensor, the bytes of a JPEG or PNG file.

        Returns:
            A `uint8` tensor of `image_shape`, not normalised.
        """
        height, width, channels = self.image_shape
        return images.resize_and_crop(
            images.decode(contents, channels=channels),
            shorter_side=self.evaluation_resize,
            height=height,
            width=width,
        )

    def _normalise(self, pixels):
        return augment.normalise(pixels, mean=self.mean, std=self.std)


Preprocessing = PaddedCrop | ResizedCrop

# What each kind reads of `config.data`, for training and for evaluation.
_TRAINING = {
    "padded_crop": ("padding", "flip"),
    "resized_crop": ("crop_area", "flip", "color_jitter"),
}
_EVALUATION = {"padded_crop": (), "resized_crop": ("evaluation_resize",)}


def of(
    settings: ml_collections.ConfigDict,
    data: prepared.PreparedData,
    *,
    cutout: int = 0,
) -> Preprocessing:
    """Returns the preprocessing that a configuration names.

    Args:
        settings: `config.data`.
        data: Description of the prepared images.
        cutout: Integer. Of the recipe; "resized_crop" erases nothing.
    """
    received = "resized_crop" if data.encoded else "padded_crop"
    if settings.augmentation != received:
        raise UsageError(
            f"Expected images in {data.folder} that were prepared with "
            f"config.data.augmentation={settings.augmentation}. Received: "
            f"images for {received}. Run the stage `prepare` again or give "
            f"--config.data.augmentation={received}"
        )
    common = {
        "image_shape": data.image_shape,
        "mean": data.mean,
        "std": data.std,
        **{
            name: settings[name]
            for name in _TRAINING[received] + _EVALUATION[received]
        },
    }
    if data.encoded:
        return ResizedCrop(**common)
    return PaddedCrop(**common, cutout=cutout)


def training_settings(settings: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what of `config.data` decides a training, images aside."""
    return {name: settings[name] for name in _TRAINING[settings.augmentation]}


def evaluation_settings(settings: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what of `config.data` decides an evaluation, images aside."""
    return {name: settings[name] for name in _EVALUATION[settings.augmentation]}

