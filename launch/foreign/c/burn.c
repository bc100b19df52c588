/* Fuel that burns in one cell: Y' = -Y A exp(-Ta / T), T' = q Y A exp(-Ta / T). Compile it with ./build.sh. */

#include <math.h>
#include <stddef.h>

static const double HEAT = 1200.0, ACTIVATION = 9000.0, FREQUENCY = 2e8;

/* Rows of two numbers in C order, fuel [1] and temperature [K]; every row by itself, the inputs left as they are. */
void burn(const double *inputs, double *outputs, ptrdiff_t rows, double dt, int substeps)
{
    const double h = dt / substeps;
    for (ptrdiff_t row = 0; row < rows; ++row) {
        double fuel = inputs[2 * row];
        const double heat = inputs[2 * row + 1] + HEAT * fuel;
        /* Implicit in the fuel: it never becomes negative, however hot it is. */
        for (int step = 0; step < substeps; ++step)
            fuel /= 1.0 + h * FREQUENCY * exp(-ACTIVATION / (heat - HEAT * fuel));
        outputs[2 * row] = fuel;
        outputs[2 * row + 1] = heat - HEAT * fuel;
    }
}
