! Bacteria that grow on sugar in one cell: X' = m X S / (K + S), S' = -X' / yield. Compile it with ./build.sh.
module growth
  use, intrinsic :: iso_c_binding, only: c_double, c_int, c_ptrdiff_t => c_intptr_t
  implicit none
  real(c_double), parameter :: fastest = 1.2_c_double, half = 0.05_c_double, yield = 0.5_c_double
contains

  ! C order comes in as columns: rows(1, :) is the sugar and rows(2, :) are the bacteria, both in g/l.
  subroutine grow(inputs, outputs, rows, dt, substeps) bind(c, name="grow")
    integer(c_ptrdiff_t), value :: rows
    real(c_double), intent(in) :: inputs(2, rows)
    real(c_double), intent(out) :: outputs(2, rows)
    real(c_double), value :: dt
    integer(c_int), value :: substeps
    real(c_double) :: sugar, total
    integer(c_ptrdiff_t) :: row
    integer(c_int) :: step

    do row = 1, rows
      sugar = inputs(1, row)
      total = inputs(2, row) + yield * sugar
      do step = 1, substeps
        ! Implicit in the sugar: it never becomes negative.
        sugar = sugar / (1 + dt / substeps * fastest / yield * (total - yield * sugar) / (half + sugar))
      end do
      outputs(1, row) = sugar
      outputs(2, row) = total - yield * sugar
    end do
  end subroutine grow
end module growth
