"""Rates of a mechanism: constants, net production and its derivatives, from temperature and concentrations.

    q_j = [M] (kf prod c^nu' - kr prod c^nu''),   kr = kf / Kc,   Kc = exp(-dG/RT) (p0/RT)^dnu,   w_k = sum nu_kj q_j

Arrhenius, third bodies, and falloff of Lindemann's and Troe's form (R. G. Gilbert, K. Luther, J. Troe, Ber. Bunsenges.
Phys. Chem. 87 (1983) 169), in the conventions of Cantera, so that both can be compared digit by digit. All constants,
forward and backward, are exponentials of sums, taken in one loop that the compiler turns into vector instructions.
"""

import math

import numpy as np
from numba import njit

from coupler.kernels.units import GAS_CONSTANT

_LARGEST = 700.0  # exp(700) is finite; a constant beyond it means that the reverse rate is not defined by it
_SMALLEST = 1e-300
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SHIFTER = 6755399441055744.0  # 1.5 * 2^52: what is added to it is rounded to an integer, in its lowest bits
_LN10 = math.log(10.0)
# What may be reordered: sums within one cell. Every cell goes through the same instructions, so it has the same bits
# in any batch.
_REORDER = {"contract", "reassoc", "nsz"}


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def thermodynamics(T, tables, cp, slope, h, g):
    """Heat capacity [R], its slope [R/K], enthalpy and Gibbs function [RT] of the species at the standard pressure."""
    log, inverse = math.log(T), 1.0 / T
    a = tables.thermo
    for i in range(cp.size):
        high = a[0, i] < T
        a0 = a[8, i] if high else a[1, i]
        a1 = a[9, i] if high else a[2, i]
        a2 = a[10, i] if high else a[3, i]
        a3 = a[11, i] if high else a[4, i]
        a4 = a[12, i] if high else a[5, i]
        a5 = a[13, i] if high else a[6, i]
        a6 = a[14, i] if high else a[7, i]
        cp[i] = a0 + T * (a1 + T * (a2 + T * (a3 + T * a4)))
        slope[i] = a1 + T * (2.0 * a2 + T * (3.0 * a3 + T * 4.0 * a4))
        h[i] = a0 + T * (a1 / 2.0 + T * (a2 / 3.0 + T * (a3 / 4.0 + T * a4 / 5.0))) + a5 * inverse
        entropy = a0 * log + T * (a1 + T * (a2 / 2.0 + T * (a3 / 3.0 + T * a4 / 4.0))) + a6
        g[i] = h[i] - entropy


