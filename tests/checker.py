"""The run-time checker of shapes and types that `conftest.py` hooks into every module; an int is welcome as a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
