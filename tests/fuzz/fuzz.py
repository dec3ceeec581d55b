"""Fuzz the readers of strangers' files by coverage: `python tests/fuzz/fuzz.py --seconds 5`.

Each reader runs in a process of its own under atheris (libFuzzer), for a bounded time and with a
fixed seed, from sound files. Prints how many inputs each has read; ends with 1 where one raised
what it does not declare, took over 10 s or over 2 GiB, and shows that input.
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_SECONDS = 10  # for one input
MOST_MIB = 2048
MOST_BYTES = 8192  # of an input


def main() -> int:
    """Fuzz every reader, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("readers", nargs="*", help="names (default: all)")
    options = parser.parse_args()
    if options.inside:
        fuzz(options.inside, options.seconds, options.seed)
    from readers import READERS

    failed = 0
    print(f"{'reader':26}{'inputs':>10}{'edges':>8}")
    for name in options.readers or READERS:
        failed += not outcome(name, options.seconds, options.seed)
    print(f"seed {options.seed}, {options.seconds} s a reader: {failed} failed")
    return int(failed > 0)


def outcome(name: str, seconds: int, seed: int) -> bool:
    """Fuzz one reader in a process of its own; print its counts, or what it fell over."""
    arguments = ["--inside", name, "--seconds", str(seconds), "--seed", str(seed)]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        names = ("crash*", "timeout*", "oom*")
        crashes = [path for name in names for path in Path(folder).glob(name)]
        output = re.sub(r"(?m)^INFO: Instrumenting.*\n", "", done.stderr)
        inputs = re.search(r"number_of_executed_units: (\d+)", output)
        edges = re.findall(r"cov: (\d+)", output)
        count = int(inputs[1]) if inputs else 0
        print(f"{name:26}{count:10,}{int(edges[-1]) if edges else 0:8,}", flush=True)
        if done.returncode == 0 and count and not crashes:
            return True
        print(f"{name} ended with {done.returncode}\n{output[-4000:]}")
        for path in crashes:
            print(f"its input, base64: {base64.b64encode(path.read_bytes()).decode()}")
    return False


def fuzz(name: str, seconds: int, seed: int) -> None:
    """Fuzz one reader in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["sdevid"]):
        from readers import READERS, prepare
    reader, work, corpus = READERS[name], Path("work").absolute(), Path("corpus").absolute()
    work.mkdir()
    corpus.mkdir()
    prepare(work)
    for i, content in enumerate(reader.seeds):
        (corpus / str(i)).write_bytes(content)
        reader.read(work, content)  # a seed is read, not refused
    limits = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={MOST_BYTES}"]
    limits += [f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MIB}", "-print_final_stats=1"]
    atheris.Setup([name, *limits, str(corpus)], lambda content: reader(work, content))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
