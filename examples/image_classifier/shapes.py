"""Pictures of shapes: anywhere, of several sizes, turned, under noise."""

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
SIZE = 32


def inside(shape, x, y):
    """Whether points are in a shape around the origin that reaches about 1 far."""
    if shape == "circle":
        return x * x + y * y < 0.8
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.75
    if shape == "triangle":
        return (y > -0.5) & (y < 1 - np.sqrt(3) * abs(x))
    return (np.minimum(abs(x), abs(y)) < 0.25) & (np.maximum(abs(x), abs(y)) < 0.95)


def draw(random, count):
    """Images, FP32 [count, 1, SIZE, SIZE], and the numbers of their shapes, INT64 [count]."""
    labels = random.randint(len(SHAPES), size=count)
    images = random.normal(0, 0.3, (count, 1, SIZE, SIZE)).astype(np.float32)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for image, label in zip(images, labels):
        radius = random.uniform(8, 14)
        left, top = random.uniform(radius, SIZE - radius, 2)
        angle = random.uniform(0, 2 * np.pi)
        x, y = (columns - left) / radius, (rows - top) / radius
        x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
        image[0] += inside(SHAPES[label], x, y)
    return images, labels