@njit(nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)
def _exponentials(x, out, scale, bits):
    """e^x to the last bit or two, for |x| <= 700: r = x - n ln 2, a polynomial, and n put into the exponent."""
    for i in range(x.size):
        shifted = x[i] * _LOG2E + _SHIFTER
        n = shifted - _SHIFTER
        scale[i] = shifted
        r = (x[i] - n * _LN2_HIGH) - n * _LN2_LOW
        p = 1.0 / 479001600.0 + r * (1.0 / 6227020800.0)
        p = 1.0 / 39916800.0 + r * p
        p = 1.0 / 3628800.0 + r * p
        p = 1.0 / 362880.0 + r * p
        p = 1.0 / 40320.0 + r * p
        p = 1.0 / 5040.0 + r * p
        p = 1.0 / 720.0 + r * p
        p = 1.0 / 120.0 + r * p
        p = 1.0 / 24.0 + r * p
        p = 1.0 / 6.0 + r * p
        p = 0.5 + r * p
        p = 1.0 + r * p
        out[i] = 1.0 + r * p
    for i in range(x.size):
        bits[i] = (bits[i] + 1023) << 52
    for i in range(x.size):
        out[i] *= scale[i]


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def constants(T, tables, s):
    """Fill forward and backward constants ``s.k`` at a temperature, without third bodies and falloff."""
    thermodynamics(T, tables, s.cp, s.slope, s.h, s.g)
    log, inverse = math.log(T), 1.0 / T
    standard = math.log(tables.pressure * inverse / GAS_CONSTANT)
    arrhenius, factors, sides, g, logs = tables.arrhenius, tables.factors, tables.sides, s.g, s.logs
    forward, count = arrhenius.shape[1], sides.shape[1]
    for j in range(forward):
        logs[j] = arrhenius[0, j] + arrhenius[1, j] * log - arrhenius[2, j] * inverse
    for j in range(count):
        dg = g[sides[3, j]] + g[sides[4, j]] + g[sides[5, j]] - g[sides[0, j]] - g[sides[1, j]] - g[sides[2, j]]
        logs[forward + j] = logs[j] + dg - factors[2, j] * standard
    for j in range(logs.size):
        logs[j] = min(max(logs[j], -_LARGEST), _LARGEST)
    _exponentials(logs, s.k, s.scale, s.bits)
    for j in range(count):
        s.k[j] *= factors[0, j]
        s.k[forward + j] *= factors[0, j] * factors[1, j]


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def collide(T, tables, s):
    """Multiply constants by third bodies and falloff; ``s.bend`` receives what their derivatives need."""
    count, forward = tables.sides.shape[1], tables.arrhenius.shape[1]
    for b in range(s.m.size):
        total = 0.0
        for i in range(s.w.size):
            total += tables.efficiencies[b, i] * s.c[i]
        s.m[b] = total
    for f in range(tables.falloff.shape[1]):
        j = tables.falloff[0, f]
        m = max(s.m[tables.falloff[1, f]], _SMALLEST)
        reduced = s.k[count + f] * m / s.k[j]
        factor = reduced / (1.0 + reduced)
        low = count + f
        steep = (tables.arrhenius[1, low] - tables.arrhenius[1, j]) / T
        steep += (tables.arrhenius[2, low] - tables.arrhenius[2, j]) / (T * T)
        by_m, by_T = 1.0 / (1.0 + reduced), 0.0
        if tables.falloff[2, f]:
            A, T3, T1, T2 = tables.troe[0, f], tables.troe[1, f], tables.troe[2, f], tables.troe[3, f]
            one, two = (1.0 - A) * math.exp(-T * T3), A * math.exp(-T * T1)
            three = math.exp(-T2 / T) if T2 != 0.0 else 0.0
            centre = max(one + two + three, _SMALLEST)
            L, x = math.log10(centre), math.log10(max(reduced, _SMALLEST))
            x += -0.4 - 0.67 * L
            n = 0.75 - 1.27 * L
            d = n - 0.14 * x
            u = x / d
            e = 1.0 / (1.0 + u * u)
            factor *= math.exp(_LN10 * L * e)
            bent = -2.0 * L * u * e * e / (d * d)
            by_m += bent * n
            change = three * T2 / (T * T)
            # exp(-T * inf) has no slope, not 0 * inf.
            change -= one * T3 if np.inf > T3 else 0.0
            change -= two * T1 if np.inf > T1 else 0.0
            by_T = (e + bent * (1.27 * x - 0.67 * n)) * change / centre
        s.bend[0, f] = by_m / m
        s.bend[1, f] = by_m * steep + by_T
        s.k[j] *= factor
        s.k[forward + j] *= factor


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def produce(tables, s):
    """Fill net rates ``s.q`` and net production ``s.w`` from constants that :func:`collide` has been at."""
    sides, c, k = tables.sides, s.c, s.k
    count, forward = sides.shape[1], tables.arrhenius.shape[1]
    for j in range(count):
        s.q[j] = k[j] * c[sides[0, j]] * c[sides[1, j]] * c[sides[2, j]]
        s.q[j] -= k[forward + j] * c[sides[3, j]] * c[sides[4, j]] * c[sides[5, j]]
    for b in range(tables.bodies.shape[1]):
        s.q[tables.bodies[0, b]] *= s.m[tables.bodies[1, b]]
    for i in range(s.w.size):
        total = 0.0
        for entry in range(tables.net_first[i], tables.net_first[i + 1]):
            total += tables.net_number[entry] * s.q[tables.net_reaction[entry]]
        s.w[i] = total


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def differentiate(T, tables, s):
    """After :func:`produce`: fill ``s.slopes``, dw_k/dc_i at constant T, and ``s.warmed``, dw_k/dT at constant c."""
    sides, c, k, h = tables.sides, s.c, s.k, s.h
    count, forward, number = sides.shape[1], tables.arrhenius.shape[1], s.w.size
    for j in range(count):
        a0, a1, a2 = c[sides[0, j]], c[sides[1, j]], c[sides[2, j]]
        b0, b1, b2 = c[sides[3, j]], c[sides[4, j]], c[sides[5, j]]
        s.by_c[0, j], s.by_c[1, j], s.by_c[2, j] = k[j] * a1 * a2, k[j] * a0 * a2, k[j] * a0 * a1
        back = k[forward + j]
        s.by_c[3, j], s.by_c[4, j], s.by_c[5, j] = back * b1 * b2, back * b0 * b2, back * b0 * b1
        ahead, back = k[j] * a0 * a1 * a2, back * b0 * b1 * b2
        s.by_m[j] = ahead - back
        heat = h[sides[3, j]] + h[sides[4, j]] + h[sides[5, j]] - h[sides[0, j]] - h[sides[1, j]] - h[sides[2, j]]
        steep = (tables.arrhenius[1, j] + tables.arrhenius[2, j] / T) / T
        s.by_t[j] = steep * (ahead - back) + back * (heat - tables.factors[2, j]) / T
    for b in range(s.m.size):
        for i in range(number):
            s.crowded[b, i] = 0.0
    for b in range(tables.bodies.shape[1]):
        j, row = tables.bodies[0, b], tables.bodies[1, b]
        s.by_t[j] *= s.m[row]
        for side in range(6):
            s.by_c[side, j] *= s.m[row]
    for f in range(tables.falloff.shape[1]):
        j = tables.falloff[0, f]
        s.by_t[j] += s.bend[1, f] * s.by_m[j]
        s.by_m[j] *= s.bend[0, f]
    _scatter(tables, s)


@njit(nogil=True, error_model="numpy", fastmath=_REORDER, forceinline=True)
def _scatter(tables, s):
    """Sum the slopes of the reactions into those of the species."""
    number, flat, slopes = s.w.size, s.by_c.reshape(s.by_c.size), s.slopes.reshape(s.slopes.size)
    slopes[:] = 0.0
    for entry in range(tables.slope_target.size):
        slopes[tables.slope_target[entry]] += tables.slope_number[entry] * flat[tables.slope_origin[entry]]
    for i in range(number):
        total = 0.0
        for entry in range(tables.net_first[i], tables.net_first[i + 1]):
            total += tables.net_number[entry] * s.by_t[tables.net_reaction[entry]]
        s.warmed[i] = total
    crowded = s.crowded.reshape(s.crowded.size)
    for entry in range(tables.body_target.size):
        crowded[tables.body_target[entry]] += tables.body_number[entry] * s.by_m[tables.body_origin[entry]]
    for b in range(s.m.size):
        for i in range(number):
            share = s.crowded[b, i]
            if share != 0.0:
                for j in range(number):
                    s.slopes[i, j] += share * tables.efficiencies[b, j]
