"""Speed of variant scoring beside the plain way of doing the same work, in one run on one machine.

    python -m benchmarks.variants                  # a table, and benchmarks/results/variants.json
    python -m benchmarks.variants --n 200 --rounds 5

The plain way takes one variant at a time: both alleles through the model in one forward, every row copied to the host
and repeated a nucleotide each, and SciPy's cosine of the two at the variant. Ours is ``score_variants``, asked for the
same: BEND's score, with which the other distances at the variant come; its last layer is computed at the variant's
token alone. What it takes with the distances averaged around the variant (all rows), and with likelihoods too (one
forward a site more), neither of which the plain way has, is given apart. The model is a random Nucleotide Transformer
of 6 layers and width 256. All ways take turns, and the best of the rounds counts, so that another program's load does
not decide; ``--clock cpu`` counts the processor's time instead, where the load never ends. *Overhead* is what of our
time is not the model's forward.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from scipy.spatial.distance import cosine

from bend_hf.embedders import load_embedder
from bend_hf.embedders._embedder import Embedder, best_device
from bend_hf.types import Ints
from bend_hf.variants import ScoreSettings, score_variants
from tests.fake_checkpoints import make_tiny

RESULTS = Path(__file__).parent / "results" / "variants.json"
KEY = "nt_transformer_human_ref"
SIX_LAYERS = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "max_position_embeddings": 1002,
}
WANTED = {"distinct sites": {"cpu": 1.5, "cuda": 20.0}, "three alternatives a site": {"cpu": 2.2, "cuda": 20.0}}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MOST_OVERHEAD = 0.05


class Variants:
    """Random variants in random sequence; ``per_site`` of them share a site."""

    def __init__(self, n: int, per_site: int) -> None:
        rng = np.random.default_rng(0)
        n_sites = -(-n // per_site)
        letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), (n_sites, 1025))
        texts = [row.tobytes().decode() for row in letters]
        site = np.arange(n) // per_site
        ref = [texts[at][512] for at in site]
        alt = ["ACGT"[("ACGT".index(base) + 1 + number % per_site) % 4] for number, base in enumerate(ref)]
        self._table = pa.table(
            {
                "item": np.arange(n),
                "sequence": pa.array([texts[at] for at in site], pa.large_string()),
                "variant_offset": np.full(n, 512),
                "label": np.arange(n) % 2,
                "chromosome": ["chr1"] * n,
                "start": 2000 * site,
                "end": 2000 * site + 1,
                "ref": ref,
                "alt": alt,
            }
        )

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the two classes."""
        return ("no", "yes")

    def __len__(self) -> int:
        return len(self._table)

    def by_site(self) -> Ints:
        """They stand in that order."""
        return np.arange(len(self))

    def table(self, rows: Ints) -> pa.Table:
        """Some of them."""
        return self._table.take(pa.array(rows))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One comparison; seconds are those of the best round."""

    name: str
    n_variants: int
    plain_seconds: float
    our_seconds: float
    forward_seconds: float
    with_averages_seconds: float
    with_averages_forward_seconds: float
    with_likelihood_seconds: float
    largest_difference: float
    wanted: float

    @property
    def speedup(self) -> float:
        """How many times faster ours is."""
        return self.plain_seconds / self.our_seconds

    @property
    def overhead(self) -> float:
        """Share of our time outside the model's forward."""
        return 1.0 - self.forward_seconds / self.our_seconds

    @property
    def with_averages_speedup(self) -> float:
        """How many times faster ours is where it also averages distances over all rows."""
        return self.plain_seconds / self.with_averages_seconds

    @property
    def with_averages_overhead(self) -> float:
        """Share of that time outside the model's forward."""
        return 1.0 - self.with_averages_forward_seconds / self.with_averages_seconds

    def derived(self) -> dict[str, float]:
        """What follows from the seconds, for the report."""
        names = ("speedup", "overhead", "with_averages_speedup", "with_averages_overhead")
        return {name: getattr(self, name) for name in names}


def make_model(device: str) -> Embedder:
    """The random model."""
    folder = make_tiny(KEY, Path(tempfile.mkdtemp(prefix="bend_hf_bench_")) / KEY)
    config = json.loads((folder / "config.json").read_text()) | SIX_LAYERS
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1000}))
    return load_embedder(KEY, checkpoint=folder, random_init=True, device=device)


