"""python -m ci.training train|report"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# One thread: sums in another order round otherwise, and the weights would differ.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from ci.training import report, train
from selfheal_worker.builtin.classifier import FILE, Classifier


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ci.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("train", help="write the weights file")
    fit.add_argument("--train", type=Path, required=True, help="GoEmotions (Ekman), train.tsv")
    fit.add_argument("--rated", type=Path, required=True, help="vaderSentiment-*.tar.gz")
    fit.add_argument("--out", type=Path, default=FILE)
    measure = commands.add_parser("report", help="measure the weights on held-out texts")
    measure.add_argument("--dev", type=Path, required=True, help="GoEmotions (Ekman), dev.tsv")
    measure.add_argument("--rated", type=Path, required=True, help="vaderSentiment-*.tar.gz")
    measure.add_argument("--weights", type=Path, default=FILE)
    measure.add_argument("--feedback", choices=("choose", "test"), default="test")
    options = parser.parse_args()
    if options.command == "report":
        classifier = Classifier.load(options.weights)
        lines = report.report(classifier, options.dev, options.rated, options.feedback)
        print("\n".join(lines))
        return
    raw = train.train(train.corpus(options.train, options.rated))
    options.out.write_bytes(raw)
    print(f"{options.out}: {len(raw):,} bytes")


if __name__ == "__main__":
    main()
