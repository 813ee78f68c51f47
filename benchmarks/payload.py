"""The 10 kB dicts that every variant echoes: 49 user records each, seeded, so the same on every run.

There are 128 of them, all different, and callers take them in turn: a library that sends several calls in one request
would otherwise compress a hundred equal dicts to the size of one, and seem better than it is. Two kinds:

- `records`: its words come from a vocabulary of twenty, as in the study that set the targets (there 9,923 bytes of
  JSON, 6,989 of msgpack, 4,977 of protobuf, and 2,167 of msgpack in zstd). Every timing uses this one.
- `varied`: names, cities, addresses and numbers as different from each other as real ones. Hardly anything repeats but
  the keys, so that compression gains least (lzma gets it to a quarter of the JSON, no further). The bytes on the wire
  are counted for both, because they depend on the data more than on the protocol.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable
from typing import Any

COUNT = 128
RECORDS = 49
SEED = 9421
KINDS = ("records", "varied")


def _words(text: str) -> list[str]:
    return text.split()


_WORDS = _words(
    "amber basin cedar delta ember field grove haven inlet jetty kelp ledge marsh north ocean pearl quay river shore "
    "tide"
)
_FIRST = _words(
    "Aino Amara Anton Beatriz Bruno Chiara Chen Dagny Dilip Elif Emeka Farah Fionn Greta Hanna Hugo Ines Ivo Jana "
    "Jonas Kenji Khadija Lars Leila Lucia Mads Mei Milan Nadia Noor Oskar Petra Priya Quentin Rosa Ruben Saoirse "
    "Selma Tariq Thea Tomas Uma Viktor Wanja Xenia Yara Yusuf Zofia"
)
_LAST = _words(
    "Abbas Andersson Barros Bauer Costa Dubois Eriksen Fischer Garcia Haddad Horvat Ito Jansen Kaya Keller Kowalski "
    "Larsen Lindqvist Marino Martin Meyer Moreau Nakamura Novak Okafor Olsen Patel Petrov Quinn Rossi Sato Schmid "
    "Silva Svensson Tanaka Toth Ueda Varga Virtanen Wagner Weber Yilmaz Zhang Ziegler"
)
_CITIES = _words(
    "Aarhus Bergen Bologna Braga Brno Cork Dakar Gdansk Ghent Graz Izmir Kyoto Lagos Leeds Lyon Malmo Nantes Osaka "
    "Oulu Porto Pune Riga Rouen Split Tartu Turin Utrecht Valencia"
)
_TAGS = _words("admin beta billing churned editor guest invited legacy mobile newsletter owner partner trial vip")
_HOSTS = ("example.com", "example.net", "example.org", "mail.example", "post.example")


def _record(draw: random.Random, _number: int) -> dict[str, Any]:
    first, last = draw.choice(_WORDS), draw.choice(_WORDS)
    return {
        "id": draw.randint(10_000, 99_999),
        "name": f"{first} {last}",
        "email": f"{first}.{last}{draw.randint(1, 99)}@example.com",
        "city": draw.choice(_WORDS),
        "age": draw.randint(18, 90),
        "score": round(draw.uniform(0, 100), 2),
        "active": draw.random() < 0.5,
        "joined": f"{draw.randint(2012, 2025)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}",
        "tags": draw.sample(_WORDS, 4),
    }


def _varied(draw: random.Random, number: int) -> dict[str, Any]:
    first, last = draw.choice(_FIRST), draw.choice(_LAST)
    day = f"{draw.randint(2012, 2025)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    return {
        "id": 100_000 + number * 37 + draw.randint(0, 36),
        "name": f"{first} {last}",
        "email": f"{first.lower()}.{last.lower()}{draw.randint(1, 99)}@{draw.choice(_HOSTS)}",
        "city": draw.choice(_CITIES),
        "age": draw.randint(18, 90),
        "score": round(draw.uniform(0, 1000), 3),
        "active": draw.random() < 0.7,
        "joined": f"{day}T{draw.randint(0, 23):02}:{draw.randint(0, 59):02}:{draw.randint(0, 59):02}Z",
        "tags": draw.sample(_TAGS, draw.randint(0, 3)),
    }


_MAKERS: dict[str, Callable[[random.Random, int], dict[str, Any]]] = {"records": _record, "varied": _varied}


def build(kind: str) -> list[dict[str, Any]]:
    """The payloads of that kind, equal in every process."""
    draw = random.Random(SEED)
    return [
        {"page": page, "total": 8_213, "users": [_MAKERS[kind](draw, number) for number in range(RECORDS)]}
        for page in range(COUNT)
    ]


def json_size(kind: str) -> float:
    """The mean length of that kind as the standard library's JSON."""
    return statistics.mean(len(json.dumps(page).encode()) for page in build(kind))
