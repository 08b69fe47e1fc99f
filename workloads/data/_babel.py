"""Sentences in many languages from the Unicode locale data that Babel carries: narrow, real and exact.

The same date, amount or name is written in English and in each target language by that language's own patterns.
"""

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from workloads._extras import need

SOURCE = "en"

LANGUAGES = ("fr", "de", "hi")
"""Target languages where none are named."""

FIRST_YEAR, LAST_YEAR = 1900, 2049

HELD_OUT_YEARS, HELD_OUT_AMOUNTS = 20, 0.15
"""Years, and the share of amounts, that are only in the harder test."""

CURRENCIES = ("USD", "EUR", "GBP", "INR", "DKK", "CHF", "CNY", "CAD", "AUD", "BRL", "SEK", "MXN")
"""Of two decimals: others would round an amount to one that is held out."""

LEAST_PAIRS = 3
"""Languages of a country, and countries of a language, below which neither is named."""

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000,
           "year": 31_536_000}  # fmt: skip
"""Seconds of each unit of a relative time, as Babel counts them."""

Things = Iterator[tuple[Callable[..., str | None], bool]]
"""What writes a thing, given a ``locale``, or returns None for want of a word; and whether it has a held-out number."""


class Sentences(NamedTuple):
    """Sentences in all languages.

    Args:
        source: In English, each once.
        targets: Language to the same sentences in it.
        unseen: Which of them hold a year or an amount that is held out, shape (N,).
    """

    source: list[str]
    targets: dict[str, list[str]]
    unseen: np.ndarray


def sentences(languages: tuple[str, ...]) -> Sentences:
    """All sentences that each of the languages has words for; the same everywhere with the same Babel.

    No English sentence could be translated in two ways: there is no medium date in May, which looks like a long one.

    Args:
        languages: Locales of Babel, e.g. ``fr`` or ``pt_BR``.

    Raises:
        ValueError: Babel is not installed, or has no such locale.
    """
    english, *locales = map(_locale, (SOURCE, *languages))
    written: dict[str, tuple[list[str], bool]] = {}
    for write, unseen in _things(np.random.default_rng(0), [english, *locales]):
        source = write(locale=english)
        if source is None or source in written:
            continue
        targets = [write(locale=locale) for locale in locales]
        if None not in targets:
            written[source] = targets, unseen
    columns = zip(*(targets for targets, _ in written.values()), strict=True)
    targets = {language: list(column) for language, column in zip(languages, columns, strict=True)}
    return Sentences(list(written), targets, np.array([unseen for _, unseen in written.values()]))


def _locale(name: str) -> Any:
    babel = need("babel", extra="text")
    try:
        return babel.Locale.parse(name)
    except (ValueError, babel.UnknownLocaleError):
        raise ValueError(f"data.languages: Babel has no locale {name!r}; expected e.g. fr or pt_BR") from None


def _things(random: np.random.Generator, locales: Sequence[Any]) -> Things:
    yield from _dates(random)
    whole = [random.choice(np.arange(low, 10 * low), 300, replace=False) for low in (100, 1000, 10_000)]
    decimal = random.choice(np.arange(1, 1000), 300, replace=False) / 10
    amounts = [*range(1, 100), *np.concatenate(whole).tolist(), *decimal.tolist()]
    some = [amount for amount in amounts if amount > 31]  # smaller ones are also days of months
    held_out = set(random.choice(some, int(HELD_OUT_AMOUNTS * len(some)), replace=False).tolist())
    yield from _units(random, amounts, held_out)
    yield from _relative_times(held_out)
    yield from _currencies(random, amounts, held_out)
    yield from _names(locales)


def _dates(random: np.random.Generator) -> Things:
    dates = need("babel.dates", extra="text")
    held_out = set(random.choice(np.arange(FIRST_YEAR, LAST_YEAR + 1), HELD_OUT_YEARS, replace=False).tolist())
    first, last = datetime.date(FIRST_YEAR, 1, 1).toordinal(), datetime.date(LAST_YEAR, 12, 31).toordinal()
    for pattern, count in (("full", 2100), ("long", 1200), ("medium", 700), ("yMMMM", 400), ("yQQQQ", 200)):
        for ordinal in random.integers(first, last + 1, count).tolist():
            day = datetime.date.fromordinal(ordinal)
            if pattern == "medium" and day.month == 5:
                continue
            if pattern in ("full", "long", "medium"):
                yield partial(dates.format_date, day, pattern), day.year in held_out
            else:
                yield partial(dates.format_skeleton, pattern, day), day.year in held_out


def _units(random: np.random.Generator, amounts: list[float], held_out: set[float]) -> Things:
    units = need("babel.units", extra="text")

    def write(amount: float, name: str, locale: Any) -> str | None:
        try:
            text = units.format_unit(amount, name, locale=locale)
        except units.UnknownUnitError:
            return None
        return None if name in text else text  # Babel writes the unit's own name where it has no words for it

    for name in sorted(_locale(SOURCE).unit_display_names):
        for amount in random.choice(amounts, 18, replace=False).tolist():
            yield partial(write, amount, name), amount in held_out


def _relative_times(held_out: set[float]) -> Things:
    write = need("babel.dates", extra="text").format_timedelta
    for name, seconds in SECONDS.items():
        for amount in range(1, 76):
            for sign in (1, -1):
                delta = datetime.timedelta(seconds=sign * amount * seconds)
                # A threshold out of reach keeps the unit: 90 seconds, not 2 minutes.
                yield partial(write, delta, name, threshold=1e9, add_direction=True), amount in held_out


def _currencies(random: np.random.Generator, amounts: list[float], held_out: set[float]) -> Things:
    write = need("babel.numbers", extra="text").format_currency
    for currency in CURRENCIES:
        for amount in random.choice(amounts, 60, replace=False).tolist():
            yield partial(write, amount, currency, format_type="name"), amount in held_out


def _names(locales: Sequence[Any]) -> Things:
    """Languages of a country, e.g. "French (Canada)"; and languages, countries and their times by themselves.

    Only those that stand in four sentences or more: a name can be learnt from other sentences alone.
    """
    spoken = need("babel.languages", extra="text").get_territory_language_info
    pairs = [(code, country) for country in sorted(locales[0].territories) for code in spoken(country)]
    pairs = [(c, t) for c, t in pairs if all(c in locale.languages and t in locale.territories for locale in locales)]
    while True:
        num_countries, num_languages = (Counter(names) for names in zip(*pairs, strict=True))
        often = [(c, t) for c, t in pairs if min(num_countries[c], num_languages[t]) >= LEAST_PAIRS]
        if len(often) == len(pairs):
            break
        pairs = often
    for code, country in pairs:
        yield partial(_spoken_in, code, country), False
    for code in sorted(num_countries):
        yield partial(_name, "languages", code), False
    for pattern in ("%s", "region"):
        for country in sorted(num_languages):
            yield partial(_name, "territories", country, pattern), False


def _spoken_in(code: str, country: str, locale: Any) -> str:
    return f"{locale.languages[code]} ({locale.territories[country]})"


def _name(kind: str, code: str, pattern: str = "%s", *, locale: Any) -> str:
    """The name of a language or country, or of a country's time where ``pattern`` is "region"."""
    return locale.zone_formats.get(pattern, pattern) % getattr(locale, kind)[code]