def plain_way(embedder: Embedder, variants: Variants) -> list[float]:
    """One variant at a time, all rows on the host."""
    table = variants.table(np.arange(len(variants)))
    found = []
    device = embedder.runner().device
    for text, alt in zip(table["sequence"].to_pylist(), table["alt"].to_pylist(), strict=True):
        ref = text[256:769]
        tokens = embedder.tokenize([ref, ref[:256] + alt + ref[257:]])
        ids = torch.from_numpy(tokens.ids.astype(np.int64).reshape(2, -1)).to(device)
        with torch.inference_mode():
            rows = embedder._hidden(ids, None, -1).cpu().numpy()[:, 1:]
        wide = [
            np.repeat(rows[i], tokens.embedding_bp[tokens.embedding_starts[i] : tokens.embedding_starts[i + 1]], axis=0)
            for i in (0, 1)
        ]
        found.append(float(cosine(wide[0][256], wide[1][256])))
    return found


class Stopwatch:
    """Adds up the seconds spent in a model's forward, of all tokens or of some."""

    def __init__(self, embedder: Embedder, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._inside = False
        self._embedder = embedder
        embedder._hidden = self._timed(embedder._hidden)  # type: ignore[method-assign]
        embedder._hidden_at = self._timed(embedder._hidden_at)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Leaves the model as it was: the class's own methods again."""
        del self._embedder._hidden, self._embedder._hidden_at

    def _timed(self, inner: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def timed(*inputs: object) -> torch.Tensor:
            if self._inside:  # the one in terms of the other
                return inner(*inputs)
            self._inside, start = True, self._clock()
            values = inner(*inputs)
            if values.is_cuda:
                torch.cuda.synchronize()
            self.seconds += self._clock() - start
            self._inside = False
            return values

        return timed


def measure(name: str, embedder: Embedder, n: int, per_site: int, rounds: int, clock: Callable[[], float]) -> Measured:
    """All ways in turns."""
    variants = Variants(n, per_site)
    accelerator = Accelerator(cpu=embedder.runner().device.type == "cpu")
    watch = Stopwatch(embedder, clock)

    def ours(*, averages: bool = False, likelihood: bool = False) -> np.ndarray:
        settings = ScoreSettings(averages=averages, likelihood=likelihood)
        said = score_variants(variants, embedder, accelerator, settings)
        assert said.predictions.score is not None
        return said.predictions.score

    def timed(way: Callable[[], object]) -> float:
        start = clock()
        way()
        return clock() - start

    small = Variants(8, per_site)
    plain_way(embedder, small)
    ours(likelihood=True)
    plain, own, averaged, likely, forward, averaged_forward = [], [], [], [], [], []
    for _ in range(rounds):
        plain.append(timed(lambda: plain_way(embedder, variants)))
        watch.seconds = 0.0
        own.append(timed(ours))
        forward.append(watch.seconds)
        watch.seconds = 0.0
        averaged.append(timed(lambda: ours(averages=True)))
        averaged_forward.append(watch.seconds)
        likely.append(timed(lambda: ours(averages=True, likelihood=True)))
    difference = np.abs(np.array(plain_way(embedder, variants)) - ours()).max()
    watch.remove()
    best, best_averaged = int(np.argmin(own)), int(np.argmin(averaged))
    device = embedder.runner().device.type
    return Measured(
        name=name,
        n_variants=n,
        plain_seconds=min(plain),
        our_seconds=own[best],
        forward_seconds=forward[best],
        with_averages_seconds=averaged[best_averaged],
        with_averages_forward_seconds=averaged_forward[best_averaged],
        with_likelihood_seconds=min(likely),
        largest_difference=float(difference),
        wanted=WANTED[name].get(device, 1.0),
    )


def main(argv: list[str] | None = None) -> int:
    """Measures, prints and writes; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=96, help="variants a comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parsed = parser.parse_args(argv)
    clock = CLOCKS[parsed.clock]
    embedder = make_model(parsed.device)
    found = [
        measure("distinct sites", embedder, parsed.n, 1, parsed.rounds, clock),
        measure("three alternatives a site", embedder, parsed.n, 3, parsed.rounds, clock),
    ]
    for one in found:
        print(
            f"{one.name}: {one.n_variants} variants, plain {one.plain_seconds:.2f} s, largest difference "
            f"{one.largest_difference:.1e}\n"
            f"  at the variant: {one.our_seconds:.2f} s, {one.speedup:.2f} times (wanted {one.wanted}), "
            f"overhead {one.overhead:.1%}\n"
            f"  with averages:  {one.with_averages_seconds:.2f} s, {one.with_averages_speedup:.2f} times, "
            f"overhead {one.with_averages_overhead:.1%}; with likelihoods too {one.with_likelihood_seconds:.2f} s"
        )
    report = {
        "what": "variant scoring, 6-layer 256-wide 6-mer model with random weights, sequences of 513 bp",
        "device": torch.cuda.get_device_name() if parsed.device.startswith("cuda") else platform.machine(),
        "clock": parsed.clock,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "comparisons": [{**asdict(one), **one.derived()} for one in found],
    }
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    parsed.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(one.speedup >= one.wanted and one.overhead < MOST_OVERHEAD for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
