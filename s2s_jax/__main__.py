"""`python -m s2s_jax` is `s2s`."""

import sys

from s2s_jax.cli import main

sys.exit(main())
