"""The yardstick of every gradient: a difference quotient in float64."""
import numpy as np


def slope(f, x, direction, h=1e-6):
    """How fast f(x) changes along `direction`: (f(x + h*direction) - f(x - h*direction))/2h; x float64."""
    return (np.asarray(f(x + h*direction)) - np.asarray(f(x - h*direction)))/(2*h)
