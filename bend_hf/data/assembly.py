"""Which assembly of the human genome a FASTA file holds, by the lengths of its chromosomes.

>>> assembly_of({"chr20": 63_025_520})
'GRCh37'
>>> assembly_of({"chr20": 5_000}) is None
True
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CHROMOSOMES: Final = (*map(str, range(1, 23)), "X", "Y")

# Lengths in bp of chromosomes 1 to 22, X and Y: the sequence reports of the assemblies at NCBI (GCA_000001405.14 for
# GRCh37.p13, GCA_000001405.15 for GRCh38, GCA_009914755.4 for T2T-CHM13v2.0).
_LENGTHS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "GRCh37": (
            *(249_250_621, 243_199_373, 198_022_430, 191_154_276, 180_915_260, 171_115_067, 159_138_663, 146_364_022),
            *(141_213_431, 135_534_747, 135_006_516, 133_851_895, 115_169_878, 107_349_540, 102_531_392, 90_354_753),
            *(81_195_210, 78_077_248, 59_128_983, 63_025_520, 48_129_895, 51_304_566, 155_270_560, 59_373_566),
        ),
        "GRCh38": (
            *(248_956_422, 242_193_529, 198_295_559, 190_214_555, 181_538_259, 170_805_979, 159_345_973, 145_138_636),
            *(138_394_717, 133_797_422, 135_086_622, 133_275_309, 114_364_328, 107_043_718, 101_991_189, 90_338_345),
            *(83_257_441, 80_373_285, 58_617_616, 64_444_167, 46_709_983, 50_818_468, 156_040_895, 57_227_415),
        ),
        "T2T-CHM13v2.0": (
            *(248_387_328, 242_696_752, 201_105_948, 193_574_945, 182_045_439, 172_126_628, 160_567_428, 146_259_331),
            *(150_617_247, 134_758_134, 135_127_769, 133_324_548, 113_566_686, 101_161_492, 99_753_195, 96_330_374),
            *(84_276_897, 80_542_538, 61_707_364, 66_210_255, 45_090_682, 51_324_926, 154_259_566, 62_460_029),
        ),
    }
)
UNKNOWN: Final = "unknown"


def assembly_of(contigs: Mapping[str, int]) -> str | None:
    """Return the assembly whose chromosomes have the lengths of these contigs; None if no assembly fits.

    Args:
        contigs: Lengths in bp by name, with or without ``chr`` in front. Contigs of other names are left out; at least
            one chromosome must be there, and all that are there must fit.
    """
    found = {name.removeprefix("chr"): n_bp for name, n_bp in contigs.items()}
    found = {name: n_bp for name, n_bp in found.items() if name in _CHROMOSOMES}
    for assembly, lengths in _LENGTHS.items():
        known = dict(zip(_CHROMOSOMES, lengths, strict=True))
        if found and all(known[name] == n_bp for name, n_bp in found.items()):
            return assembly
    return None
