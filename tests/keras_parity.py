"""Builds a published graph in real Keras with random weights and saves it; test_keras_parity runs it.

Usage: python keras_parity.py GRAPH FOLDER. Writes m.h5 (whole model), stamps.npy, outputs.npy and parameters.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from keras import Input, Model, Sequential, layers

FIRST = {"data_format": "channels_first"}
TABLE_1 = (
    (96, 128, 16, 16, 64, 32), (128, 192, 32, 96, 128, 64), (96, 208, 16, 48, 192, 64),
    (112, 224, 24, 64, 160, 64), (144, 288, 32, 64, 128, 64), (144, 288, 32, 64, 112, 64),
)  # fmt: skip


def clash_released():
    def convolution(maps, width, kernel, padding="same", norm=True):
        maps = layers.Conv2D(width, kernel, padding=padding, activation="relu", **FIRST)(maps)
        # The default axis is the last one: x, where channels come first.
        return layers.BatchNormalization()(maps) if norm else maps

    def inception(maps, number):
        reduce3, conv3, reduce5, conv5, conv1, pool = TABLE_1[number - 1]
        norm = number < 4
        three = convolution(convolution(maps, reduce3, 1, norm=norm), conv3, 3, norm=norm)
        five = convolution(convolution(maps, reduce5, 1, norm=norm), conv5, 5, norm=norm)
        pooled = layers.MaxPooling2D(3, strides=1, padding="same", **FIRST)(maps)
        pooled = convolution(pooled, pool, 1, norm=norm)
        one = convolution(maps, conv1, 1, norm=norm)
        return layers.Concatenate(axis=1)([three, three if number == 3 else five, pooled, one])

    def halve(maps):
        return layers.MaxPooling2D(2, **FIRST)(maps)

    inputs = Input((1, 80, 80))
    maps = halve(convolution(inputs, 64, 7, "valid"))
    maps = halve(convolution(maps, 128, 6, "valid"))
    maps = halve(inception(inception(maps, 1), 2))
    maps = halve(inception(inception(inception(maps, 3), 4), 5))
    maps = layers.AveragePooling2D(2, **FIRST)(inception(maps, 6))
    maps = layers.Flatten()(convolution(maps, 256, 1, norm=False))
    for _ in range(2):
        maps = layers.Dropout(0.5)(layers.Dense(1024, activation="relu")(maps))
    return Model(inputs, layers.Dense(5, activation="softmax")(maps))


def dominguez(order=FIRST, theano=False):
    def convolution(width, kernel):
        if not theano:
            return [layers.Conv2D(width, kernel, padding="same", **order), layers.Activation("relu")]
        # Keras on Theano pads kernel // 2 pixels on both sides and drops what is too much at the end.
        padding = layers.ZeroPadding2D(((kernel // 2, (kernel - 1) // 2),) * 2, **order)
        return [padding, layers.Conv2D(width, kernel, **order), layers.Activation("relu")]

    return Sequential([
        Input((3, 69, 69) if order is FIRST else (69, 69, 3)),
        *convolution(32, 6), layers.Dropout(0.5),
        *convolution(64, 5), layers.MaxPooling2D(2, **order), layers.Dropout(0.25),
        *convolution(128, 2), layers.MaxPooling2D(2, **order), layers.Dropout(0.25),
        *convolution(128, 3), layers.Dropout(0.25),
        layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5),
        layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip


def gz2():
    return Sequential([
        Input((64, 64, 3)),
        layers.Conv2D(32, 3), layers.BatchNormalization(), layers.Activation("relu"),
        layers.MaxPooling2D(2), layers.Dropout(0.2),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2), layers.Dropout(0.2),
        layers.Conv2D(128, 6, activation="relu"), layers.Dropout(0.2),
        layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.2),
        layers.Dense(64, activation="relu"), layers.Dropout(0.2), layers.Dense(37, activation="sigmoid"),
    ])  # fmt: skip


GRAPHS = {
    "clash-inception-released": clash_released,
    "dominguez-theano": lambda: dominguez(theano=True),
    "dominguez-channels-first": dominguez,
    "dominguez-channels-last": lambda: dominguez({"data_format": "channels_last"}),
    "gz2-cnn": gz2,
}


def fill(model, rng):
    """Fill every parameter and running statistic with random numbers of a size that keeps the maps near one."""
    for layer in model.layers:
        values = []
        for value in layer.get_weights():
            spread = 1.4 / np.sqrt(np.prod(value.shape[:-1])) if value.ndim > 1 else 0.2
            values.append(rng.normal(0, spread, value.shape))
        if isinstance(layer, layers.BatchNormalization):
            values[0], values[3] = 1 + values[0], rng.uniform(0.5, 2, values[3].shape)
        if layer is model.layers[-1]:
            values[0] /= 4
        layer.set_weights(values)


def draw(rng, shape):
    """Draw stamps that differ: noise of several strengths on a slope of several directions."""
    count, *axes = shape
    slope = np.zeros(shape)
    for axis, pixels in enumerate(axes, start=1):
        ramp = np.linspace(-1, 1, pixels).reshape([-1 if i == axis else 1 for i in range(4)])
        slope += rng.normal(0, 1, (count, 1, 1, 1)) * ramp
    noise = rng.normal(0, 1, shape) * rng.uniform(0.1, 1, (count, 1, 1, 1))
    return (0.5 + slope + noise).astype(np.float32)


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    rng = np.random.default_rng(7)
    model = GRAPHS[name]()
    fill(model, rng)
    stamps = draw(rng, (6, *model.input_shape[1:]))
    np.save(folder / "stamps.npy", stamps)
    np.save(folder / "outputs.npy", model.predict(stamps, verbose=0))
    np.save(folder / "parameters.npy", model.count_params())
    model.save(folder / "m.h5")
