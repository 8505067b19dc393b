"""Write `s2s_jax/text/dates_cldr.json`, the table of date formats that the `dates` task draws from, out of CLDR.

Only this script needs Babel. The table names the versions that it was made with, and it is committed, so that the
examples of the task do not change with an installed package. A newer CLDR may change spellings and patterns, and thus
the examples: scores of `task:dates` from before and after are not comparable.

    pip install babel==2.18.0
    python scripts/make_dates_table.py            # write the table
    python scripts/make_dates_table.py --check    # compare the committed table with the installed Babel
"""

import argparse
import json
import re
import sys
from datetime import date
from pathlib import Path

import babel
from babel import Locale
from babel.core import get_cldr_version
from babel.dates import format_date, tokenize_pattern

TABLE = Path(__file__).parent.parent / "s2s_jax" / "text" / "dates_cldr.json"
LOCALES = (
    *("en_US", "en_GB", "de", "fr", "es", "it", "pl", "tr"),
    *("ru", "el", "ja", "zh", "ko", "hi", "bn", "ar_EG", "fa", "he"),
)
LENGTHS = ("full", "long", "medium", "short")
SKELETONS = ("yMMMd", "yMMMEd", "yMd", "yMEd")  # CLDR's names for: month name, and weekday, month number, and weekday
ZEROS = {"latn": "0", "arab": "٠", "arabext": "۰", "beng": "০", "deva": "०"}  # CLDR numbering system -> its zero
LIST = re.compile(r"\[\n *(?P<items>[^\[\]]*)\n *\]")
MONTHS = [date(2000, month, 1) for month in range(1, 13)]
WEEKDAYS = [date(2001, 1, 1 + weekday) for weekday in range(7)]  # 2001 began on a Monday


def dates_table() -> dict:
    """The table: the versions, and per locale its zero, its date patterns, and the names of months and weekdays."""
    return {
        "source": f"Unicode CLDR {get_cldr_version()} as of Babel {babel.__version__}",
        "license": "Unicode License v3, https://www.unicode.org/license.txt; Copyright 1991-2025 Unicode, Inc.",
        "made_by": "scripts/make_dates_table.py",
        "locales": {locale: locale_entry(locale) for locale in LOCALES},
    }


def locale_entry(locale: str) -> dict:
    """The zero of a locale's digits, its patterns, each once, and for each named field of these its twelve or seven."""
    data = Locale.parse(locale)
    patterns = [data.date_formats[length].pattern for length in LENGTHS]
    patterns += [data.datetime_skeletons[name].pattern for name in SKELETONS if name in data.datetime_skeletons]
    tokens = [value for pattern in patterns for kind, value in tokenize_pattern(pattern) if kind == "field"]
    fields = sorted({letter * int(count) for letter, count in tokens})
    return {
        "zero": ZEROS[data.default_numbering_system],
        "patterns": list(dict.fromkeys(patterns)),
        "names": {field: field_names(field, locale) for field in fields if is_name(field)},
    }


def is_name(field: str) -> bool:
    """Whether a field of a pattern, such as `MMM` or `E`, is written as a name and not as a number."""
    return field[0] in "Ec" or len(field) > 2


def field_names(field: str, locale: str) -> list[str]:
    """The names of a field, from January on or from Monday on."""
    days = MONTHS if field[0] == "M" else WEEKDAYS
    return [format_date(day, format=field, locale=locale) for day in days]


def as_json(table: dict) -> str:
    """The table as JSON, one list per line."""
    text = json.dumps(table, ensure_ascii=False, indent=1) + "\n"
    return LIST.sub(lambda match: "[" + re.sub(r"\n *", " ", match["items"]) + "]", text)


def main() -> int:
    """Write the table, or compare it with what the installed Babel gives; 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    text = as_json(dates_table())
    if not parser.parse_args().check:
        TABLE.write_text(text, encoding="utf-8")
    elif TABLE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{TABLE} differs from what Babel {babel.__version__} gives.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
