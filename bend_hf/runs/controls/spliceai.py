"""SpliceAI: five networks that find splice sites, read from the PyPI package ``spliceai`` if it is installed.

The package is found without importing it, and its networks run in plain Torch. On gene finding, donors and acceptors on
both strands are called where their probability is above one half; the networks know nothing of the other classes, which
are all predicted as non-coding. For a variant, the score is the largest change of a splice site within 50 bp.

The exon ends with the donor of SpliceAI, and the intron begins with the donor of BEND:

>>> shifted(np.array([[0.0, 0.9, 0.1, 0.0]]), 1).tolist()
[[0.0, 0.0, 0.9, 0.1]]
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import ControlError
from bend_hf.files import file_sha256, json_sha256
from bend_hf.runs.controls._features import Windows
from bend_hf.runs.controls._linear import of_windows
from bend_hf.runs.controls._spec import ControlResult, ControlSpec, Provenance
from bend_hf.runs.controls._variants import variant_predictions
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import NucleotideClasses
from bend_hf.tasks.gene_finding import CLASSES
from bend_hf.types import Floats, Ints, Json, Labels

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from bend_hf.runs.controls._splice_network import SpliceNetwork

N_NETWORKS: Final = 5
INSTALL: Final = "install it with 'pip install --no-deps spliceai' (its license is GPL-3.0; TensorFlow is not needed)"
REACH_BP: Final = 50  # on each side of a variant, in which changes count; the default of SpliceAI
THRESHOLD: Final = 0.5  # of a probability, above which a site is called; the recommended one of SpliceAI
_NUCLEOTIDES_ON_CPU: Final = 1 << 14  # larger batches wait for memory
_NUCLEOTIDES_ON_GPU: Final = 1 << 17
_NON_CODING: Final = CLASSES.index("non_coding")


def version() -> str | None:
    """Return the version of the package; None if it, or one of its networks, is not there."""
    try:
        found = importlib.metadata.version("spliceai")
    except importlib.metadata.PackageNotFoundError:
        return None
    return found if len(network_files()) == N_NETWORKS else None


def network_files() -> list[Path]:
    """Return the files of the networks, without importing the package; it would import TensorFlow."""
    spec = importlib.util.find_spec("spliceai")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    named = [Path(folder) / "models" / f"spliceai{number + 1}.h5" for folder in folders for number in range(N_NETWORKS)]
    return [path for path in named if path.is_file()]


def networks_sha256() -> str | None:
    """Return the hash of the files of the networks; None if there are none."""
    found: Json = {path.name: file_sha256(path) for path in network_files()}
    return json_sha256(found) if found else None


class Ensemble:
    """The networks, whose probabilities are averaged.

    Args:
        networks: The networks.
        device: Where they run.
    """

    def __init__(self, networks: Sequence[SpliceNetwork], device: torch.device) -> None:
        self._networks = [network.to(device) for network in networks]
        self._device = device

    @property
    def nucleotides_at_once(self) -> int:
        """Nucleotides in a batch that is efficient on the device."""
        return _NUCLEOTIDES_ON_CPU if self._device.type == "cpu" else _NUCLEOTIDES_ON_GPU

    def probabilities(self, sequences: Sequence[str], flank_bp: int = 0) -> Floats:
        """Return the probabilities of neither, acceptor and donor on the strand that is given.

        Args:
            sequences: Upper-case sequences, which N surrounds; shorter ones are read as if they went on with N.
            flank_bp: How many nucleotides on each side get no output.

        Returns:
            Float32, shape (sequences, 3, longest - 2 * flank_bp).
        """
        import torch

        from bend_hf.runs.controls._splice_network import one_hot

        x_B4L = one_hot(list(sequences)).to(self._device)
        with torch.inference_mode():
            found = torch.stack([network(x_B4L, flank_bp) for network in self._networks])
        mean: Floats = found.mean(dim=0).cpu().numpy()
        return mean

    def both_strands(self, sequences: Sequence[str], flank_bp: int = 0) -> tuple[Floats, Floats]:
        """Return the probabilities on the plus and on the minus strand, both in the order of the genome.

        Sequences of one call must have one length.
        """
        from bend_hf.data.sequences import reverse_complement

        plus = self.probabilities(sequences, flank_bp)
        minus = self.probabilities([reverse_complement(one) for one in sequences], flank_bp)
        return plus, minus[..., ::-1]


def load_ensemble() -> Ensemble:
    """Read the installed networks, onto the device of the run.

    Raises:
        ControlError: They are not installed, or are not those of SpliceAI.
    """
    if version() is None:
        raise ControlError(f"the control 'spliceai' found no networks of the package spliceai; {INSTALL}")
    from accelerate import PartialState

    from bend_hf.runs.controls._splice_network import read_network

    return Ensemble([read_network(path) for path in network_files()], PartialState().device)


def weights_sha256() -> str:
    """Return the hash of the networks' files."""
    return json_sha256([file_sha256(path) for path in network_files()])


