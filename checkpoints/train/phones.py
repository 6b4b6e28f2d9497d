"""The phone set of the trainers, and the tables that lead to it from the phone names of the synthesisers.

The set is the 39 phones of the CMU Pronouncing Dictionary in lower case without stress, plus "sil". Where a synthesiser
has one name for two phones (a syllabic or an r-coloured sound) the table names both and the time is shared equally, so
that labels agree with the dictionary's spelling of the word.
"""

from __future__ import annotations

from dataclasses import dataclass

_ARPABET = "aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
PHONES = ("sil", *_ARPABET.split())


@dataclass(frozen=True)
class Segment:
    """One phone with its times in seconds, and the index of the word it belongs to (None: no word)."""

    phone: str
    start_s: float
    end_s: float
    word: int | None


def split(phones: tuple[str, ...], start_s: float, end_s: float, word: int | None) -> list[Segment]:
    """Share [start_s, end_s) equally among `phones`."""
    step_s = (end_s - start_s) / max(len(phones), 1)
    return [Segment(p, start_s + i * step_s, start_s + (i + 1) * step_s, word) for i, p in enumerate(phones)]


def from_radio(name: str) -> tuple[str, ...]:
    """Phones for a name of the "radio" set of Festival and Flite. KeyError: the table lacks it."""
    return (name,) if name in PHONES else _RADIO[name]


def from_espeak(mnemonic: str, *, rhotic: bool) -> tuple[str, ...]:
    """Phones for an English eSpeak mnemonic, with or without the r that colours it. KeyError: the table lacks it."""
    phones = _ESPEAK[mnemonic]
    return phones if rhotic or mnemonic not in _R_COLOURED else phones[:-1]


def _table(text: str) -> dict[str, tuple[str, ...]]:
    pairs = (entry.split("=") for entry in text.split())
    return {name: tuple(phones.split("+")) for name, phones in pairs}


_RADIO = _table("pau=sil h#=sil brth=sil ssil=sil ax=ah axr=er dx=t hv=hh nx=n el=ah+l em=ah+m en=ah+n")

_ESPEAK = _table(
    """
    _=sil _:=sil _|=sil _!=sil
    p=p b=b t=t t2=t t#=t d=d d#=d k=k k2=k g=g f=f v=v T=th D=dh s=s z=z S=sh Z=zh h=hh m=m n=n N=ng l=l l#=l
    l/=l r=r r-=r w=w w#=w j=y ;=y tS=ch dZ=jh x=k ?=t n-=ah+n m-=ah+m @L=ah+l @=ah @-=ah @2=ah @5=ah @#=ah a=ae
    aa=ae a#=ah A:=aa A@=aa+r A~=aa E=eh e@=eh+r I=ih I2=ih I#=ih IR=er i=iy i:=iy i@=iy+ah i@3=ih+r O=ao O:=ao
    O2=ao o@=ao+r O@=ao+r O~=ao V=ah VR=er 0=aa U=uh U@=uh+r u:=uw 3=er 3:=er eI=ey aI=ay aI2=ay OI=oy aU=aw
    oU=ow aI@=ay+ah aI3=ay+er A#=aa E#=eh 0#=aa u=uw @U=ow aU@=aw+er
    """
)
_R_COLOURED = frozenset(("A@", "e@", "i@3", "o@", "O@", "U@"))
