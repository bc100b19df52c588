"""Simulations that come with coupler, one physics per file, each with reference values it is tested against."""

if __name__ != "coupler.kernels":
    raise ImportError(
        f'These kernels were imported as "{__name__}", a name that may belong to another package: '
        "import coupler.kernels instead, and take the folder that holds it off sys.path."
    )