def shifted(values: Floats, by: int) -> Floats:
    """Move values along their last axis, and fill with 0."""
    moved = np.zeros_like(values)
    length = values.shape[-1]
    if abs(by) < length:
        moved[..., max(by, 0) : length + min(by, 0)] = values[..., max(-by, 0) : length - max(by, 0)]
    return moved


def site_probabilities(ensemble: Ensemble, sequence: str) -> dict[str, Floats]:
    """Return the probability of each splice class at each nucleotide, in the convention of BEND's labels.

    SpliceAI calls the last base of the exon before the intron, and the first one of the exon after it; BEND labels the
    first and the last base of the intron.

    Returns:
        Shape (nucleotides,) for each of the four classes.
    """
    from bend_hf.runs.controls._splice_network import ACCEPTOR, DONOR

    (plus,), (minus,) = ensemble.both_strands([sequence])
    return {
        "donor+": shifted(plus[DONOR], 1),
        "acceptor+": shifted(plus[ACCEPTOR], -1),
        "donor-": shifted(minus[DONOR], -1),
        "acceptor-": shifted(minus[ACCEPTOR], 1),
    }


def called_classes(probabilities: dict[str, Floats]) -> Labels:
    """Return the class of each nucleotide: the likeliest splice class above the threshold, or non-coding.

    >>> called_classes({"donor+": np.array([0.9, 0.2]), "acceptor-": np.array([0.6, 0.3])}).tolist()
    [1, 8]
    """
    indices = np.array([CLASSES.index(name) for name in probabilities], np.int16)
    stacked = np.stack(list(probabilities.values()))
    classes: Labels = np.where(stacked.max(axis=0) > THRESHOLD, indices[stacked.argmax(axis=0)], _NON_CODING)
    return classes.astype(np.int16)


def _predict_genes(task: TaskSpec, test: Dataset) -> ControlResult:
    from sklearn.metrics import average_precision_score

    ensemble, windows = load_ensemble(), Windows(test, task.label, None)
    sequences = [text.upper() for text in test.select_columns(["sequence"])["sequence"]]
    of_rows = [site_probabilities(ensemble, sequence) for sequence in sequences]
    target = np.concatenate([batch.target for batch in windows.batches()])
    auprc: dict[str, Json] = {}
    for name in of_rows[0] if of_rows else ():
        is_site = target[target >= 0] == CLASSES.index(name)
        likely = np.concatenate([one[name] for one in of_rows])[target >= 0]
        auprc[name] = float(average_precision_score(is_site, likely)) if is_site.any() else None
    classes = np.concatenate([np.zeros(0, np.int16), *map(called_classes, of_rows)])
    rows: Ints = np.arange(len(test))
    return ControlResult(
        predictions=of_windows(task, test, rows, windows.counts, target, classes),
        learned={**_facts(), "threshold": THRESHOLD, "auprc": auprc},
    )


