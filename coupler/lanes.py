"""Arithmetic on sixteen elements at once: LLVM vectors as expressions, and the functions that networks need of them.

A vector holds one number of each of sixteen elements, its lanes. No lane ever sees another one, so what an element gets
does not depend on its neighbours. LLVM splits the vectors where the processor's are shorter; nothing here is made for
one processor. NaN stays NaN everywhere, and what overflows becomes infinite.
"""

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 16
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()

# 2^f for |f| <= 1/2 with a relative error of 7.5e-8: weighted least squares on Chebyshev nodes, reweighted to minimax.
_EXP2 = (1.0000001, 0.693146944, 0.2402212024, 0.05550713463, 0.00967554096, 0.001327646896)
# Beyond it the logistic function is 0 or 1 in single precision, and 2^x does not overflow.
_MOST_EXPONENT = 87.0
# Rounds to the nearest whole number when it is added and taken away again; its low bits are that number.
_ROUND_FLOAT, _ROUND_DOUBLE = 12582912.0, 6755399441055744.0

# (Phi(x) - 1/2) / x for |x| <= 5 in z = 2 (x/5)^2 - 1, found likewise, exact at the end: x Phi(x) is then as close to
# GELU as torch's own, 3e-7 of max(1, |x|).
_NORMAL_END = 5.0
_NORMAL = (
    0.14136378467082977,
    -0.07029635459184647,
    0.051520828157663345,
    -0.04044092446565628,
    0.03143812343478203,
    -0.02327941730618477,
    0.01642153598368168,
    -0.011136665008962154,
    0.006369141861796379,
    -0.00271631614305079,
    0.0017631505616009235,
    -0.0016009713290259242,
    0.0005940840346738696,
)

# tanh(x) = x p(x^2) / q(x^2) for |x| <= 7.9053, to 2.6e-7: the rational function of Eigen (MathFunctionsImpl.h).
_TANH_END = 7.90531110763549805
_TANH_P = (
    4.89352455891786e-03,
    6.37261928875436e-04,
    1.48572235717979e-05,
    5.12229709037114e-08,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
)
_TANH_Q = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)

# log(1 + f) for sqrt(1/2) < 1 + f < sqrt(2), and ln 2 in two parts: FreeBSD's e_log.c.
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SQRT_HALF_BITS, _MANTISSA = 0x3FE6A09E667F3BCD, 0x000FFFFFFFFFFFFF
_TWO_52_BITS, _TWO_52 = 0x4330000000000000, 4503599627370496.0
_SMALLEST_NORMAL, _TWO_54 = 2.2250738585072014e-308, 18014398509481984.0
# Terms of exp(r) - 1 for |r| <= ln(2) / 2: the first one left out is 4e-18.
_EXPM1 = tuple(1.0 / math.factorial(n) for n in range(1, 14))
_OVERFLOW = 709.782712893384


