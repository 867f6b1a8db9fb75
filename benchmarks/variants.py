"""Time variant scoring, against scoring one variant at a time.

    python -m benchmarks.variants                  # prints a table, writes benchmarks/results/variants.json
    python -m benchmarks.variants --n 200 --rounds 5

The reference takes one variant at a time: both alleles in one forward pass, all embeddings copied to the host and
repeated per nucleotide, and SciPy's cosine at the variant. Ours is ``score_variants`` with the same score; the other
distances at the variant come with it, and the last layer is computed at the token of the variant only. The time with
distances averaged around the variant (all embeddings), which the reference does not compute, is given separately. With
likelihoods, both sides take one more sequence per variant, whose token at the variant is masked. The models are
Nucleotide Transformers with random weights and width 256, of 6 and of 12 layers. Both sides take turns, and the best
round counts, so that the load of other programs matters less; ``--clock cpu`` counts processor time instead. *Overhead*
is our time outside the model's forward pass. A *pass* is one forward pass of a batch.
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
from bend_hf.embedders._device import best_device
from bend_hf.embedders._embedder import Embedder
from bend_hf.types import Ints
from bend_hf.variants import ScoreSettings, score_variants
from tests.fake_checkpoints import make_tiny

RESULTS = Path(__file__).parent / "results" / "variants.json"
KEY = "nt_transformer_human_ref"
SIZES = {
    "hidden_size": 256,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "max_position_embeddings": 1002,
}
LAYERS, MORE_LAYERS = 6, 12
WANTED = {
    "distinct sites": {"cpu": 1.5, "cuda": 20.0},
    "three alternatives per site": {"cpu": 2.2, "cuda": 20.0},
    "distinct sites, 12 layers": {"cpu": 1.4, "cuda": 20.0},
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MAX_OVERHEAD = 0.05


class Variants:
    """Random variants in random sequences; ``per_site`` of them share a site."""

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
        """Indices of the variants by site, which is their order."""
        return np.arange(len(self))

    def table(self, rows: Ints) -> pa.Table:
        """The variants of some rows."""
        return self._table.take(pa.array(rows))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One comparison, with the seconds of the best round."""

    name: str
    n_variants: int
    plain_seconds: float
    our_seconds: float
    forward_seconds: float
    with_averages_seconds: float
    with_averages_forward_seconds: float
    with_likelihood_seconds: float
    plain_with_likelihood_seconds: float
    passes_per_variant: float
    sequences_per_pass: float
    largest_difference: float
    wanted: float

    @property
    def speedup(self) -> float:
        """Ratio of the reference's time to ours."""
        return self.plain_seconds / self.our_seconds

    @property
    def overhead(self) -> float:
        """Fraction of our time outside the model's forward pass."""
        return 1.0 - self.forward_seconds / self.our_seconds

    @property
    def with_averages_speedup(self) -> float:
        """Ratio of the reference's time to ours with averaged distances."""
        return self.plain_seconds / self.with_averages_seconds

    @property
    def with_averages_overhead(self) -> float:
        """Fraction of the time with averaged distances outside the model's forward pass."""
        return 1.0 - self.with_averages_forward_seconds / self.with_averages_seconds

    @property
    def with_likelihood_speedup(self) -> float:
        """Ratio of the reference's time to ours, with averaged distances on our side and likelihoods on both."""
        return self.plain_with_likelihood_seconds / self.with_likelihood_seconds

    @property
    def host_ms_per_variant(self) -> float:
        """Our time outside the model's forward pass, of one variant without averages and likelihoods."""
        return 1e3 * (self.our_seconds - self.forward_seconds) / self.n_variants

    def derived(self) -> dict[str, float]:
        """The ratios, for the results file."""
        names = ("speedup", "overhead", "with_averages_speedup", "with_averages_overhead", "with_likelihood_speedup")
        names = (*names, "host_ms_per_variant")
        return {name: getattr(self, name) for name in names}


def make_model(device: str, n_layers: int = LAYERS) -> Embedder:
    """Load the model with random weights."""
    folder = make_tiny(KEY, Path(tempfile.mkdtemp(prefix="bend_hf_bench_")) / KEY)
    config = json.loads((folder / "config.json").read_text()) | SIZES | {"num_hidden_layers": n_layers}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1000}))
    return load_embedder(KEY, checkpoint=folder, random_init=True, device=device)