def alleles(sequence: str, offset: int, alt: str) -> tuple[str, str]:
    """Return the sequence with REF and with ALT around a substitution, which stands in the middle of both.

    >>> alleles("ACGTA", 1, "T")
    ('NNACGTA', 'NNATGTA')
    """
    side = max(offset, len(sequence) - offset - 1)
    left, right = "N" * (side - offset), "N" * (side - (len(sequence) - offset - 1))
    return f"{left}{sequence}{right}", f"{left}{sequence[:offset]}{alt}{sequence[offset + 1 :]}{right}"


def delta_scores(ensemble: Ensemble, refs: Sequence[str], alts: Sequence[str]) -> Floats:
    """Return the largest change of a donor or acceptor near the middle of each pair, on either strand.

    Args:
        ensemble: The networks.
        refs: Sequences of one odd length, with REF in the middle.
        alts: The same with ALT.

    Returns:
        Between 0 and 1, float32, shape (pairs,).
    """
    middle = len(refs[0]) // 2
    flank = max(middle - REACH_BP, 0)
    strands = zip(ensemble.both_strands(refs, flank), ensemble.both_strands(alts, flank), strict=True)
    changes = [np.abs(alt[:, 1:] - ref[:, 1:]).max(axis=(1, 2)) for ref, alt in strands]
    largest: Floats = np.maximum(*changes).astype(np.float32)
    return largest


def _predict_variants(task: TaskSpec, test: Dataset) -> ControlResult:
    ensemble = load_ensemble()
    scores = [delta_scores(ensemble, *zip(*pairs, strict=True)) for pairs in _pairs(test, ensemble.nucleotides_at_once)]
    return ControlResult(
        predictions=variant_predictions(task, test, np.concatenate(scores)),
        learned={**_facts(), "reach_bp": REACH_BP},
    )


def _pairs(test: Dataset, nucleotides: int) -> Iterator[list[tuple[str, str]]]:
    """Yield REF and ALT of some variants at a time, all of one length."""
    batch: list[tuple[str, str]] = []
    for row in test.select_columns(["item", "sequence", "variant_offset", "ref", "alt"]):
        if len(row["ref"]) != 1 or len(row["alt"]) != 1:
            raise ControlError(
                f"the variant {row['item']} changes {row['ref']} to {row['alt']}; the control 'spliceai' expects "
                "substitutions of one base. Leave it out, or choose other controls with --only."
            )
        pair = alleles(row["sequence"].upper(), row["variant_offset"], row["alt"].upper())
        if batch and (len(pair[0]) != len(batch[0][0]) or len(batch) * len(pair[0]) >= nucleotides):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def _facts() -> dict[str, Json]:
    return {"networks": N_NETWORKS, "weights_sha256": weights_sha256()}


def _predict(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
    return (_predict_genes if task.variant is None else _predict_variants)(task, splits["test"])


def _finds_splice_sites(task: TaskSpec) -> str | None:
    if isinstance(task.label, NucleotideClasses) and task.label.names == CLASSES:
        return None
    if task.key == "variant_effects_disease":
        return None
    return f"{task.key} has no splice sites, which are all that SpliceAI predicts"


CONTROLS = (
    ControlSpec(
        key="spliceai",
        title="SpliceAI",
        text="Five networks that find splice sites; other classes of genes are predicted as non-coding. For a variant, "
        "the largest change of a splice site within 50 bp.",
        why_not=_finds_splice_sites,
        predict=_predict,
        head="none: SpliceAI",
        provenance=Provenance(
            version=version,
            content=networks_sha256,
            install=INSTALL,
            source="https://github.com/Illumina/SpliceAI",
            license="GPL-3.0",
            # Jaganathan et al., Cell 176, 535 (2019), Method Details
            trained_on="GENCODE V24lift37 genes of chromosomes 2, 4, 6, 8, 10 to 22, X and Y, chr20 among them",
        ),
    ),
)