class Vector:
    """One number of every lane, in code that is being generated.

    Parameters
    ----------
    builder : IRBuilder
        Where the code goes.
    value : IR value
        A vector of numbers or of truth values.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder: Any, pointer: Any, kind: Any, *, aligned: bool = False) -> "Vector":
        """Load the numbers that lie one after another from a pointer to the first on."""
        whole = builder.bitcast(pointer, _vector(kind).as_pointer())
        return cls(builder, builder.load(whole, align=_bytes(kind, aligned)))

    @classmethod
    def spread(cls, builder: Any, value: Any) -> "Vector":
        """Give every lane the same number."""
        nothing = ir.Constant(_vector(value.type), ir.Undefined)
        first = builder.insert_element(nothing, value, ir.IntType(32)(0))
        return cls(builder, builder.shuffle_vector(first, nothing, _vector(ir.IntType(32))([0] * LANES)))

    def store(self, pointer: Any, *, aligned: bool = False) -> None:
        """Store the numbers one after another."""
        kind = self.value.type
        whole = self.builder.bitcast(pointer, kind.as_pointer())
        self.builder.store(self.value, whole, align=_bytes(kind.element, aligned))

    def __add__(self, other: "Vector | float") -> "Vector":
        return self._new(self.builder.fadd(self.value, self._like(other)))

    def __sub__(self, other: "Vector | float") -> "Vector":
        return self._new(self.builder.fsub(self.value, self._like(other)))

    def __rsub__(self, other: float) -> "Vector":
        return self._new(self.builder.fsub(self._like(other), self.value))

    def __mul__(self, other: "Vector | float") -> "Vector":
        return self._new(self.builder.fmul(self.value, self._like(other)))

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return self._new(self.builder.fdiv(self.value, self._like(other)))

    def times_plus(self, factor: "Vector | float", summand: "Vector | float") -> "Vector":
        """Multiply and add, rounded once where the processor can."""
        kind = self.value.type
        letter = "f32" if kind.element == FLOAT else "f64"
        function = ir.FunctionType(kind, [kind] * 3)
        name = f"llvm.fmuladd.v{LANES}{letter}"
        called = cgutils.get_or_insert_function(self.builder.module, function, name)  # type: ignore[no-untyped-call]
        return self._new(self.builder.call(called, [self.value, self._like(factor), self._like(summand)]))

    def polynomial(self, coefficients: Sequence[float]) -> "Vector":
        """Evaluate a polynomial of this vector, the constant first."""
        result = self._new(self._like(coefficients[-1]))
        for coefficient in coefficients[-2::-1]:
            result = result.times_plus(self, coefficient)
        return result

    def limited(self, lower: float | None, upper: float | None) -> "Vector":
        """Limit to a range; NaN stays."""
        result = self
        if lower is not None:
            result = result.where(result._compared("<", lower), lower)
        if upper is not None:
            result = result.where(result._compared(">", upper), upper)
        return result

    def where(self, mask: Any, other: "Vector | float") -> "Vector":
        """Take another number where the mask is true."""
        return self._new(self.builder.select(mask, self._like(other), self.value))

    def _compared(self, comparison: str, other: "Vector | float") -> Any:
        return self.builder.fcmp_ordered(comparison, self.value, self._like(other))

    def relu(self) -> "Vector":
        """Give max(x, 0)."""
        return self.limited(0.0, None)

    def silu(self) -> "Vector":
        """Give x / (1 + exp(-x))."""
        return self / (self.limited(-_MOST_EXPONENT, _MOST_EXPONENT)._exp2(-1.0 / math.log(2.0)) + 1.0)

    def gelu(self) -> "Vector":
        """Give x Phi(x), Phi the normal distribution: the GELU of the error function."""
        inner = self.limited(-_NORMAL_END, _NORMAL_END)
        slope = (inner * inner).times_plus(2.0 / _NORMAL_END**2, -1.0).polynomial(_NORMAL)
        return self * inner.times_plus(slope, 0.5)

    def tanh(self) -> "Vector":
        """Give tanh(x)."""
        inner = self.limited(-_TANH_END, _TANH_END)
        square = inner * inner
        return inner * square.polynomial(_TANH_P) / square.polynomial(_TANH_Q)

    def log(self) -> "Vector":
        """Give ln(x) in double precision; -infinity at 0, NaN below."""
        is_small = self._compared("<", _SMALLEST_NORMAL)
        x = self.where(is_small, self * _TWO_54)
        shift = self._new(self._like(0.0)).where(is_small, 54.0)
        b, bits = self.builder, x._bits()
        above = b.sub(bits, self._whole(_SQRT_HALF_BITS))
        exponent = b.ashr(above, self._whole(52))
        mantissa = b.sub(bits, b.shl(exponent, self._whole(52)))
        # A whole number becomes a double as the low bits of 2^52, which all processors can; 2048 keeps it positive.
        biased = b.or_(b.add(exponent, self._whole(2048)), self._whole(_TWO_52_BITS))
        k = x._from_bits(biased) - (_TWO_52 + 2048.0) - shift
        f = x._from_bits(mantissa) - 1.0
        s = f / (f + 2.0)
        z = s * s
        half_square = f * f * 0.5
        rest = z * z.polynomial(_LOG) + half_square
        result = k.times_plus(_LN2_HIGH, f - (half_square - s.times_plus(rest, k * _LN2_LOW)))
        regular = b.and_(self._compared(">", 0.0), self._compared("<", math.inf))
        special = (self * math.inf).where(self._compared("==", 0.0), -math.inf)
        special = special.where(self._compared("<", 0.0), math.nan)
        return special.where(regular, result)

    def log1p(self) -> "Vector":
        """Give ln(1 + x) in double precision, for x >= 0."""
        whole = self + 1.0
        is_small = self._compared("<", 1.0)
        lost = (1.0 - (whole - self)).where(is_small, self - (whole - 1.0))
        return (whole.log() + lost / whole).where(self._compared("==", math.inf), math.inf)

    def expm1(self) -> "Vector":
        """Give exp(x) - 1 in double precision, for x >= 0."""
        x = self.limited(None, _OVERFLOW)
        rounded = x.times_plus(1.0 / math.log(2.0), _ROUND_DOUBLE)
        k = rounded - _ROUND_DOUBLE
        r = k.times_plus(-_LN2_LOW, k.times_plus(-_LN2_HIGH, x))
        part = r * r.polynomial(_EXPM1)
        b = self.builder
        # 2^(k-1), because 2^k may be infinite where the result is not.
        power = b.shl(b.add(rounded._bits(), self._whole(1022)), self._whole(52))
        scale = self._from_bits(power)
        result = part.times_plus(scale, scale - 0.5) * 2.0
        return result.where(self._compared(">", _OVERFLOW), math.inf)

    def signed_log1p(self) -> "Vector":
        """Give sign(x) ln(1 + |x|) in double precision."""
        return self.magnitude().log1p().with_sign_of(self)

    def signed_expm1(self) -> "Vector":
        """Give sign(x) (exp(|x|) - 1) in double precision, the inverse of :meth:`signed_log1p`."""
        return self.magnitude().expm1().with_sign_of(self)

    def magnitude(self) -> "Vector":
        """Give |x|."""
        return self._from_bits(self.builder.and_(self._bits(), self._whole(2 ** (_width(self.value.type) - 1) - 1)))

    def with_sign_of(self, other: "Vector") -> "Vector":
        """Give |x| with the sign of another one."""
        sign = self.builder.and_(other._bits(), self._whole(-(2 ** (_width(self.value.type) - 1))))
        return self._from_bits(self.builder.or_(self.magnitude()._bits(), sign))

    def _exp2(self, factor: float) -> "Vector":
        """Give 2^(factor x) in single precision, for results that are neither tiny nor infinite."""
        rounded = self.times_plus(factor, _ROUND_FLOAT)
        fraction = self.times_plus(factor, 0.0 - (rounded - _ROUND_FLOAT))
        b = self.builder
        exponent = b.shl(rounded._bits(), self._whole(23))
        return self._from_bits(b.add(fraction.polynomial(_EXP2)._bits(), exponent))

    def _new(self, value: Any) -> "Vector":
        return Vector(self.builder, value)

    def _like(self, other: "Vector | float") -> Any:
        return other.value if isinstance(other, Vector) else self.value.type([other] * LANES)

    def _bits(self) -> Any:
        return self.builder.bitcast(self.value, self._whole_type())

    def _from_bits(self, bits: Any) -> "Vector":
        return self._new(self.builder.bitcast(bits, self.value.type))

    def _whole(self, number: int) -> Any:
        return self._whole_type()([number] * LANES)

    def _whole_type(self) -> Any:
        return _vector(ir.IntType(_width(self.value.type)))


def _vector(kind: Any) -> Any:
    return ir.VectorType(kind, LANES)


def _width(kind: Any) -> int:
    return 32 if kind.element == FLOAT else 64


def _bytes(kind: Any, aligned: bool) -> int:
    """Alignment that may be relied on: a whole vector's, up to a cache line, or a single number's."""
    return 64 if aligned else 4 if kind == FLOAT else 8