def plain_way(embedder: Embedder, variants: Variants, *, likelihood: bool = False) -> list[float]:
    """Score one variant at a time, with all embeddings on the host, and the scores of a masked token if asked for."""
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
        if likelihood:
            masked = ids[:1].clone()
            masked[0, 1 + 256 // 6] = embedder.mask_id
            with torch.inference_mode():
                embedder._logits(masked, None)[0, 1 + 256 // 6].log_softmax(0).cpu()
    return found


class Stopwatch:
    """Adds up the seconds in a model's forward pass, over all tokens or some."""

    def __init__(self, embedder: Embedder, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self.passes = 0
        self.sequences = 0
        self._clock = clock
        self._inside = False
        self._embedder = embedder
        embedder._hidden = self._timed(embedder._hidden)  # type: ignore[method-assign]  # timed in place
        embedder._hidden_at = self._timed(embedder._hidden_at)  # type: ignore[method-assign]
        embedder._logits_at = self._timed(embedder._logits_at)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Restore the methods of the model."""
        del self._embedder._hidden, self._embedder._hidden_at, self._embedder._logits_at

    def reset(self) -> None:
        """Count from zero."""
        self.seconds, self.passes, self.sequences = 0.0, 0, 0

    def _timed(self, inner: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def timed(*inputs: object) -> torch.Tensor:
            if self._inside:  # one of the methods calls the other
                return inner(*inputs)
            self._inside, start = True, self._clock()
            values = inner(*inputs)
            if values.is_cuda:
                torch.cuda.synchronize()
            self.seconds += self._clock() - start
            self.passes += 1
            self.sequences += len(inputs[0])  # type: ignore[arg-type]  # token ids
            self._inside = False
            return values

        return timed


def measure(name: str, embedder: Embedder, n: int, per_site: int, rounds: int, clock: Callable[[], float]) -> Measured:
    """Time both sides in turns."""
    variants = Variants(n, per_site)
    accelerator = Accelerator(cpu=embedder.runner().device.type == "cpu")
    watch = Stopwatch(embedder, clock)

    def ours(*, averages: bool = False, likelihood: bool = False) -> np.ndarray:
        settings = ScoreSettings(averages=averages, likelihood=likelihood)
        scored = score_variants(variants, embedder, accelerator, settings)
        if scored.predictions.score is None:
            raise SystemExit("score_variants returned no scores")
        return scored.predictions.score

    def timed(way: Callable[[], object]) -> float:
        start = clock()
        way()
        return clock() - start

    small = Variants(8, per_site)
    plain_way(embedder, small, likelihood=True)
    ours(likelihood=True)
    plain, own, averaged, likely, forward, averaged_forward, plain_likely = [], [], [], [], [], [], []
    for _ in range(rounds):
        plain.append(timed(lambda: plain_way(embedder, variants)))
        plain_likely.append(timed(lambda: plain_way(embedder, variants, likelihood=True)))
        watch.reset()
        own.append(timed(ours))
        forward.append(watch.seconds)
        watch.reset()
        averaged.append(timed(lambda: ours(averages=True)))
        averaged_forward.append(watch.seconds)
        watch.reset()
        likely.append(timed(lambda: ours(averages=True, likelihood=True)))
        passes, sequences = watch.passes, watch.sequences
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
        plain_with_likelihood_seconds=min(plain_likely),
        passes_per_variant=passes / n,
        sequences_per_pass=sequences / passes,
        largest_difference=float(difference),
        wanted=WANTED[name].get(device, 1.0),
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write the results; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=96, help="number of variants per comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parsed = parser.parse_args(argv)
    clock = CLOCKS[parsed.clock]
    embedder = make_model(parsed.device)
    found = [
        measure("distinct sites", embedder, parsed.n, 1, parsed.rounds, clock),
        measure("three alternatives per site", embedder, parsed.n, 3, parsed.rounds, clock),
    ]
    larger = make_model(parsed.device, MORE_LAYERS)
    found.append(measure("distinct sites, 12 layers", larger, parsed.n, 1, parsed.rounds, clock))
    for one in found:
        print(
            f"{one.name}: {one.n_variants} variants, plain {one.plain_seconds:.2f} s, largest difference "
            f"{one.largest_difference:.1e}\n"
            f"  at the variant: {one.our_seconds:.2f} s, {one.speedup:.2f} times (wanted {one.wanted}), "
            f"overhead {one.overhead:.1%}\n"
            f"  with averages:  {one.with_averages_seconds:.2f} s, {one.with_averages_speedup:.2f} times, "
            f"overhead {one.with_averages_overhead:.1%}\n"
            f"  with likelihoods too: {one.with_likelihood_seconds:.2f} s, {one.with_likelihood_speedup:.2f} times a "
            f"plain pass more; {one.passes_per_variant:.2f} passes per variant, {one.sequences_per_pass:.1f} sequences "
            f"per pass; {one.host_ms_per_variant:.2f} ms per variant outside the model"
        )
    report = {
        "what": "variant scoring, 6-mer models of width 256 with random weights, sequences of 513 bp",
        "device": torch.cuda.get_device_name() if parsed.device.startswith("cuda") else platform.machine(),
        "clock": parsed.clock,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "comparisons": [{**asdict(one), **one.derived()} for one in found],
    }
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    parsed.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(one.speedup >= one.wanted and one.overhead < MAX_OVERHEAD for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
