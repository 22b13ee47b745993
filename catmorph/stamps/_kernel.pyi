import numpy as np

VERSION: int

def weighted_sums(
    pixels: np.ndarray, y_first: np.ndarray, y_weights: np.ndarray, x_first: np.ndarray, x_weights: np.ndarray,
    out: np.ndarray, /,
) -> None: ...
def tap_weights(distance: np.ndarray, half: np.ndarray, area: bool, weights: np.ndarray, /) -> None: ...
def fletcher32(data: np.ndarray, /) -> int: ...
