"""Stock surrogates, one architecture per file; the import name is ``coupler.models``."""

if __name__ != "coupler.models":
    raise ImportError(
        f'The stock surrogates were imported as "{__name__}", where plug-in names do not find them: '
        "write `import coupler.models` instead."
    )
