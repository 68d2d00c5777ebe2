"""`python -m examples.flights`, which is what `make demo` runs."""

import sys

from .demo import main

sys.exit(main(sys.argv[1:]))
